"""Records parameters and health of a model's activations at chosen steps of a training."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from softknee._errors import OptionError, UsageError
from softknee.integrations._activations import activations_of
from softknee.integrations._observe import Observer, fetch, wide_dtype
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from softknee.integrations._histogram import Histogram
    from softknee.integrations._loggers import Logger
    from softknee.integrations._observe import Health

EVERY = 50


class ActivationRecorder:
    """Records the activations of a model at every n-th step: trained parameters, and how the units do.

    Every activation module of softknee, torch, transformers and timm is recorded; activations inside others and calls
    of functions, such as `F.relu`, are not. Hooks are on the model only during a recorded step; nothing else about the
    model changes, and no random numbers are drawn. Results go by tags, `activations/{name in the model}/{metric}`:

    - `dead`: share of units whose outputs and slopes are exactly 0 at all `samples` of the step. Units are channels
      (dimension 1) of inputs with 4 or more dimensions, else entries of the last dimension.
    - `zero`, `nonfinite`: share of outputs that are exactly 0, and that are infinite or not a number.
    - `mean`, `std`: of the finite outputs.
    - `inputs`: a histogram of the inputs between fixed edges.
    - each trained parameter as it was at the start of the step: its value if it is one number, else `{name}_min`,
      `{name}_mean` and `{name}_max`.

    Args:
        model: Looked through again at each recorded step, so that activations may be replaced in between.
        every: Steps 0, `every`, 2 `every` and so on are recorded.
        logger: Takes the results of `step`.

    Raises:
        OptionError: `every` is no positive whole number.
        UsageError: The model has no activation module, or is compiled.
    """

    def __init__(self, model: nn.Module, *, every: int = EVERY, logger: Logger | None = None) -> None:
        check_every(every)
        self.model = model
        self.every = every
        self.logger = logger
        self._observer: Observer | None = None
        self._parameters: dict[str, Tensor] = {}
        _check_not_compiled(model)
        if not activations_of(model):
            raise UsageError(
                "the model has no activation module of softknee, torch, transformers or timm to record; "
                "calls of functions, such as F.relu, are not seen: put modules in their place by softknee.swap"
            )

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Record a step, if it is one of those to record, and give the results to the logger.

        Args:
            step: Its number.

        Yields:
            Nothing; the step runs in the `with` block.
        """
        self.begin(step)
        try:
            yield
            values = self.end()
        finally:
            self.cancel()
        if values and self.logger is not None:
            self.logger.log(values, step)

    def begin(self, step: int) -> bool:
        """Begin to record, if the step is one of those to record.

        Args:
            step: Its number.

        Returns:
            Whether it is.
        """
        self.cancel()
        if step % self.every:
            return False
        activations = activations_of(self.model)
        self._parameters = _trained(activations)
        self._observer = Observer(activations)
        self._observer.attach()
        return True

    @property
    def is_recording(self) -> bool:
        """Whether a step is being recorded, or its recording pauses."""
        return self._observer is not None

    def pause(self) -> None:
        """Take the hooks away; what was recorded is kept."""
        if self._observer is not None:
            self._observer.detach()

    def resume(self) -> None:
        """Go on with the next part of the step, such as another of the batches whose gradients it adds up."""
        if self._observer is not None:
            self._observer.attach()

    def end(self) -> dict[str, float | Histogram]:
        """End a step, which waits for the device once.

        Returns:
            The results by their tags; nothing if the step was not one to record.
        """
        if self._observer is None:
            return {}
        self._observer.detach()
        parameters, found = fetch(self._parameters), self._observer.take()
        self.cancel()
        if not found:
            warnings.warn(
                "no activation ran in the recorded step where it could be seen: hooks do not fire in compiled models, "
                "in nn.DataParallel and under torch.func, and sharded activations are left out",
                stacklevel=2,
            )
        return {
            **{
                f"activations/{name}": value
                for name, numbers in parameters.items()
                for name, value in _tagged(name, numbers)
            },
            **{
                f"activations/{name}/{metric}": value
                for name, health in found.items()
                for metric, value in _metrics(health)
            },
        }

    def cancel(self) -> None:
        """Take the hooks away and forget what was recorded."""
        if self._observer is not None:
            self._observer.detach()
        self._observer = None
        self._parameters = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without a step that is being recorded."""
        return {**self.__dict__, "_observer": None, "_parameters": {}}


def check_every(every: int) -> None:
    """Refuse a number of steps that is none.

    Raises:
        OptionError: It is no positive whole number.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise OptionError(f"every must be an integer of at least 1, got {excerpt(every)}")


def scalars(values: dict[str, float | Histogram]) -> dict[str, float]:
    """Return the numbers among results, without the histograms."""
    return {tag: value for tag, value in values.items() if isinstance(value, int | float)}


def _trained(activations: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the trained parameters by name: those of one number as they are, others as minimum, mean and maximum."""
    return {
        f"{activation}/{name}": _summary(parameter.detach())
        for activation, module in activations.items()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and parameter.numel()
    }


def _summary(parameter: Tensor) -> Tensor:
    # Of a sharded parameter only the whole says anything; all processes come through here together.
    whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    values = whole.flatten().to(wide_dtype(whole.device))
    return values.clone() if len(values) == 1 else torch.stack([values.min(), values.mean(), values.max()])


def _tagged(name: str, numbers: list[float]) -> Iterator[tuple[str, float]]:
    if len(numbers) == 1:
        yield name, numbers[0]
    else:
        yield from zip((f"{name}_min", f"{name}_mean", f"{name}_max"), numbers, strict=True)


def _metrics(health: Health) -> Iterator[tuple[str, float | Histogram]]:
    if health.dead is not None:
        yield "dead", health.dead
    yield "zero", health.zero
    yield "nonfinite", health.nonfinite
    yield "mean", health.mean
    yield "std", health.std
    yield "samples", health.samples
    yield "inputs", health.inputs


def _check_not_compiled(model: nn.Module) -> None:
    """Refuse a model whose hooks would not fire.

    Raises:
        UsageError: It is compiled.
    """
    for module in model.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise UsageError(
                "the model is compiled, and hooks that are added later do not fire in compiled models; "
                "record the original, uncompiled model"
            )
