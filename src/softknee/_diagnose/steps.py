"""The parts of a diagnosis: what measures each, and at which level."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from softknee._diagnose.cost import affordable, operations
from softknee._diagnose.options import like
from softknee._diagnose.schema import SITES
from softknee._diagnose.structure import Outputs, edges
from softknee._diagnose.task import TARGETS
from softknee._errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from softknee._diagnose.options import Options
    from softknee._diagnose.task import Batch, Loss, Task

# Samples at most, for what costs more than a few passes.
_CURVATURE, _LANDSCAPE, _KERNEL, _SIGNAL, _LIPSCHITZ = 512, 128, 64, 300, 64
# Steps along each direction of the landscape, the square of which is how often the model runs over its samples.
_POINTS = 13
_FEWEST = 8
# Losses whose targets are quantities, not classes.
_DISTANCES = (F.mse_loss, F.l1_loss, F.smooth_l1_loss)
# Units that are listed one by one, the worst of each site.
_UNITS, _FEWEST_UNITS = 640, 4


@dataclass(frozen=True)
class Measured:
    """What is measured.

    Attributes:
        model: The model.
        raw: Its sample, as a loader yields it.
        loss: As given.
        task: All of it together.
        options: What is known beside.
        acts: What acts at the first site of each kind.
        has_loss: Whether a loss is given, or the model returns one.
    """

    model: nn.Module
    raw: list[Any]
    loss: Loss
    task: Task
    options: Options
    acts: Mapping[str, Callable[..., Any]]
    has_loss: bool

    @cached_property
    def operations(self) -> float:
        """What one sample costs."""
        return operations(self.task)

    def affordable(self, most: int) -> int:
        """Return how many samples a measurement of hundreds of passes may take, as `cost.affordable`."""
        return affordable(self.task, self.operations, most)


@dataclass(frozen=True)
class Step:
    """One part.

    Attributes:
        name: In words.
        measure: Returns parts of the schema, given what was measured so far.
    """

    name: str
    measure: Callable[[Measured, dict[str, Any]], dict[str, Any]]


def steps(options: Options) -> Iterator[Step]:
    """Yield the parts in the order in which they are measured.

    Args:
        options: Of the diagnosis.

    Yields:
        The parts.
    """
    yield Step(SITES, _sites)
    yield Step("signal from layer to layer", _signal)
    yield Step("parameters of activations", _trainable)
    if options.level == "quick":
        return
    yield Step("gradients of the parameters", _gradients)
    yield Step("curvature", _curvature)
    yield Step("loss landscape", _landscape)
    yield Step("tangent kernel", _kernel)
    yield Step("rank of the outputs", _rank)
    yield Step("Lipschitz interval", _lipschitz)
    yield Step("classes", _classification)
    if options.level == "trial":
        yield Step("trials", _trials)


def _sites(of: Measured, data: dict[str, Any]) -> dict[str, Any]:
    """Also count, in the same pass, which outputs are finite."""
    from softknee._diagnose.units.health import unit_health

    outputs = Outputs()
    handle = of.model.register_forward_hook(outputs)
    wanted = of.has_loss and of.options.level != "quick"
    try:
        loss = of.loss if wanted else None
        found = unit_health(of.model, of.raw, loss, samples=of.task.samples, gradients=wanted).to_dict()
    finally:
        handle.remove()
    most = max(_FEWEST_UNITS, _UNITS // max(len(found["sites"]), 1))
    for site in found["sites"]:
        site["flagged"] = site["flagged"][:most]
    structure = {**data["structure"], "outputs_nonfinite": outputs.nonfinite(len(of.raw))}
    return {"sites": found["sites"], "coverage": found["coverage"], "structure": structure}


def _signal(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.flow.signal import signal

    found = signal(of.model, of.raw, samples=min(_SIGNAL, of.task.samples), seed=of.options.seed).to_dict()
    return {"signal": {**found, "edges": edges(of.acts)}}


def _trainable(of: Measured, data: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.flow.trainable import trainable

    return {"trainable": _shared(trainable(of.model, of.options.optimizer).to_dict(), data)}


def _shared(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return parameters of activations, as shared those that ran at several sites."""
    runs = Counter(site["path"] for site in data["sites"] if site["how"] == "module")
    return [{**one, "shared": one["shared"] or runs[one["path"]] > 1} for one in rows]


def _gradients(of: Measured, data: dict[str, Any]) -> dict[str, Any]:
    """Also tell how large the gradients of activations are."""
    from softknee._diagnose.flow.gradients import gradient_flow
    from softknee._diagnose.flow.trainable import trainable

    flow = gradient_flow(of.model, of.raw, of.loss, samples=of.task.samples)
    parameters = trainable(of.model, of.options.optimizer, gradients=flow)
    return {"gradients": flow.to_dict(), "trainable": _shared(parameters.to_dict(), data)}


def _curvature(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.curvature.curvature import curvature

    found = curvature(of.model, of.raw, of.loss, samples=of.affordable(_CURVATURE), seed=of.options.seed)
    return {"curvature": found.to_dict()}


def _landscape(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.curvature.landscape import landscape

    count = of.affordable(_LANDSCAPE)
    found = landscape(of.model, of.raw, of.loss, samples=count, points=_POINTS, seed=of.options.seed)
    return {"landscape": found.to_dict()}


def _kernel(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    return {"kernel": _kernel_of(of, of.affordable(_KERNEL))}


def _kernel_of(of: Measured, count: int) -> dict[str, Any]:
    """Return the kernel of as many samples as memory allows.

    Raises:
        UsageError: A few are too many, or the model has no kernel.
    """
    from softknee._diagnose.curvature.ntk import ntk

    try:
        return ntk(of.model, of.raw, samples=count).to_dict()
    except UsageError:
        if count <= _FEWEST:
            raise
    return _kernel_of(of, count // 2)


def _rank(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.flow.rank import rank

    return {"rank": rank(of.model, of.raw, samples=of.task.samples).to_dict()}


def _lipschitz(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.flow.lipschitz import lipschitz

    return {"lipschitz": lipschitz(of.model, of.raw, samples=of.affordable(_LIPSCHITZ)).to_dict()}


def _classification(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.flow.classification import classification_report

    if not _has_classes(of.task):
        return {}
    try:
        found = classification_report(of.model, of.raw, samples=of.task.samples)
    except DataError:
        return {}  # it is no classifier
    return {"classification": found.to_dict()}


def _has_classes(of: Task) -> bool:
    """Return whether the targets are classes, for the loss that is given.

    Whole numbers are, except to losses of distances; and to a model with a loss of its own only one a sample, for it
    may shift a sequence before it compares. Numbers of floating point are probabilities, if the loss takes such.
    """
    targets = [_target(batch) for batch in of.batches]
    if of.function in _DISTANCES or not all(isinstance(one, Tensor) for one in targets):
        return False
    one_each = all(one.numel() == batch.size for one, batch in zip(targets, of.batches, strict=True))
    if not any(one.is_floating_point() for one in targets):
        return one_each or of.function is not None
    return of.function is F.cross_entropy or (of.function is F.binary_cross_entropy_with_logits and one_each)


def _target(batch: Batch) -> Any:
    """Return the target of a batch, of one whose model gets it too by its name."""
    if batch.target is not None:
        return batch.target
    return next((batch.keywords[name] for name in TARGETS if name in batch.keywords), None)


def _trials(of: Measured, _: dict[str, Any]) -> dict[str, Any]:
    from softknee._diagnose.trial.trial import trial

    options = of.options
    found = trial(
        options.make_model or of.model,
        of.raw,
        of.loss,
        lr=options.lr or 0.0,  # it was asked for
        optimizer="sgd" if options.optimizer is None else like(options.optimizer),
        momentum=None if options.optimizer is not None else options.momentum,
        budget=options.budget,
        samples=of.task.samples,
        seed=options.seed,
        progress=options.progress,
    )
    return {"trials": found.to_dict(), "trials_about": found.about()}
