"""Functions in pieces between evenly spaced points, trained by their values there."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._intervals import as_tensor, entries_of, interval, positions
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

# The outermost points of the spline and of the table lie at plus and minus this.
SPLINE_REACH = 2.0
TABLE_REACH = 4.0
# Points that count in an interval of either: its ends, and the next one on either side.
WIDTH = 4
PWLU_REACH = 3.0
PWLU_INTERVALS = 16


def _statement(reach: float, kernel: str, outer: str, middle: str) -> str:
    """Return the formula of a sum of kernels inside, and of straight lines with weights of three values outside.

    Args:
        reach: Of the points.
        kernel: In the distance {t}, in spacings.
        outer: Weight of the outermost and of the third value where a line begins.
        middle: That of the second.
    """
    place = f"(x + {reach:g}) * (terms - 1) / {2 * reach:g}"
    fall, climb = f"{outer} + (1 - {place}) / 2", f"{outer} + ({place} - 1) / 2"
    begin = f"where(index < 1, {fall}, where(index < 2, {middle}, where(index < 3, {climb}, 0)))"
    fall, climb = f"{outer} + (terms - 2 - {place}) / 2", f"{outer} + ({place} - terms + 2) / 2"
    end = f"where(index > terms - 2, {climb}, where(index > terms - 3, {middle}, where(index > terms - 4, {fall}, 0)))"
    inside = kernel.format(t=f"abs({place} - index)")
    return f"sum(values * where({place} < 1, {begin}, where({place} > terms - 2, {end}, {inside})))"


# Keys' cubic convolution.
_CATMULL_ROM = _statement(
    SPLINE_REACH,
    "where({t} < 1, 1.5 * {t}**3 - 2.5 * {t}**2 + 1, where({t} < 2, 2 - 4 * {t} + 2.5 * {t}**2 - 0.5 * {t}**3, 0))",
    outer="0",
    middle="1",
)
_LUT = _statement(TABLE_REACH, "where({t} < 2, (1 + cos(pi * {t} / 2)) / 4, 0)", outer="1 / 4", middle="1 / 2")
_PWLU = (
    "where(x < left, (x - left) * left_slope + sum(where(index < 1, values, 0)),"
    " where(x > right, (x - right) * right_slope + sum(where(index > terms - 2, values, 0)),"
    " sum(values * max(1 - abs((x - left) / (right - left) * (terms - 1) - index), 0))))"
)


def catmull_rom(x: Tensor, values: Sequence[Tensor | float]) -> Tensor:
    r"""Catmull-Rom spline: a cubic between each two of evenly spaced points, with the slope between their neighbours.

    It goes through $q_i$ at the points $t_i$ from -2 to 2 except for the outermost two, which set the slopes of the
    straight lines with which it goes on outside. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        values: $q_i$: `(points, ...)`, or a tuple, each entry broadcastable to `x`; at least four.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    (before, low, high, after), u, beyond = _around(wide, values, SPLINE_REACH)
    left, right = (high - before) / 2, (after - low) / 2
    rise = high - low
    # Hermite's form: the rise between the points, and what the slopes at both are off from it.
    inner = low + u * (left + u * (3 * rise - 2 * left - right + u * (left + right - 2 * rise)))
    return (inner + torch.where(u < 1, left, right) * beyond).to(x.dtype)


def lut(x: Tensor, values: Sequence[Tensor | float]) -> Tensor:
    r"""Look-up table smoothed by raised cosines, $\sum_i y_i (1 + \cos(\pi (x - t_i) / 2h)) / 4$.

    The sum is over $|x - t_i| \le 2h$. The points $t_i$ lie evenly from -4 to 4, at distance $h$. From the last but one
    on either side it goes on straight, with the slope between its neighbours. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        values: $y_i$: `(points, ...)`, or a tuple, each entry broadcastable to `x`; at least four.

    Returns:
        Same shape and dtype as `x`; where the straight lines begin, the derivative is that of the table.
    """
    wide = widened(x)
    (before, low, high, after), u, beyond = _around(wide, values, TABLE_REACH)
    left, right = high - before, after - low
    angle = u * (math.pi / 2)
    inner = (before + low + high + after + torch.sin(angle) * left - torch.cos(angle) * right) / 4
    return (inner + torch.where(u < 1, left, right) / 2 * beyond).to(x.dtype)


def _around(wide: Tensor, values: Sequence[Tensor | float], reach: float) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the four values around each element, the place between the middle two, and the distance beyond the ends.

    Args:
        wide: Elements.
        values: At evenly spaced points; intervals begin at the second and end at the last but one.
        reach: Where the outermost points are.
    """
    last = len(values) - 1
    place = wide * (last / (2 * reach))
    chosen, u = interval(place, entries_of(values, place), WIDTH, start=1 - last / 2)
    inside = u.clamp(0, 1)
    return chosen, inside, u - inside


def pwlu(
    x: Tensor,
    values: Sequence[Tensor | float],
    left: Tensor | float = -PWLU_REACH,
    right: Tensor | float = PWLU_REACH,
    left_slope: Tensor | float = 0.0,
    right_slope: Tensor | float = 1.0,
) -> Tensor:
    r"""Piecewise linear unit: lines through $y_i$ at evenly spaced points from $B_l$ to $B_r$.

    Outside it has the slopes $K_l$ and $K_r$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        values: $y_i$: `(points, ...)`, or a tuple, each entry broadcastable to `x`; at least two.
        left: $B_l$, broadcastable to `x`.
        right: $B_r > B_l$.
        left_slope: $K_l$.
        right_slope: $K_r$.

    Returns:
        Same shape and dtype as `x`; the derivative at a point is the slope left of it, at $B_l$ that right of it.
    """
    wide = widened(x)
    low, high, falling, rising = (as_tensor(value, wide) for value in (left, right, left_slope, right_slope))
    below, above = wide < low, wide > high
    inside = torch.where(below, low, torch.where(above, high, wide))
    # Without a width there is only the first value; dividing by it would leave none at all.
    width = torch.where(high > low, high - low, 1.0)
    place = (inside - low) / width * (len(values) - 1)
    (start, end), u = interval(place, entries_of(values, wide), 2, start=0.0)
    slope = torch.where(below, falling, rising)
    return (start + (end - start) * u + slope * (wide - inside)).to(x.dtype)


def catmull_rom_knots(terms: int) -> tuple[float, ...]:
    """Return where the pieces of a spline through `terms` points meet; only the second derivative jumps there."""
    return positions(terms, 2 * SPLINE_REACH / (terms - 1))[1:-1]


def lut_knots(terms: int) -> tuple[float, ...]:
    """Return where the pieces of a table of `terms` points meet; only at the first and the last is there a kink."""
    return positions(terms, 2 * TABLE_REACH / (terms - 1))[1:-1]


def initialize_tanh(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the values of the hyperbolic tangent at the points of the spline."""
    points = positions(terms, 2 * SPLINE_REACH / (terms - 1))
    return {"values": torch.tensor(points, dtype=torch.float64).tanh()}


def initialize_relu_table(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the values of ReLU at the points of the table."""
    return {"values": _table_points(terms).relu()}


def initialize_identity_table(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the points of the table themselves."""
    return {"values": _table_points(terms)}


def _table_points(terms: int) -> Tensor:
    return torch.tensor(positions(terms, 2 * TABLE_REACH / (terms - 1)), dtype=torch.float64)


def initialize_relu(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the values of ReLU at evenly spaced points from -3 to 3."""
    return {"values": torch.tensor(positions(terms, 2 * PWLU_REACH / (terms - 1)), dtype=torch.float64).relu()}


SPECS = (
    Spec(
        name="catmull_rom",
        title="CatmullRom",
        family="spline",
        function=catmull_rom,
        formula=_CATMULL_ROM,
        parameters=(Param(name="values", trainable=True, vector=True),),
        promises=Promises(monotonic=True, odd=True, zero_at_zero=True),
        source="scardapane2016spline",
        note=(
            "Starts near tanh, as in the paper. The range of the points and the straight lines outside are ours. The"
            " paper also holds the values near the first ones by a penalty, which is left to the user."
        ),
        knots=catmull_rom_knots,
        initializations=MappingProxyType({"tanh": initialize_tanh}),
        terms=21,
        fewest_terms=4,
    ),
    Spec(
        name="lut",
        title="LUT",
        family="spline",
        function=lut,
        formula=_LUT,
        parameters=(Param(name="values", trainable=True, vector=True),),
        promises=Promises(monotonic=True, lipschitz=1.110721, lower_bound=0.0),
        source="wang2018lutu",
        note=(
            "The look-up table unit (LuTU), smoothed by one period of a cosine; with linear interpolation it is a"
            " linear spline. Ours are: the width of the cosine, which the paper leaves open as a multiple of the"
            " spacing; its scale, by which the table of a line gives that line at its points; 33 points from -4 to 4,"
            " where the paper has 241 from -12 to 12; what happens outside; and the start near ReLU."
        ),
        knots=lut_knots,
        initializations=MappingProxyType({"relu": initialize_relu_table, "identity": initialize_identity_table}),
        terms=33,
        fewest_terms=4,
    ),
    Spec(
        name="pwlu",
        title="PWLU",
        family="spline",
        function=pwlu,
        formula=_PWLU,
        parameters=(
            Param(name="values", trainable=True, vector=True),
            Param(name="left", default=-PWLU_REACH, trainable=True),
            Param(name="right", default=PWLU_REACH, trainable=True, not_below="left"),
            Param(name="left_slope", default=0.0, trainable=True),
            Param(name="right_slope", default=1.0, trainable=True),
        ),
        promises=Promises(monotonic=True, lipschitz=1.000001, lower_bound=0.0),
        source="zhou2021pwlu",
        note=(
            "Starts as ReLU. The paper then sets the ends to the mean of the inputs plus and minus three standard"
            " deviations, seen in a first phase of training; the defaults are those of standardized inputs. Give the"
            " values together with other ends, for they start as those of ReLU at the default ones. Training may make"
            " the ends cross; values stay finite."
        ),
        kinks=tuple(f"left + (right - left) * {k} / {PWLU_INTERVALS}" for k in range(PWLU_INTERVALS + 1)),
        initializations=MappingProxyType({"relu": initialize_relu}),
        terms=PWLU_INTERVALS + 1,
        fewest_terms=2,
    ),
)
