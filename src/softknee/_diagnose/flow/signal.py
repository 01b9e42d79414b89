"""How the signal changes from layer to layer: mean squares, cosines of samples and gradients, theory beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from softknee._card.propagation import gain
from softknee._card.quadrature import integrate
from softknee._diagnose.flow.follow import Propagation, function_for
from softknee._diagnose.flow.layer_sums import SMALLEST, LayerMeasure, LayerSum, SampleFollower
from softknee._diagnose.preserve import preserved
from softknee._diagnose.task import Task, task
from softknee._report.plain import finite, plain
from softknee._surgery.find import look
from softknee._surgery.observe import observe
from softknee._surgery.trace import tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from softknee._diagnose.flow.follow import Step
    from softknee._diagnose.flow.layer_sums import Key
    from softknee._diagnose.task import Batch, Loss
    from softknee._surgery.compose import Acting
    from softknee._surgery.places import Site

# Samples that are enough, and numbers in their inputs that are; each token counts as several.
SAMPLES, ELEMENTS, TOKEN = 300, 2**17, 16
_INSIDE = "its weights are inside one function"
_COMPUTED = "its weights are computed from others, such as by spectral norm"
_ASLEEP = "it did not run by itself"
# Samples by which the sites get their names, and by which theory measures what it does not know.
FEW, SOME = 8, 32


@dataclass(frozen=True)
class LayerSignal:
    """One call of a layer, with its outputs: the pre-activations of what follows.

    Attributes:
        layer: Path of the layer.
        site: Name of the activation that it feeds, None if none.
        q: Mean square of the outputs, as measured.
        q_theory: The same by theory; where theory starts, as measured.
        cosine: Mean cosine between the outputs of two samples, all positions and units together; not a number where
            samples are not told apart.
        cosine_theory: The same by theory.
        sw2: Mean square of the weights times the number of inputs of an output, zeros of padding not counted: for a
            linear layer the squared Frobenius norm over the number of outputs.
        sb2: Mean square of the biases, 0 without any.
        matched: Forward gain of the activation that feeds it, None if something else does, and where the gain does not
            decide on the size of the signal: the outputs go through a norm, or are added to others.
        chi: `sw2 E[phi'(z)^2]` for the activation that feeds it and normal `z` of the mean square measured before that:
            by which squared gradients change on the way back through both (chi_1 of Poole et al. 2016).
        backward: The same as measured: summed squares of the gradient before that activation over those of the gradient
            of the outputs. None if another layer, a norm or a sum is in between, or nothing was differentiated.
        kurtosis: Of the outputs; 3 if they are normal, as theory takes them to be.
        note: What limits the comparison.
    """

    layer: str
    site: str | None
    q: float
    q_theory: float
    cosine: float
    cosine_theory: float
    sw2: float
    sb2: float
    matched: float | None
    chi: float | None
    backward: float | None
    kurtosis: float
    note: str

    @property
    def gain(self) -> float:
        """Standard deviation of the weights times the root of the number of inputs."""
        return math.sqrt(self.sw2)

    @property
    def ratio(self) -> float | None:
        """The gain over the one that would match the activation."""
        return self.gain / self.matched if self.matched else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain({**vars(self), "gain": self.gain, "ratio": self.ratio})


@dataclass(frozen=True)
class Signal:
    """The signal of a model from layer to layer.

    Attributes:
        layers: In the order of calls.
        samples: Number of samples.
        residual: Whether branches are added.
        normed: Whether norms rescale the signal.
        refused: Why there is no theory, None if there is.
        left: Paths of layers that have no row, with the reasons.
    """

    layers: tuple[LayerSignal, ...]
    samples: int
    residual: bool
    normed: bool
    refused: str | None = None
    left: tuple[tuple[str, str], ...] = ()

    @property
    def chi_product(self) -> float | None:
        """By which squared gradients change from the last layer to the first, by theory.

        None with branches or norms, through which gradients come otherwise too, and where no activation feeds a layer.
        """
        found = [one.chi for one in self.layers if one.chi is not None]
        return math.prod(found) if found and not (self.residual or self.normed) else None

    @property
    def cosine_last(self) -> float:
        """Mean cosine between samples in the last layer that has one."""
        return next((one.cosine for one in reversed(self.layers) if math.isfinite(one.cosine)), math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain(
            {
                **vars(self),
                "layers": [one.to_dict() for one in self.layers],
                "chi_product": self.chi_product,
                "cosine_last": self.cosine_last,
                "left": [{"path": path, "reason": reason} for path, reason in self.left],
            }
        )


def signal(
    model: nn.Module, loader: Iterable[Any], loss: Loss = None, *, samples: int = SAMPLES, seed: int = 0
) -> Signal:
    r"""Follow the signal of a model from layer to layer, and the gradient back, with theory beside them.

    Theory takes the weights as drawn at random, with the variances they have: $q' = \sigma_w^2\,E[\varphi(z)^2] +
    \sigma_b^2$, and the same for products of two samples (Poole et al. 2016). It starts from the outputs of the first
    layer as measured, adds up branches, and has norms set $q$ to that of their factors. After functions that it does
    not know, such as attention and pooling, it starts again, and says so. Trained weights are not random: where theory
    and measurement part, training has used that.

    No more batches are used than have 2**17 numbers, as one of 64 small images does. The model runs in eval mode, but
    batch norm uses the statistics of the batch, as in training: before that, its own are those of no data.

    Args:
        model: As in `task`.
        loader: As in `task`.
        loss: As in `task`, whose gradient goes back; None for the gradient of the outputs in a random direction.
        samples: How many to take at most, from the beginning.
        seed: Of the random direction.

    Returns:
        A row for each call of a linear layer or convolution.

    Raises:
        UsageError: As `task`.
        DataError: As `task`.
    """
    return _measured(task(model, loader, loss, samples=samples), seed=seed)


def _measured(of: Task, *, seed: int) -> Signal:
    """Measure a task as `signal` does."""
    batches = _first(of)
    generator = torch.Generator().manual_seed(seed)
    sums: dict[Key, LayerSum] = {}
    with preserved(of.model):
        for parameter in of.model.parameters():
            # Gradients go back through frozen layers too.
            parameter.requires_grad_(parameter.is_floating_point())
        for batch in batches:
            _use_batch_statistics(of.model, batch.size)
            observe(of.model, batch.inputs, batch.keywords, observer=LayerMeasure(of, batch, sums, generator))
        some, few = batches[0].first(SOME), batches[0].first(FEW)
        _use_batch_statistics(of.model, some.size)
        seen = SampleFollower(of.model, some.size)
        observe(of.model, some.inputs, some.keywords, observer=seen)
        found = look(of.model, few.inputs, few.keywords).sites
        theory = Propagation(seen, {key: (one.q, one.cosine) for key, one in sums.items()})
    rows = tuple(_row(step, theory, sums, found) for step in theory.steps)
    refused = None if rows else "no linear layer or convolution with weights of the model ran"
    left = tuple(_left(of.model, seen))
    return Signal(rows, sum(batch.size for batch in batches), theory.residual, theory.normed, refused, left)


def _first(of: Task) -> list[Batch]:
    """Return the first batches, with no more numbers than are needed."""
    taken: list[Batch] = []
    for batch in of.batches:
        if sum(map(_elements, taken)) >= ELEMENTS:
            break
        taken.append(batch)
    return taken


def _elements(batch: Batch) -> int:
    """Return the number of numbers in a batch; a whole one stands for a vector of them."""
    given = tensors_in((batch.inputs, dict(batch.keywords)))
    return sum(one.numel() * (1 if one.is_floating_point() else TOKEN) for one in given)


def _use_batch_statistics(model: nn.Module, size: int) -> None:
    """Have batch norm use the statistics of the batch, if there is more than one sample; modes are restored later."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.training = size > 1


def _left(model: nn.Module, seen: SampleFollower) -> Iterator[tuple[str, str]]:
    """Yield the layers of torch whose weights were not seen at work, with the reasons."""
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            yield path, _INSIDE
        elif isinstance(module, nn.Linear | _ConvNd) and module._parameters.get("weight") not in seen.layers:
            yield path, _COMPUTED if module._parameters.get("weight") is None else _ASLEEP


def _row(step: Step, theory: Propagation, sums: dict[Key, LayerSum], found: Iterable[Site]) -> LayerSignal:
    one = sums[step.layer.weight, step.turn]
    chi, matched = _of_activation(step, theory)
    earlier = theory.steps[step.before] if step.before is not None else None
    previous = sums[earlier.layer.weight, earlier.turn] if earlier is not None else None
    both = previous is not None and previous.differentiated and one.differentiated and one.gradient > 0
    expected = step.expected
    return LayerSignal(
        layer=step.layer.path,
        site=_name(theory.fed(step), found),
        q=one.q,
        q_theory=expected.square,
        cosine=one.cosine,
        cosine_theory=expected.cross / expected.square if expected.square else math.nan,
        sw2=step.weights,
        sb2=step.biases,
        matched=matched,
        chi=chi,
        backward=previous.gradient / one.gradient if both and previous is not None else None,
        kurtosis=one.kurtosis,
        note=_note(step, one),
    )


def _of_activation(step: Step, theory: Propagation) -> tuple[float | None, float | None]:
    """Return chi and the forward gain of the activation that feeds a layer, None if none does."""
    function = None if step.acting is None else function_for(step.acting)
    if step.acting is None or function is None:
        return None, None
    _, q = theory.source(step.acting)
    chi = step.weights * integrate(function, max(q, SMALLEST)).slope_square if math.isfinite(q) else None
    return chi, None if theory.rescaled(step) else finite(gain(function).forward)


def _name(acting: Acting | None, found: Iterable[Site]) -> str | None:
    """Return the name of the site at which an activation was found."""
    if acting is None:
        return None
    last = acting.last
    for site in found:
        place = site.place
        here = (place.owner, place.module or place.operation) == (last.run.path, last.path or last.name)
        if here and last.occurrence == (place.turn if place.module else place.occurrence):
            return site.name
    return None


def _note(step: Step, one: LayerSum) -> str:
    notes = [f"call {step.turn + 1} of this layer"] if step.turn else []
    if step.starts:
        notes.append(f"theory starts here ({step.expected.note})" if step.expected.note else "theory starts here")
    elif step.expected.note:
        notes.append(f"taken as measured: {step.expected.note}")
    if one.uneven:
        notes.append("samples are not told apart")
    return "; ".join(notes)
