"""What is diagnosed: a model, a fixed sample of its data, and its loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from softknee._errors import DataError, UsageError, did_you_mean
from softknee._surgery.example import check_unwrapped
from softknee._surgery.find import checked, is_compiled
from softknee._surgery.trace import tensors_in
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    LossFunction = Callable[[Any, Any], Tensor]
    Loss = LossFunction | str | None

SAMPLES = 2048
LOSSES: Mapping[str, LossFunction] = {
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "nll": F.nll_loss,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
}
# By which batches of named tensors go by the name of their target.
TARGETS = ("labels", "label", "target")
_STRUCTURE = (
    "a batch is inputs, (inputs, target) or a dictionary of named inputs, where inputs may be a tuple: ((a, b), target)"
)


@dataclass(frozen=True)
class Batch:
    """What a model is called with once.

    Attributes:
        inputs: Arguments.
        keywords: Named arguments.
        target: What the loss compares the outputs with; None if there is none.
        size: Number of samples.
    """

    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    target: Any
    size: int

    def first(self, most: int) -> Batch:
        """Return its first samples, at most so many."""
        if self.size <= most:
            return self

        def cut(one: Any) -> Any:
            return one[:most] if isinstance(one, Tensor) and one.dim() and len(one) == self.size else one

        inputs, keywords, target = tree_map(cut, (self.inputs, dict(self.keywords), self.target))
        return Batch(inputs, keywords, target, most)


@dataclass(frozen=True)
class Task:
    """A model with a sample of its data, all of it on the model's device, and its loss.

    Attributes:
        model: The model.
        batches: The sample.
        function: Loss of outputs and target, a mean over the batch; None if the model returns its own as `.loss`.
    """

    model: nn.Module
    batches: tuple[Batch, ...]
    function: LossFunction | None = None

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(batch.size for batch in self.batches)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the sample, hexadecimal."""
        digest = hashlib.sha256()
        for one in tensors_in([(batch.inputs, dict(batch.keywords), batch.target) for batch in self.batches]):
            digest.update(f"{one.dtype}{tuple(one.shape)}".encode())
            digest.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def run(self, batch: Batch) -> Any:
        """Return what the model makes of a batch."""
        return self.model(*batch.inputs, **batch.keywords)

    def loss(self, batch: Batch, outputs: Any) -> Tensor:
        """Return the mean loss of a batch, a tensor of no dimensions.

        Args:
            batch: Of the task.
            outputs: What the model made of it.

        Returns:
            The loss, in the graph of the outputs.

        Raises:
            UsageError: There is no loss, or it is not one number.
        """
        if self.function is None:
            found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
            if found is None:
                raise UsageError(
                    f"the model returned no loss; give one: a function of outputs and target, or {_listed(LOSSES)}"
                )
        elif batch.target is None:
            raise UsageError(f"the loss needs a target, but the batch has none; {_STRUCTURE}")
        else:
            found = self.function(outputs, batch.target)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UsageError(f"the loss must be one number, a mean over the batch; it is {_shown(found)}")
        return found.reshape(())

    def has_loss(self) -> bool:
        """Return whether a loss was given; a model may still return its own."""
        return self.function is not None


def task(model: nn.Module, loader: Iterable[Any], loss: Loss = None, *, samples: int = SAMPLES) -> Task:
    """Gather a sample of the data of a model.

    Args:
        model: Any module that runs as written; all parameters on one device.
        loader: Yields batches: inputs, `(inputs, target)` or a dictionary of named inputs, whose target is what goes
            by `labels`, `label` or `target`. Inputs are a tensor, or a tuple or dictionary of them; samples go along
            the first dimension.
        loss: A function of outputs and target that returns their mean loss, or the name of one in `LOSSES`; None for a
            model that returns its own as `.loss`, or where none is needed.
        samples: How many to take, from the beginning.

    Returns:
        The task, moved to the device of the model.

    Raises:
        UsageError: The model is wrapped, compiled, scripted or has no elements; the loss is unknown; `samples` is not
            positive.
        DataError: The loader is empty, fails, or yields something else.
    """
    function = loss_function(loss)
    checked_model = checked(model)
    check_unwrapped(model, "diagnose")
    if any(map(is_compiled, checked_model.modules())):
        raise UsageError("the model was compiled in place, and hooks do not fire in it; diagnose it before compile()")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise UsageError(f"samples must be a whole number of at least 1, got {excerpt(samples)}")
    device = _device(checked_model)
    if not isinstance(loader, Iterable) or isinstance(loader, Tensor | Mapping | str):
        raise DataError(f"the loader must be an iterable of batches, got {_shown(loader)}; {_STRUCTURE}")
    taken: list[Batch] = []
    left = samples
    for raw in _raised(loader):
        batch = _batch(raw, loss_given=function is not None).first(left)
        taken.append(_moved(batch, device))
        left -= batch.size
        if left <= 0:
            break
    if not taken:
        raise DataError("the loader is empty: it yielded no batch")
    return Task(checked_model, tuple(taken), function)


@torch.no_grad()
def check_finite(of: Task, outputs: Callable[[Any, Batch], Tensor | None], result: str) -> None:
    """Run a model over its samples to see that its numbers are finite; inside `preserved` only.

    Args:
        of: The task.
        outputs: What of the model's result, for a batch, is measured; None for nothing.
        result: What there is none of otherwise, for the sentence.

    Raises:
        UsageError: A parameter or an output is NaN or infinite.
    """
    for name, one in of.model.named_parameters():
        if not torch.isfinite(one).all():
            raise UsageError(f"the weights of the model are not finite ({name}), so it has no {result}")
    for batch in of.batches:
        found = outputs(of.run(batch), batch)
        if found is not None and not torch.isfinite(found).all():
            raise UsageError(f"the outputs of the model are not finite, so it has no {result}")


def loss_function(loss: Loss) -> LossFunction | None:
    """Return the function of a loss that may be given by its name.

    Raises:
        UsageError: There is none of that name, or it is no function.
    """
    if loss is None or callable(loss):
        return loss
    if not isinstance(loss, str):
        raise UsageError(f"the loss must be a function of outputs and target or a name, got {excerpt(loss)}")
    if loss not in LOSSES:
        raise UsageError(f"no loss named {loss!r}; there are {_listed(LOSSES)}{did_you_mean(loss, LOSSES)}")
    return LOSSES[loss]


def _device(model: nn.Module) -> torch.device:
    """Return the device that a model is on.

    Raises:
        UsageError: It is on several, or on the meta device.
    """
    devices = {one.device for one in (*model.parameters(), *model.buffers())} or {torch.device("cpu")}
    if torch.device("meta") in devices:
        raise UsageError("the model is on the meta device and has no elements; materialize it first")
    if len(devices) > 1:
        listed = ", ".join(sorted(map(str, devices)))
        raise UsageError(f"the model lies on several devices ({listed}); move it to one, then diagnose")
    return devices.pop()


def _raised(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield what a loader yields.

    Raises:
        DataError: It fails.
    """
    count = 0
    iterator = iter(loader)
    while True:
        try:
            raw = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise DataError(f"the loader failed after {count} batches: {type(error).__name__}: {error}") from error
        count += 1
        yield raw


def _batch(raw: Any, *, loss_given: bool) -> Batch:
    """Return what a loader yields as a batch.

    Raises:
        DataError: It is something else.
    """
    inputs, target = raw, None
    if isinstance(raw, tuple | list):
        if len(raw) not in {1, 2}:
            raise DataError(f"the loader yields {_shown(raw)}; {_STRUCTURE}")
        inputs, target = (*raw, None)[:2]
    keywords: Mapping[str, Any] = {}
    if isinstance(inputs, Mapping):
        keywords, inputs = dict(inputs), ()
        if loss_given and target is None:
            name = next((name for name in TARGETS if name in keywords), None)
            target = keywords.pop(name) if name else None
    arguments = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    given = [one for one in tensors_in((arguments, dict(keywords))) if one.dim()]
    if not given:
        raise DataError(f"the loader yields {_shown(raw)}, without a tensor; {_STRUCTURE}")
    if len(given[0]) == 0:
        raise DataError("the loader yields a batch without samples")
    return Batch(arguments, keywords, target, len(given[0]))


def _moved(batch: Batch, device: torch.device) -> Batch:
    def moved(one: Any) -> Any:
        return one.to(device) if isinstance(one, Tensor) else one

    inputs, keywords, target = tree_map(moved, (batch.inputs, dict(batch.keywords), batch.target))
    return Batch(inputs, keywords, target, batch.size)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return excerpt(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
