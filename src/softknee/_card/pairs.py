"""Expectations over two correlated normal inputs, near correlation 1 as exact as anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._card.quadrature import REACH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from softknee._card.function import Function
    from softknee._card.quadrature import Quadrature

INNER, OUTER = 20, 16
# Ends of the panels of the outer variable, in standard deviations; those of the inner one are a deviation apart.
STEPS = (0.0, 1.0, 2.0, 3.0, 4.5, 6.5, 9.0)
# Of a rule, panels narrower than usual show that a function changes fast; the finest ones, that it has a kink.
USUAL, FINEST = 0.49, 0.02


@dataclass(frozen=True)
class Pair:
    """Expectations over normal `U`, `V` of variances `q1`, `q2`; averaged over channels.

    Attributes:
        product: `E[phi(U) phi(V)]`.
        slopes: `E[phi'(U) phi'(V)]`.
        apart: `E[(phi(U) - phi(V))^2] / 2`, without cancellation where both are close.
    """

    product: float
    slopes: float
    apart: float


def pair(
    function: Function,
    breaks: Sequence[float],
    one_minus_c: float,
    q: float = 1.0,
    other_q: float | None = None,
    *,
    fine: Sequence[float] = (),
) -> Pair:
    """Integrate over two correlated normal inputs.

    With `U = s A + d B` and `V = s A - d B` of independent normal `A`, `B`, what the function does at a place lies on
    two lines in the plane. For each `B` the panels of `A` end there, so that the integral over `A` is exact; the one
    over `B` has panels that end where lines cross.

    Args:
        function: The activation.
        breaks: Where it or its slope jumps.
        one_minus_c: One minus the correlation, from 0 to 2: so a correlation very close to 1 loses no digit.
        q: Variance of `U`.
        other_q: Of `V`; `q` by default.
        fine: Where panels shall end besides, for a function that changes fast; see `fine_ends`.

    Returns:
        The expectations, to about 1e-13.
    """
    scales = (math.sqrt(q), math.sqrt(q if other_q is None else other_q))
    # Of negatively correlated ones, the second is mirrored: then both lines stay in sight.
    sign = 1.0 if one_minus_c <= 1 else -1.0
    gap = one_minus_c if sign > 0 else 2 - one_minus_c
    d, s = math.sqrt(gap / 2), math.sqrt(1 - gap / 2)
    first, second = ([one / scale for one in breaks if abs(one) < REACH * scale] for scale in scales)
    second = [sign * one for one in second]
    b, outer = _outer(first, second, d)
    if other_q is None and sign > 0:
        # With -B for B, both inputs change places.
        b, outer = b[b > 0], 2 * outer[b > 0]
    lines = ([*first, *(one / scales[0] for one in fine)], [*second, *(sign * one / scales[1] for one in fine)])
    edges = _edges(*lines, d / s, s, b)
    nodes, weights = _gauss(INNER)
    half, middle = edges.diff(dim=1)[..., None] / 2, (edges[:, 1:, None] + edges[:, :-1, None]) / 2
    a = middle + half * nodes
    density = half * weights * torch.exp(-a.square() / 2) * outer[:, None, None] / math.sqrt(2 * math.pi)
    across = d * b[:, None, None]
    u, v = scales[0] * (s * a + across), sign * scales[1] * (s * a - across)
    (y1, slope1), (y2, slope2) = (function.derivatives(x.reshape(-1), 1) for x in (u, v))
    flat = density.reshape(-1)
    terms = (y1 * y2, slope1 * slope2, (y1 - y2).square() / 2)
    return Pair(*(torch.where(flat > 0, term.mean(1) * flat, 0.0).sum().item() for term in terms))


def fine_ends(rule: Quadrature) -> tuple[float, ...]:
    """Return where panels must end, in `x`, for them to resolve what the panels of a rule resolve; mostly nowhere."""
    widths = rule.panels.diff(dim=1)[:, 0] / math.sqrt(rule.q)
    fast = (widths < USUAL) & (widths > FINEST)
    return tuple(rule.panels[fast].unique().tolist())


def _outer(first: Sequence[float], second: Sequence[float], d: float) -> tuple[Tensor, Tensor]:
    """Return nodes of `B` and their weights with the density; from minus to plus infinity, by symmetric panels."""
    crossings = {abs(a - b) / (2 * d) for a in first for b in second} if d > 0 else set()
    ends = sorted({*STEPS, REACH, *(one for one in crossings if one < REACH)})
    edges = torch.tensor([-end for end in reversed(ends[1:])] + ends, dtype=torch.float64)
    nodes, weights = _gauss(OUTER)
    half, middle = edges.diff()[:, None] / 2, (edges[1:, None] + edges[:-1, None]) / 2
    b = (middle + half * nodes).reshape(-1)
    density = (half * weights).reshape(-1) * torch.exp(-b.square() / 2) / math.sqrt(2 * math.pi)
    return b, density


def _edges(first: Sequence[float], second: Sequence[float], slope: float, s: float, b: Tensor) -> Tensor:
    """Return ends of the panels of `A` for each `B`, ascending, `(len(b), ends)`."""
    whole = torch.arange(-REACH, REACH + 1, dtype=torch.float64).expand(len(b), -1)
    lines = [torch.tensor(list(places), dtype=torch.float64) / s for places in (first, second)]
    ends = [whole, lines[0] - slope * b[:, None], lines[1] + slope * b[:, None]]
    return torch.cat(ends, dim=1).clamp(-REACH, REACH).sort(dim=1).values


@lru_cache(maxsize=2)
def _gauss(count: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
