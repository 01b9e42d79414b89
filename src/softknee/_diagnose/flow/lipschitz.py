"""How much a model can stretch differences of its inputs: an interval for its Lipschitz constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._diagnose.flow.bounds import Bounds, first_output
from softknee._diagnose.preserve import preserved
from softknee._diagnose.task import check_finite, task
from softknee._errors import UsageError
from softknee._report.plain import plain
from softknee._surgery.observe import observe
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from softknee._diagnose.task import Batch, Task

SAMPLES = 16
STEPS = 20
# Relative error of a norm in float32.
ROUNDING = 1e-4


@dataclass(frozen=True)
class LayerNorm:
    """The spectral norm of one call of a layer, as the linear map that it is.

    Attributes:
        layer: Path of the layer.
        norm: Largest factor by which it stretches a difference.
    """

    layer: str
    norm: float


@dataclass(frozen=True)
class Lipschitz:
    """An interval for the smallest `L` with `|f(x) - f(y)| <= L |x - y|`, Euclidean norms, one sample.

    Attributes:
        low: Largest spectral norm of the Jacobian at a sample; None where inputs cannot be varied.
        high: Product of the layers' spectral norms and the activations' largest slopes, branches added; None where a
            function has no finite bound or none that is known. Usually far too large: that of a random network grows
            with every layer.
        note: Why there is no bound, or what limits it.
        layers: In the order of calls.
        samples: At how many samples the Jacobian was taken.
    """

    low: float | None
    high: float | None
    note: str
    layers: tuple[LayerNorm, ...]
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain(vars(self))


def lipschitz(
    model: nn.Module, loader: Iterable[Any], *, samples: int = SAMPLES, steps: int = STEPS, seed: int = 0
) -> Lipschitz:
    """Enclose the Lipschitz constant of a model in eval mode, from one input to its first output.

    The lower end is the largest spectral norm of the Jacobian at the samples, by power iteration: each step gives a
    norm that the Jacobian has, so it is a lower end however early it stops. The upper end is a product: spectral norms
    of layers as the maps they are, with stride and padding; largest slopes of activations; factors of norms; sums of
    branches. Dot-product attention is not Lipschitz at all (Kim et al. 2021), neither are products of two streams.

    Args:
        model: As in `task`.
        loader: As in `task`; samples must not depend on one another.
        samples: At how many the Jacobian is taken, from the beginning.
        steps: Of the power iteration.
        seed: Of the directions they start from.

    Returns:
        The interval.

    Raises:
        UsageError: As `task`; or `steps` is not positive, or weights or outputs are not finite.
        DataError: As `task`.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageError(f"steps must be a whole number of at least 1, got {excerpt(steps)}")
    return _measured(task(model, loader, samples=samples), steps, seed)


def _measured(of: Task, steps: int, seed: int) -> Lipschitz:
    """Measure a task as `lipschitz` does."""
    generator = torch.Generator().manual_seed(seed)
    with preserved(of.model):
        check_finite(of, lambda result, _: first_output(result), "Lipschitz constant")
        first = of.batches[0]
        bounds = Bounds(of.model, generator)
        observe(of.model, first.inputs, first.keywords, observer=bounds)
        high, note = bounds.bound()
        for parameter in of.model.parameters():
            # Whole backward passes then go to the input alone.
            parameter.requires_grad = False
        found = [_jacobian_norm(of, batch, steps, generator) for batch in of.batches]
    norms = [one for one in found if one is not None]
    low = max(norms) if norms else None
    if low is None:
        note = "; ".join(filter(None, [note, "no Jacobian by a single input of floating-point numbers"]))
    elif high is not None and high < low <= high * (1 + ROUNDING):
        # The one was found in the model's precision, the other in float64.
        low = high
    taken = sum(batch.size for batch, one in zip(of.batches, found, strict=True) if one is not None)
    return Lipschitz(low, high, note, tuple(LayerNorm(*one) for one in bounds.norms), taken)


def _jacobian_norm(of: Task, batch: Batch, steps: int, generator: torch.Generator) -> float | None:
    """Return the largest spectral norm of the Jacobian at the samples of a batch, None if it cannot be taken.

    Power iteration on `J J'`: the transpose by a backward pass, `J` by a central difference, for not every function has
    a second derivative or a forward one. An inexact `J` costs speed, not truth: every `|J'u|` with `|u| = 1` is below
    the norm.
    """
    x, outputs_at = _input(of, batch)
    if x is None:
        return None
    x = x.detach().requires_grad_()
    y = outputs_at(x)
    if y is None or not y.requires_grad or y.shape[:1] != x.shape[:1]:
        return None
    step = torch.finfo(x.dtype).eps ** (1 / 3) * _lengths(x).clamp_min(1.0)
    u = _unit(torch.randn(y.shape, generator=generator).to(y))
    best = 0.0
    for _ in range(steps):
        x.grad = None
        # A whole backward pass, which reentrant checkpoints demand.
        y.backward(u, retain_graph=True)
        back = torch.zeros_like(x) if x.grad is None else x.grad
        norms = _lengths(back)
        known = norms[norms.isfinite()]
        best = max(best, float(known.max()) if known.numel() else 0.0)
        with torch.no_grad():
            along = _unit(back) * step
            ahead, behind = outputs_at(x + along), outputs_at(x - along)
        if ahead is None or behind is None:
            break
        u = _unit(ahead - behind)
    return best


def _input(of: Task, batch: Batch) -> tuple[Tensor | None, Callable[[Tensor], Tensor | None]]:
    """Return the input that is varied, and the first output as a function of it."""
    values = [*batch.inputs, *batch.keywords.values()]
    possible = [index for index, one in enumerate(values) if isinstance(one, Tensor) and one.is_floating_point()]

    def at(x: Tensor) -> Tensor | None:
        changed = [x.clone() if index == possible[0] else one for index, one in enumerate(values)]
        count = len(batch.inputs)
        return first_output(of.model(*changed[:count], **dict(zip(batch.keywords, changed[count:], strict=True))))

    return (values[possible[0]] if len(possible) == 1 else None), at


def _lengths(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, with as many dimensions as before."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True) if x.dim() > 1 else x.abs()


def _unit(x: Tensor) -> Tensor:
    lengths = _lengths(x)
    return torch.where(lengths > 0, x / lengths.clamp_min(math.ulp(0.0)), 0.0).nan_to_num()
