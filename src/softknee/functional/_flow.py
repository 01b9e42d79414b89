"""Where the flow of a continuous, piecewise affine velocity field carries points in unit time, in closed form."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from softknee.functional._intervals import as_tensor, entries_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# Up to where series replace quotients whose derivatives cancel: of half an exponent, and of (v - u) / (v + u).
SMALL_EXPONENT = 0.5
SMALL_DIFFERENCE = 0.125
# More than the time there is.
NEVER = 2.0
# Of the smallest number: quotients of velocities down to this power of it can still be squared.
LEAST = 0.45
# sinh(z) / z and atanh(z) / z in z^2, to the precision of float64 up to there.
_SINH = (1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800, 1 / 6227020800)
_ATANH = tuple(1 / (2 * k + 1) for k in range(9))


class Carried(NamedTuple):
    """What a flow does to points.

    Attributes:
        place: Where they arrive.
        piece: Number of the piece of the map that each starts in, -1 below the map and one more than the last above.
            Within a piece the map is analytic; from one to the next its second derivative jumps, or its first one, at a
            knot where the flow stands still.
    """

    place: Tensor
    piece: Tensor


def carried_within(
    x: Tensor, velocities: Sequence[Tensor | float], low: Tensor | float, high: Tensor | float
) -> Carried:
    """Return where points are carried by a flow that stands still at both ends of an interval, and outside of it.

    Args:
        x: Any shape, float32 or float64.
        velocities: At the evenly spaced knots inside the interval, each broadcastable to `x`.
        low: Where the interval begins.
        high: Where it ends.

    Returns:
        The places and the pieces; at both ends those of the inside.
    """
    start, end = as_tensor(low, x), as_tensor(high, x)
    inside = (x >= start) & (x <= end)
    still = as_tensor(0.0, x)
    inner = entries_of(velocities, x)
    place, piece = carried(torch.where(inside, x, start), (still, *inner, still), start, end)
    above = torch.where(x > end, 2.0 * len(inner) + 1.0, -1.0)
    return Carried(torch.where(inside, place, x), torch.where(inside, piece, above))


def carried_everywhere(
    x: Tensor, velocities: Sequence[Tensor | float], low: Tensor | float, high: Tensor | float
) -> Carried:
    """Return where points are carried by a flow that goes on straight beyond both ends of an interval.

    Args:
        x: Any shape, float32 or float64.
        velocities: At evenly spaced knots, the ends among them, each broadcastable to `x`.
        low: The first knot.
        high: The last knot.

    Returns:
        The places and the pieces; infinity stays where it is.
    """
    finite = x.abs() < math.inf
    start, end = as_tensor(low, x), as_tensor(high, x)
    place, piece = carried(torch.where(finite, x, start), entries_of(velocities, x), start, end)
    return Carried(torch.where(finite, place, x), piece)


def carried(x: Tensor, velocities: Sequence[Tensor], low: Tensor, high: Tensor) -> Carried:
    r"""Return $y(1)$ for $\dot y = v(y)$, $y(0) = x$, where $v$ interpolates velocities at knots and goes on straight.

    A point passes knot after knot as long as its time lasts. The time within a cell is a logarithm, the way in what is
    left of it an exponential. Derivatives are autograd's.

    Args:
        x: Any shape, float32 or float64.
        velocities: At evenly spaced knots, each broadcastable to `x`; at least two.
        low: The first knot.
        high: The last knot.

    Returns:
        The places and the pieces.
    """
    cells = len(velocities) - 1
    width = (high - low) / cells

    def knot(k: Tensor | float) -> Tensor:
        return low + (high - low) * k / cells

    cell = torch.zeros_like(x)
    for k in range(1, cells):
        cell = torch.where(x >= knot(float(k)), float(k), cell)
    before, after = _ends(cell, velocities)
    left, right = knot(cell), knot(cell + 1)
    # Exactly 0 at an end of the cell where the velocity there is.
    velocity = (before * (right - x) + after * (x - left)) / width
    leftward = velocity < 0
    way, final = torch.where(leftward, left - x, right - x), torch.where(leftward, before, after)
    remaining = 1 - _time(way, velocity, final, (after - before) / width)

    # Cells are numbered in the order in which points come through them.
    times = [_time(width, *pair, (pair[1] - pair[0]) / width).abs() for pair in pairwise(velocities)]
    times = [torch.where(leftward, last, first) for first, last in zip(times, reversed(times), strict=True)]
    start = torch.where(leftward, cells - 1 - cell, cell)
    time, passed = torch.ones_like(x), torch.zeros_like(x)
    for k in range(1, cells):
        if k > 1:
            remaining = torch.where(start < k - 1, remaining - times[k - 1], remaining)
        passes = (start < k) & (remaining >= 0)
        time, passed = torch.where(passes, remaining, time), torch.where(passes, passed + 1, passed)

    arrived = torch.where(leftward, cell - passed, cell + passed)
    before, after = _ends(arrived, velocities)
    moved, slope = passed > 0, (after - before) / width
    # From the knot where they came in, or from where it is slowest if points of a cell gather: `1 + slope * ...`
    # would cancel.
    gathers = ~moved & (slope < -2 * SMALL_EXPONENT)
    came_in, slow = torch.where(leftward, 1.0, 0.0), torch.where(after.abs() < before.abs(), 1.0, 0.0)
    end = torch.where(moved, came_in, slow)
    origin = knot(arrived + end)
    off = torch.where(gathers, x - origin, 0.0)
    place = torch.where(moved | gathers, origin, x)
    velocity = torch.where(moved | gathers, torch.where(end > 0, after, before), velocity)
    way, growth = _way(velocity, slope, time)
    return Carried(place + way + off * growth, cell + arrived)


def _ends(cell: Tensor, velocities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the velocities at both ends of cells."""
    before, after = velocities[0], velocities[1]
    for k in range(1, len(velocities) - 1):
        there = cell >= k
        before, after = torch.where(there, velocities[k], before), torch.where(there, velocities[k + 1], after)
    return before, after


def _way(velocity: Tensor, slope: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far a point gets in some time, the integral of `velocity exp(slope t)`, and how distances grow."""
    # What stands still does so where others fly off beyond all numbers.
    most = 0.49 * math.log(torch.finfo(velocity.dtype).max)
    half = (0.5 * slope * time).clamp(max=most)
    root = torch.exp(half)
    small = half.abs() < SMALL_EXPONENT
    by_series = time * root * _series(_SINH, torch.where(small, half, 0.0).square())
    growth = root.square()
    return velocity * torch.where(small, by_series, (growth - 1) / torch.where(small, 1.0, slope)), growth


def _time(way: Tensor, start: Tensor, end: Tensor, slope: Tensor) -> Tensor:
    """Return how long a way takes: the integral of `1 / v` from one velocity to the other; `NEVER` past a zero.

    From next to a zero it takes longer than there is time, and quotients would overflow.
    """
    least = torch.finfo(start.dtype).tiny ** LEAST
    # One comparison after the other: compilers do not vectorize choices by two of parameters at once.
    in_time = way.abs() < NEVER * torch.maximum(start.abs(), end.abs())
    passes = torch.where(in_time, start * end, 0.0) > least * end.square()
    start, end = torch.where(passes, start, 1.0), torch.where(passes, end, 1.0)
    difference = (end - start) / (end + start)
    small = difference.abs() < SMALL_DIFFERENCE
    by_series = 2 * way / (start + end) * _series(_ATANH, torch.where(small, difference, 0.0).square())
    time = torch.where(small, by_series, torch.log(end / start) / torch.where(small, 1.0, slope))
    return torch.where(passes, time, NEVER)


def _series(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Return a polynomial, by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
