"""Functions of pairs and groups of neighbouring channels: they sort, reflect or choose, and lose no gradient."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._errors import UsageError
from softknee._spec import Param, Promises, Spec
from softknee.functional._groups import along, grouped
from softknee.functional._precision import widening

# Terms of the power series of sine and cosine; the rest is below 1e-100 for the angles of a circle.
SERIES = 60


def crelu(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""Concatenated ReLU, $(\max(0, x), \max(0, -x))$: twice as many entries; both derivatives at 0 are 0.

    Args:
        x: At least one dimension, any floating dtype.
        dim: Dimension along which the two are concatenated.

    Returns:
        Dtype of `x`, and its shape but for twice the size in `dim`.
    """
    return torch.cat((F.relu(x), F.relu(-x)), dim)


def maxout(x: Tensor, group: int = 2, *, dim: int = -1) -> Tensor:
    r"""Maxout, the maximum of each group of neighbouring entries; equal ones share the derivative.

    Args:
        x: At least one dimension, any floating dtype.
        group: Entries of a group, of which one is left.
        dim: Dimension of the entries, of a size that is a multiple of `group`.

    Returns:
        Dtype of `x`, and its shape but for the size in `dim`, which is divided by `group`.
    """
    groups, inner = grouped(x, group, dim, "maxout")
    return groups.amax(inner)


def maxmin(x: Tensor, *, dim: int = -1) -> Tensor:
    r"""Orthogonal permutation of pairs of neighbours, $(\max(a, b), \min(a, b))$.

    Args:
        x: At least one dimension, any floating dtype.
        dim: Dimension of the entries, of an even size.

    Returns:
        Same shape and dtype as `x`; at $a = b$ the derivative is that of the identity.
    """
    pairs, inner = grouped(x, 2, dim, "maxmin")
    first, second = pairs.unbind(inner)
    return _swapped(first, second, first < second, inner)


def group_sort(x: Tensor, group: int = 2, *, dim: int = -1) -> Tensor:
    r"""GroupSort: each group of neighbouring entries in ascending order.

    Args:
        x: At least one dimension, any floating dtype.
        group: Entries of a group.
        dim: Dimension of the entries, of a size that is a multiple of `group`.

    Returns:
        Same shape and dtype as `x`; the derivative is a permutation, also of equal entries, which keep their order.
    """
    groups, inner = grouped(x, group, dim, "group_sort")
    if group == 2:
        first, second = groups.unbind(inner)
        return _swapped(first, second, first > second, inner)
    return groups.sort(dim=inner, stable=True).values.flatten(inner - 1, inner)


@widening
def householder(x: Tensor, theta: Tensor | float = math.pi / 2, *, dim: int = -1) -> Tensor:
    r"""Householder activation: pairs $z$ of neighbours with $v^\top z < 0$ are reflected to $z - 2 (v^\top z)\,v$.

    The axis is $v = (\sin\tfrac\theta2, -\cos\tfrac\theta2)$. Half precision is computed in float32.

    Args:
        x: At least one dimension, any floating dtype.
        theta: $\theta$: a number, or `(pairs,)`, one for each pair.
        dim: Dimension of the entries, of an even size.

    Returns:
        Same shape and dtype as `x`; at $v^\top z = 0$ the derivative by `x` is the identity.
    """
    pairs, inner = grouped(x, 2, dim, "householder")
    first, second = pairs.unbind(inner)
    angle = (theta if isinstance(theta, Tensor) else first.new_full((), theta)) / 2
    sine, cosine = (along(part, first, inner - 1) for part in (torch.sin(angle), torch.cos(angle)))
    twice = 2 * F.relu(cosine * second - sine * first)
    both = (first + twice * sine, second - twice * cosine)
    return torch.stack(both, inner).flatten(inner - 1, inner)


def initialize_maxmin(channels: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    r"""Return the angles $\pi / 2$, at which a Householder activation is MaxMin.

    Args:
        channels: Number of channels.

    Returns:
        One angle for each pair.

    Raises:
        UsageError: The number is odd.
    """
    if channels % 2:
        raise UsageError(f"householder takes pairs of channels; channels must be even, got {channels}")
    return {"theta": torch.full((channels // 2,), math.pi / 2, dtype=torch.float64)}


def _swapped(first: Tensor, second: Tensor, swap: Tensor, inner: int) -> Tensor:
    """Return pairs, some of them with their entries exchanged, lying side by side again.

    Maximum and minimum would each have half of both derivatives at a tie, which is no permutation.
    """
    both = (torch.where(swap, second, first), torch.where(swap, first, second))
    return torch.stack(both, inner).flatten(inner - 1, inner)


def _groups_of(entries: list[Any], size: int) -> list[list[Any]]:
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _crelu_stated(entries: list[Any]) -> list[Any]:
    return [max(x, 0) for x in entries] + [max(-x, 0) for x in entries]


def _maxout_stated(entries: list[Any], group: int) -> list[Any]:
    return [max(part) for part in _groups_of(entries, group)]


def _maxmin_stated(entries: list[Any]) -> list[Any]:
    return [chosen for pair in _groups_of(entries, 2) for chosen in (max(pair), min(pair))]


def _group_sort_stated(entries: list[Any], group: int) -> list[Any]:
    return [x for part in _groups_of(entries, group) for x in sorted(part)]


def _householder_stated(entries: list[Any], theta: list[Any]) -> list[Any]:
    """Rotate by -theta/2, take absolute values across the mirror, rotate back."""
    folded = []
    for (a, b), angle in zip(_groups_of(entries, 2), theta, strict=True):
        sine, cosine = _series(angle / 2, 1), _series(angle / 2, 0)
        along_mirror, across = cosine * a + sine * b, max(sine * a - cosine * b, cosine * b - sine * a)
        folded += [cosine * along_mirror + sine * across, sine * along_mirror - cosine * across]
    return folded


def _series(angle: Any, first: int) -> Any:
    """Return the sine (from the first power on) or the cosine (from the zeroth on) by its power series."""
    term, total = angle**first, 0 * angle
    for power in range(first, first + 2 * SERIES, 2):
        total += term
        term *= -angle * angle / ((power + 1) * (power + 2))
    return total


_GROUP = Param(name="group", default=2, integer=True, low=1)

SPECS = (
    Spec(
        name="crelu",
        title="CReLU",
        family="vector",
        kind="vector",
        function=crelu,
        formula="the positive parts of all entries, then those of their negatives",
        statement=_crelu_stated,
        promises=Promises(zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, same_shape=False),
        source="shang2016crelu",
        note="It doubles the channels, so the layer behind it takes twice as many. It loses nothing of its input:"
        " their difference is x.",
    ),
    Spec(
        name="maxout",
        title="Maxout",
        family="vector",
        kind="vector",
        function=maxout,
        formula="the maximum of each group of neighbouring entries",
        statement=_maxout_stated,
        parameters=(_GROUP,),
        promises=Promises(zero_at_zero=True, lipschitz=1.0, same_shape=False),
        source="goodfellow2013maxout",
        note="It divides the channels by the size of a group; the layer in front of it has that many times more.",
    ),
    Spec(
        name="maxmin",
        title="MaxMin",
        family="vector",
        kind="vector",
        function=maxmin,
        formula="(max(a, b), min(a, b)) of each pair of neighbouring entries",
        statement=_maxmin_stated,
        promises=Promises(zero_at_zero=True, lipschitz=1.0),
        source="chernodub2016oplu",
        aliases=("oplu",),
        note="The derivative is a permutation everywhere, so lengths of vectors and of gradients are kept. Pairs are"
        " neighbours here; some codes pair the two halves of the channels instead.",
    ),
    Spec(
        name="group_sort",
        title="GroupSort",
        family="vector",
        kind="vector",
        function=group_sort,
        formula="each group of neighbouring entries in ascending order",
        statement=_group_sort_stated,
        parameters=(_GROUP,),
        promises=Promises(zero_at_zero=True, lipschitz=1.0),
        source="anil2019sorting",
        note="The derivative is a permutation everywhere. Pairs (group=2) come out as those of MaxMin with their"
        " entries exchanged; group equal to the number of channels sorts them all (FullSort).",
    ),
    Spec(
        name="householder",
        title="Householder",
        family="vector",
        kind="vector",
        function=householder,
        formula="pairs z with v.z < 0 are reflected to z - 2 (v.z) v, where v = (sin(theta / 2), -cos(theta / 2))",
        statement=_householder_stated,
        parameters=(Param(name="theta", vector=True, trainable=True),),
        promises=Promises(zero_at_zero=True, lipschitz=1.0),
        source="singla2022householder",
        initializations=MappingProxyType({"maxmin": initialize_maxmin}),
        note="Continuous, and orthogonal on either side of the mirror, so lengths of vectors and of gradients are"
        " kept. At theta = pi/2 it is MaxMin, at which it starts. The authors' code has the opposite sign of v, which"
        " is theta + 2 pi here, and pairs the two halves of the channels.",
    ),
)
