"""Maps onto the probability simplex: entries are not negative and sum to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softknee._spec import Promises, Spec
from softknee.functional._groups import along, filled
from softknee.functional._precision import widening

if TYPE_CHECKING:
    from torch import Tensor

# Terms of the series of e, and halvings of an interval: both exact to a hundred digits.
SERIES = 80
HALVINGS = 400


def softmax(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""Softmax, $e^{x_i} / \sum_j e^{x_j}$.

    Args:
        x: At least one dimension, any floating dtype.
        dim: Dimension of the entries.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.softmax(x, dim)


@widening
def sparsemax(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""Sparsemax, $\max(x_i - \tau, 0)$ with the $\tau$ that makes them sum to 1: the nearest point of the simplex.

    Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype; entries of $-\infty$ become 0.
        dim: Dimension of the entries.

    Returns:
        Same shape and dtype as `x`; an entry just at $\tau$ has the derivatives of those below.
    """
    dim = filled(x, dim, "sparsemax")
    z, ordered, rank = _prepared(x, dim)
    count = (1 + rank * ordered > ordered.cumsum(dim)).sum(dim, keepdim=True)
    member = z >= ordered.gather(dim, count - 1)
    threshold = (_sum(z, member, dim) - 1) / member.sum(dim, keepdim=True)
    return torch.where(member, z - threshold, 0.0).clamp(min=0)


@widening
def entmax15(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""1.5-entmax, $\max(x_i / 2 - \tau, 0)^2$ with the $\tau$ that makes them sum to 1; between softmax and sparsemax.

    Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype; entries of $-\infty$ become 0.
        dim: Dimension of the entries.

    Returns:
        Same shape and dtype as `x`.
    """
    dim = filled(x, dim, "entmax15")
    z, ordered, rank = _prepared(x / 2, dim)
    # The threshold if the first so many were above it: their mean less a part of their spread.
    mean = ordered.cumsum(dim) / rank
    spread = ordered.square().cumsum(dim) - rank * mean.square()
    count = (mean - ((1 - spread) / rank).clamp(min=0).sqrt() <= ordered).sum(dim, keepdim=True)
    member = z >= ordered.gather(dim, count - 1)
    count = member.sum(dim, keepdim=True)
    mean = _sum(z, member, dim) / count
    # Squared when chosen: the square of an infinite one has no derivative.
    spread = torch.where(member, z - mean, 0.0).square().sum(dim, keepdim=True)
    threshold = mean - ((1 - spread) / count).sqrt()
    return torch.where(member, z - threshold, 0.0).clamp(min=0).square()


def _prepared(z: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return entries less the largest, the same in descending order without gradient, and ranks from 1.

    What is more than 1 below the largest is below the threshold, however far, so the ordered ones stop there: sums
    lose no digits to them.
    """
    z = z - z.detach().amax(dim, keepdim=True)
    ordered = z.detach().clamp(min=-1).sort(dim, descending=True).values
    rank = along(torch.arange(1, z.shape[dim] + 1, dtype=z.dtype, device=z.device), z, dim)
    return z, ordered, rank


def _sum(z: Tensor, member: Tensor, dim: int) -> Tensor:
    return torch.where(member, z, 0.0).sum(dim, keepdim=True)


def _softmax_stated(entries: list[Any]) -> list[Any]:
    one = 0 * entries[0] + 1
    e = term = one
    for k in range(1, SERIES):
        term /= k
        e += term
    powers = [e ** (x - max(entries)) for x in entries]
    return [power / sum(powers) for power in powers]


def _sparsemax_stated(entries: list[Any]) -> list[Any]:
    return _thresholded(entries, 1)


def _entmax15_stated(entries: list[Any]) -> list[Any]:
    return _thresholded([x / 2 for x in entries], 2)


def _thresholded(entries: list[Any], power: int) -> list[Any]:
    """Find the threshold by halving an interval."""
    high = max(entries)
    low = high - 1
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if sum(max(x - middle, 0) ** power for x in entries) > 1:
            low = middle
        else:
            high = middle
    return [max(x - high, 0) ** power for x in entries]


SPECS = (
    Spec(
        name="softmax",
        title="Softmax",
        family="vector",
        kind="vector",
        dim=-1,
        function=softmax,
        formula="exp(x_i) / sum of exp(x_j)",
        statement=_softmax_stated,
        promises=Promises(smooth=True, lipschitz=0.5, lower_bound=0.0, upper_bound=1.0),
        source="bridle1990softmax",
    ),
    Spec(
        name="sparsemax",
        title="Sparsemax",
        family="vector",
        kind="vector",
        dim=-1,
        function=sparsemax,
        formula="max(x_i - tau, 0), with tau such that they sum to 1",
        statement=_sparsemax_stated,
        promises=Promises(lipschitz=1.0, lower_bound=0.0, upper_bound=1.0),
        source="martins2016sparsemax",
        note="The nearest point of the simplex, by sorting; its value and derivatives are exact.",
    ),
    Spec(
        name="entmax15",
        title="Entmax15",
        family="vector",
        kind="vector",
        dim=-1,
        function=entmax15,
        formula="max(x_i / 2 - tau, 0)^2, with tau such that they sum to 1",
        statement=_entmax15_stated,
        promises=Promises(lipschitz=0.7071068, lower_bound=0.0, upper_bound=1.0),
        source="peters2019entmax",
        note="By sorting, as its authors do; its value and derivatives are exact.",
    ),
)
