"""Splits the Hessian: what the loss bends, what the activations bend, and what products of layers bend.

Along a direction v of the parameters, every tensor of the network moves with a velocity. The second derivative of the
loss along v is a sum over all operations: the gradient of the loss by the operation's result, times the second
derivative of the operation along the velocities of its inputs. The loss itself gives the Gauss-Newton part
`(Jv)' L'' (Jv)`; an activation h = phi(z) gives `sum over elements of dL/dh phi''(z) z'^2` with z' the velocity of z;
what is left comes from products, of weights with inputs, and from norms and attention. With random signs for v the
means of the parts are their traces.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from softknee._diagnose.curvature.seen import see
from softknee._diagnose.curvature.trace import Interval, mean_interval
from softknee._errors import UsageError
from softknee._report.plain import plain
from softknee._surgery.observe import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._diagnose.curvature.hessian import Hessian
    from softknee._diagnose.curvature.seen import Bent, Seen
    from softknee._diagnose.task import Batch, Task

# Of losses that should be the same; single precision adds up that differently.
_CLOSE = 1e-4


@dataclass(frozen=True)
class Parts:
    """What the parts of the Hessian make of one direction v.

    Attributes:
        gauss_newton: `v'Gv`.
        by_site: The part through phi'' of each site, by its name.
    """

    gauss_newton: float
    by_site: Mapping[str, float]


@dataclass(frozen=True)
class Split:
    """Traces of the parts of the Hessian.

    Attributes:
        gauss_newton: What is left where the network is replaced by its linearization: `J' L'' J`.
        residual: The rest, `sum over outputs of dL/df Hess f`.
        activation: What of the rest goes through second derivatives of activations by their inputs: 0 for those made of
            straight lines. What goes through their own parameters is not counted.
        by_site: The same for each site.
        unseen: Sites that are not counted and modules that may hide some, with the reason.
    """

    gauss_newton: Interval
    residual: Interval
    activation: Interval
    by_site: Mapping[str, Interval]
    unseen: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        parts = {
            "gauss_newton": self.gauss_newton.to_dict(),
            "residual": self.residual.to_dict(),
            "activation": self.activation.to_dict(),
            "by_site": [{"site": name, **one.to_dict()} for name, one in self.by_site.items()],
            "unseen": [{"site": name, "reason": reason} for name, reason in self.unseen.items()],
        }
        return plain(parts)


def split(
    operator: Hessian, products: Sequence[float], direction: Callable[[int], Tensor], *, exact: bool = False
) -> Split:
    """Split the trace of a Hessian.

    Args:
        operator: Open.
        products: `v'Hv` of each direction.
        direction: Returns the direction of a number.
        exact: Whether the directions are all unit vectors, whose sum is the trace, rather than random signs.

    Returns:
        The traces, with 95 % t intervals over the directions unless exact.

    Raises:
        UsageError: The model has no second derivatives, or no outputs that its loss is a function of.
    """
    parts, unseen = along(operator, [direction(number) for number in range(len(products))])

    def estimate(values: Sequence[float]) -> Interval:
        return Interval(sum(values), sum(values), sum(values)) if exact else mean_interval(values)

    names = list(dict.fromkeys(name for one in parts for name in one.by_site))
    return Split(
        gauss_newton=estimate([one.gauss_newton for one in parts]),
        residual=estimate([whole - one.gauss_newton for whole, one in zip(products, parts, strict=True)]),
        activation=estimate([sum(one.by_site.values()) for one in parts]),
        by_site={name: estimate([one.by_site.get(name, 0.0) for one in parts]) for name in names},
        unseen=unseen,
    )


def along(operator: Hessian, directions: Sequence[Tensor]) -> tuple[list[Parts], dict[str, str]]:
    """Return the parts along directions, summed over the batches, and what is not counted.

    Raises:
        UsageError: As `split`.
    """
    if operator.differences:
        raise UsageError(f"the Hessian cannot be split: products are {operator.method}")
    gauss_newton = [0.0] * len(directions)
    by_site: list[dict[str, float]] = [defaultdict(float) for _ in directions]
    unseen: dict[str, str] = {}
    loss = 0.0
    for batch in operator.task.batches:
        seen = see(operator.task, batch)
        unseen.update(seen.unseen)
        linearized = _Linearized(operator, batch, seen)
        loss += linearized.loss
        for number, direction in enumerate(directions):
            ahead, velocities = linearized.velocities(direction)
            gauss_newton[number] += linearized.bend_of_loss(ahead)
            for bent, velocity in zip(seen.sites, velocities, strict=True):
                if velocity is not None:
                    by_site[number][bent.name] += linearized.bend(bent, velocity)
    if not math.isclose(loss, operator.loss, rel_tol=_CLOSE):
        raise UsageError("the Hessian cannot be split: the model does something else when its functions are watched")
    parts = [Parts(one, dict(sites)) for one, sites in zip(gauss_newton, by_site, strict=True)]
    return parts, unseen


class _Linearized:
    """A batch's loss and network with the graphs of their first derivatives.

    Args:
        operator: Of the whole sample.
        batch: Of it.
        seen: A run of the model with it, in the graph.

    Attributes:
        loss: The batch's share of the mean loss.

    Raises:
        UsageError: The loss is no function of outputs.
    """

    def __init__(self, operator: Hessian, batch: Batch, seen: Seen) -> None:
        self._operator = operator
        share = operator.share(batch)
        whole = operator.task.loss(batch, seen.outputs) * share
        self.loss = float(whole.detach())
        self._weights = _weights(whole, seen.sites)
        network, alone = _outputs(operator.task, seen.outputs)
        loss = whole if alone is seen.outputs else operator.task.loss(batch, alone) * share
        at = network if alone is seen.outputs else tensors_of(alone)
        slopes = torch.autograd.grad(loss, at, create_graph=True, allow_unused=True)
        used = [place for place, slope in enumerate(slopes) if slope is not None]
        if not used:
            raise UsageError("the Hessian cannot be split: the loss is no function of the outputs that were found")
        # The loss as a function of the outputs, and these as functions of the parameters.
        self._at = [at[place] for place in used]
        self._slopes = [slopes[place] for place in used]
        self._outputs = len(used)
        self._open([*(network[place] for place in used), *(one.z for one in seen.sites)])

    def _open(self, targets: Sequence[Tensor]) -> None:
        """Build the graph of `J'u`, which is linear in u, so that its derivative by u along v is Jv."""
        self._count = len(targets)
        self._moving = [place for place, one in enumerate(targets) if one.requires_grad]
        moving = [targets[place] for place in self._moving]
        self._u = [torch.zeros_like(one, requires_grad=True) for one in moving]
        self._transposed = torch.autograd.grad(
            moving, self._operator.parameters, self._u, create_graph=True, allow_unused=True
        )

    def velocities(self, direction: Tensor) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Return how fast the outputs and the inputs of the sites move along a direction, None for not at all."""
        views = self._operator.split(direction)
        pairs = [(g, v) for g, v in zip(self._transposed, views, strict=True) if g is not None and g.requires_grad]
        found: list[Tensor | None] = [None] * self._count
        if pairs:
            gradients, vectors = zip(*pairs, strict=True)
            moved = torch.autograd.grad(gradients, self._u, vectors, retain_graph=True, allow_unused=True)
            for place, one in zip(self._moving, moved, strict=True):
                found[place] = one
        return found[: self._outputs], found[self._outputs :]

    def bend_of_loss(self, velocities: Sequence[Tensor | None]) -> float:
        """Return `(Jv)' L'' (Jv)` of the batch."""
        pairs = [
            (slope, velocity)
            for slope, velocity in zip(self._slopes, velocities, strict=True)
            if velocity is not None and slope.requires_grad
        ]
        if not pairs:
            return 0.0
        slopes, vectors = zip(*pairs, strict=True)
        bent = torch.autograd.grad(slopes, self._at, vectors, retain_graph=True, allow_unused=True)
        return sum(
            float((one.double() * velocity).sum())
            for one, velocity in zip(bent, velocities, strict=True)
            if one is not None and velocity is not None
        )

    def bend(self, bent: Bent, velocity: Tensor) -> float:
        """Return what goes through phi'' at a site."""
        return float((self._weights[bent.number] * velocity.double().square()).sum())


def _weights(loss: Tensor, sites: Sequence[Bent]) -> list[Tensor]:
    """Return dL/dh phi''(z) of each site."""
    if not sites:
        return []
    slopes = torch.autograd.grad(loss, [one.edge for one in sites], retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(one.bend) if slope is None else slope.reshape(one.bend.shape) * one.bend
        for one, slope in zip(sites, slopes, strict=True)
    ]


def _outputs(task: Task, outputs: Any) -> tuple[list[Tensor], Any]:
    """Return the outputs of the network, and what the loss is to be computed of: the same by themselves.

    Raises:
        UsageError: The model returns its own loss, and no logits.
    """
    if task.has_loss():
        # Apart from the network, for one of them may be made of another.
        return tensors_of(outputs), tree_map(_leaf, outputs)
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor):
        raise UsageError("the Hessian cannot be split: the model returns its own loss, and no logits")
    return [logits], outputs


def _leaf(one: Any) -> Any:
    is_float = isinstance(one, Tensor) and one.is_floating_point()
    return one.detach().requires_grad_() if is_float else one
