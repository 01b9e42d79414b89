"""Records parameters and health of a model's activations at chosen steps of a training."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from softknee._diagnose.units.fused import collected, to_cpu
from softknee._diagnose.units.modules import check_every, check_not_compiled
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import targets_by_class
from softknee._diagnose.units.states import has_slopes, histogram, moments
from softknee._diagnose.units.sums import gathered
from softknee._diagnose.units.trained import noted, numbers, size, trained
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from softknee._diagnose.units.histogram import Histogram
    from softknee._diagnose.units.sums import Sums
    from softknee.integrations._loggers import Logger

EVERY = 50
# Of each unit, in one run of the model.
VALUES = 64


class ActivationRecorder:
    """Records the activations of a model at every n-th step: trained parameters, and how the units do.

    Every activation module of softknee, torch, transformers and timm is recorded, by up to 64 values of each unit;
    activations inside others and calls of functions, such as `F.relu`, are not (`softknee.watch` sees those). Hooks are
    on the model only during a recorded step; nothing else about the model changes, and no random numbers are drawn.
    Results go by tags, `activations/{name in the model}/{metric}`; further calls of a module have `#1`, `#2` and so on
    behind its name:

    - `dead`: share of units whose slope is exactly 0 at all `samples` of the step. Units are channels (dimension 1) of
      inputs with 4 or more dimensions, else entries of the last dimension.
    - `zero`, `nonfinite`: share of outputs that are exactly 0, and that are infinite or not a number.
    - `mean`, `std`: of the finite outputs.
    - `inputs`: a histogram of the inputs between fixed edges.
    - each trained parameter as it was at the start of the step: its value if it is one number, else `{name}_min`,
      `{name}_mean` and `{name}_max`.
    - `{name}_gradient`: root mean square of its gradient, at `note_gradients` or else at the end of the step; left out
      where there is none then.

    Args:
        model: Looked through again at each recorded step, so that activations may be replaced in between.
        every: Steps 0, `every`, 2 `every` and so on are recorded.
        logger: Takes the results of `step`.
        together: Whether results are of what all processes have seen. All must record the same steps then.

    Raises:
        OptionError: `every` is no positive whole number.
        UsageError: The model has no activation module, or is compiled.
    """

    def __init__(
        self, model: nn.Module, *, every: int = EVERY, logger: Logger | None = None, together: bool = False
    ) -> None:
        check_every(every)
        self.model = model
        self.every = every
        self.logger = logger
        self.together = together
        self._observer: Observer | None = None
        self._is_recording = False
        self._parameters: dict[tuple[str, str], Tensor] = {}
        self._gradients: dict[tuple[str, str], Tensor] | None = None
        check_not_compiled(model, "record")
        if not targets_by_class(model):
            raise UsageError(
                "the model has no activation module of softknee, torch, transformers or timm to record; "
                "calls of functions, such as F.relu, are seen by softknee.watch, or put modules in their place by "
                "softknee.swap"
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
        targets = targets_by_class(self.model)
        self._parameters = {name: noted(one, 1) for name, one in trained(targets).items()}
        # What was found out of the activations before still holds, if they are the same ones.
        if self._observer is None or self._observer.targets != targets:
            self._observer = Observer(self.model, targets, values=VALUES)
        self._observer.attach()
        self._is_recording = True
        return True

    @property
    def is_recording(self) -> bool:
        """Whether a step is being recorded, or its recording pauses."""
        return self._is_recording

    def pause(self) -> None:
        """Take the hooks away; what was recorded is kept."""
        if self._observer is not None and self._is_recording:
            self._observer.detach()

    def resume(self) -> None:
        """Go on with the next part of the step, such as another of the batches whose gradients it adds up."""
        if self._observer is not None and self._is_recording:
            self._observer.attach()

    def note_gradients(self) -> None:
        """Note the gradients of the trained parameters as they are now, best just before the optimizer's step."""
        if self._observer is not None and self._is_recording:
            self._gradients = {
                (activation, f"{parameter}_gradient"): size(one.grad)
                for (activation, parameter), one in trained(self._observer.targets).items()
                if one.grad is not None
            }

    def end(self) -> dict[str, float | Histogram]:
        """End a step, which waits for the device once.

        Returns:
            The results by their tags; nothing if the step was not one to record.
        """
        if self._observer is None or not self._is_recording:
            return {}
        self._observer.detach()
        if self._gradients is None:
            self.note_gradients()
        parameters = numbers({**self._parameters, **(self._gradients or {})})
        found = collected(to_cpu(self._observer.take()))
        found = gathered(found) if self.together else found
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
                for (activation, parameter), values in parameters.items()
                for name, value in _tagged(f"{activation}/{parameter}", values)
            },
            **{
                f"activations/{name}/{metric}": value
                for name, sums in found.items()
                for metric, value in _metrics(sums)
            },
        }

    def cancel(self) -> None:
        """Take the hooks away and forget what was recorded."""
        if self._observer is not None and self._is_recording:
            self._observer.detach()
            self._observer.forget()
        self._is_recording = False
        self._parameters, self._gradients = {}, None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without a step that is being recorded."""
        return {**self.__dict__, "_observer": None, "_is_recording": False, "_parameters": {}, "_gradients": None}


def scalars(values: dict[str, float | Histogram]) -> dict[str, float]:
    """Return the numbers among results, without the histograms."""
    return {tag: value for tag, value in values.items() if isinstance(value, int | float)}


def _tagged(name: str, values: list[float]) -> Iterator[tuple[str, float]]:
    if len(values) == 1:
        yield name, values[0]
    else:
        yield from zip((f"{name}_min", f"{name}_mean", f"{name}_max"), values, strict=True)


def _metrics(sums: Sums) -> Iterator[tuple[str, float | Histogram]]:
    outputs = moments(sums, "h")
    values = sums.n * sums.units
    if has_slopes(sums):
        yield "dead", int((sums.parts["slope_counts"][0] == sums.slopes).sum()) / sums.units
    yield "zero", int(sums.parts["h_counts"][1].sum()) / values
    yield "nonfinite", int(sums.parts["h_counts"][0].sum()) / values
    yield "mean", outputs.mean
    yield "std", outputs.std
    yield "samples", sums.n
    yield "inputs", histogram(sums)
