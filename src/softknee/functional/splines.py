"""Splines: piecewise polynomials on a uniform grid, trained by their coefficients."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Spec
from softknee.functional._intervals import entries_of, interval, positions
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

# The grid of the linear spline is [-4, 4], that of the cubic one [-1, 1].
LINEAR_REACH = 4.0
CUBIC_REACH = 1.0
# Each of g intervals of the grid is reached by 4 cubic B-splines: g + 3 in all.
OVERHANG = 3
# Lines through the two outermost knots on either side, interpolation between.
_LINEAR = (
    "where(x < -4, sum(values * where(index < 1, 1 - (x + 4) * (terms - 1) / 8,"
    " where(index < 2, (x + 4) * (terms - 1) / 8, 0))),"
    " where(x > 4, sum(values * where(index > terms - 2, 1 + (x - 4) * (terms - 1) / 8,"
    " where(index > terms - 3, (4 - x) * (terms - 1) / 8, 0))),"
    " sum(values * max(1 - abs((x + 4) * (terms - 1) / 8 - index), 0))))"
)
# The B-splines as fourth differences of truncated cubes.
_CUBIC = (
    "base * x / (1 + exp(-x)) + sum(coefficients / 6 * (max((x + 1) * (terms - 3) / 2 + 3 - index, 0)**3"
    " - 4 * max((x + 1) * (terms - 3) / 2 + 2 - index, 0)**3 + 6 * max((x + 1) * (terms - 3) / 2 + 1 - index, 0)**3"
    " - 4 * max((x + 1) * (terms - 3) / 2 - index, 0)**3 + max((x + 1) * (terms - 3) / 2 - 1 - index, 0)**3))"
)


def linear_spline(x: Tensor, values: Sequence[Tensor | float]) -> Tensor:
    r"""Deep spline: the line through $(t_k, c_k)$ on evenly spaced knots $t_k$ from -4 to 4, going on straight outside.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        values: $c_k$: `(knots, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`; the derivative at a knot is the slope left of it.
    """
    last = len(values) - 1
    place = widened(x) * (last / (2 * LINEAR_REACH))
    (left, right), beyond = interval(place, entries_of(values, place), 2, start=-last / 2)
    return (left + (right - left) * beyond).to(x.dtype)


def bspline(x: Tensor, coefficients: Sequence[Tensor | float], base: Tensor | float = 1.0) -> Tensor:
    r"""Edge of a Kolmogorov-Arnold network, $w_b\,\mathrm{SiLU}(x) + \sum_i c_i B_i(x)$ with cubic B-splines $B_i$.

    They belong to a uniform grid on $[-1, 1]$ and vanish some way outside. The factor of the sum in the paper is left
    out, for the $c_i$ contain it. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c_i$: `(intervals + 3, ...)`, or a tuple, each entry broadcastable to `x`; at least four.
        base: $w_b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    intervals, edge = len(coefficients) - OVERHANG, (len(coefficients) + OVERHANG) / 2
    place = (wide * (intervals / (2 * CUBIC_REACH))).clamp(-edge, edge)
    nothing = [place.new_zeros(())] * OVERHANG
    entries = [*nothing, *entries_of(coefficients, place), *nothing]
    (first, second, third, fourth), u = interval(place, entries, OVERHANG + 1, start=-edge)
    v = 1 - u
    inner = second * (4 - 3 * u**2 * (1 + v)) + third * (4 - 3 * v**2 * (1 + u))
    return (base * F.silu(wide) + (first * v**3 + inner + fourth * u**3) / 6).to(x.dtype)


def linear_knots(terms: int) -> tuple[float, ...]:
    """Return where a linear spline through `terms` knots bends: at all but the outermost ones."""
    return positions(terms, 2 * LINEAR_REACH / (terms - 1))[1:-1]


def cubic_knots(terms: int) -> tuple[float, ...]:
    """Return where the pieces of `terms` cubic B-splines meet; only the third derivative jumps there."""
    return positions(terms + 4, 2 * CUBIC_REACH / (terms - OVERHANG))


def initialize_leaky_relu(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the values of a leaky ReLU of slope 0.01 at the knots."""
    knots = positions(terms, 2 * LINEAR_REACH / (terms - 1))
    return {"values": F.leaky_relu(torch.tensor(knots, dtype=torch.float64))}


def initialize_small(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw coefficients of standard deviation 0.1, so that the network starts near one of SiLUs."""
    return {"coefficients": 0.1 * torch.randn(terms, generator=generator)}


SPECS = (
    Spec(
        name="linear_spline",
        title="LinearSpline",
        family="spline",
        function=linear_spline,
        formula=_LINEAR,
        parameters=(Param(name="values", trainable=True, vector=True),),
        source="bohra2020deepspline",
        knots=linear_knots,
        aliases=("deepspline",),
        initializations=MappingProxyType({"leaky_relu": initialize_leaky_relu}),
        terms=51,
        fewest_terms=2,
    ),
    Spec(
        name="bspline",
        title="BSpline",
        family="spline",
        function=bspline,
        formula=_CUBIC,
        parameters=(
            Param(name="coefficients", trainable=True, vector=True),
            Param(name="base", default=1.0, trainable=True),
        ),
        source="liu2024kan",
        note="Coefficients are drawn from N(0, 0.1^2). Beyond the grid only w_b SiLU(x) is left.",
        knots=cubic_knots,
        initializations=MappingProxyType({"normal": initialize_small}),
        terms=8,
        fewest_terms=4,
    ),
)
