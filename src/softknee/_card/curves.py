"""What a plot of an activation shows: how far it reaches, which points it is drawn through, where it breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    Line = Sequence[float | None]

REACHES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
USUAL = 5.0
POINTS = 401
# Spacing of the points by which the reach is chosen.
SPACING = 5e-3
# Share of the turning of the slope that a plot must show.
SHOWN = 0.93
# What happens within is shown, unless most of it happens further out; functions that grow fast are shown near 0.
NEAR, GROWTH = 20.0, 4.0
# Turns of the slope that a plot can show.
MOST_TURNS = 9
# Second derivatives below are not seen.
FAINT = 1e-3
# How much larger than the first a second derivative may be drawn, and what it is divided by beyond.
DWARFS = 3.0
DIVISORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# How close to a kink its two sides are looked at, relatively to the reach.
BESIDE = 1e-7
# A step between neighbouring points is a jump where it is so much larger than those beside it.
JUMP, VISIBLE_JUMP = 8.0, 0.05


class Drawable(Protocol):
    """A function of one number that can be plotted."""

    @property
    def kinks(self) -> Sequence[float]:
        """Where it or a derivative jumps, ascending."""

    def derivatives(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return value, first and second derivative."""

    def backward(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return what is differentiated in its place; None where that is the function."""


@dataclass(frozen=True)
class Curves:
    """Value, first and second derivative along x, with gaps where they jump.

    Attributes:
        reach: They go from minus this to this.
        x: Positions.
        value: Of the function.
        backward: Of what is differentiated in its place; None where that is the function.
        slope: First derivative.
        bend: Second derivative.
        values: Range of the first panel.
        slopes: Range of the panel of derivatives.
        divisor: What the second derivative is divided by to fit in there.
    """

    reach: float
    x: Sequence[float]
    value: Line
    backward: Line | None
    slope: Line
    bend: Line
    values: tuple[float, float]
    slopes: tuple[float, float]
    divisor: int


def curves_of(subject: Drawable, points: int = POINTS) -> Curves:
    """Return what the plots of an activation show.

    Args:
        subject: The activation at its values.
        points: Evenly spaced ones; kinks are added.

    Returns:
        The curves, in float64.
    """
    reach = reach_of(subject)
    x = _positions(subject, reach, points)
    at = torch.tensor(x, dtype=torch.float64)
    value, slope, bend = (_gapped(y.tolist(), x) for y in subject.derivatives(at))
    backward = subject.backward(at)
    divisor = _divisor(slope, bend)
    scaled = [None if y is None else y / divisor for y in bend]
    replaced = None if backward is None else backward.tolist()
    values = _value_range([*value, *(replaced or [])], reach)
    return Curves(reach, x, value, replaced, slope, bend, values, _slope_range(slope, scaled), divisor)


def reach_of(subject: Drawable) -> float:
    """Return how far a plot must go to show what is going on, and how far it may go to show it clearly."""
    x = torch.arange(-REACHES[-1], REACHES[-1] + SPACING, SPACING, dtype=torch.float64)
    _, slope, bend = (y.nan_to_num(0.0, 0.0, 0.0) for y in subject.derivatives(x))
    bend = torch.where(bend.abs() > FAINT, bend, 0.0)
    turning = bend.abs() * SPACING
    grows = slope[[0, -1]].abs().max() > GROWTH * slope[x.abs() <= USUAL].abs().max()
    near = turning * (x.abs() <= NEAR)
    turning = near if grows or near.sum() > 0.5 * turning.sum() else turning
    settled = 0.0 if grows else _radius(x, turning)
    # Where the slope turns at kinks only, or hardly at all, there is nothing else to show.
    curved = turning.sum() > max(0.25 * slope.diff().abs().sum().item(), FAINT)
    kink = max(map(abs, subject.kinks), default=0.0)
    if curved and not grows and 4 * settled < USUAL and kink < settled:
        reach = _next(4 * settled)
    else:
        reach = max(USUAL, _next(max(1.4 * kink, settled if curved else 0.0)))
    while reach > REACHES[0] and _turns(x, bend, reach) > MOST_TURNS:
        reach = REACHES[REACHES.index(reach) - 1]
    return reach


def _radius(x: torch.Tensor, turning: torch.Tensor) -> float:
    """Return the distance from 0 within which most of the turning happens."""
    order = x.abs().argsort()
    share = turning[order].cumsum(0)
    inside = int((share < SHOWN * share[-1]).sum().item())
    return x.abs()[order][min(inside, len(x) - 1)].item() if share[-1] > 0 else 0.0


def _turns(x: torch.Tensor, bend: torch.Tensor, reach: float) -> int:
    signs = bend[(x.abs() <= reach) & (bend != 0)].sign()
    return int((signs[1:] != signs[:-1]).sum())


def _next(wanted: float) -> float:
    return next((reach for reach in REACHES if reach >= wanted * 0.999), REACHES[-1])


def _positions(subject: Drawable, reach: float, points: int) -> list[float]:
    """Return evenly spaced positions, at kinks two close beside instead."""
    even = torch.linspace(-reach, reach, points, dtype=torch.float64).tolist()
    kinks, side = [kink for kink in subject.kinks if abs(kink) < reach], BESIDE * reach
    beside = [place for kink in kinks for place in (kink - side, kink + side)]
    return sorted([*(x for x in even if all(abs(x - kink) >= side for kink in kinks)), *beside])


def _gapped(y: Sequence[float], x: Sequence[float]) -> list[float | None]:
    """Return a line with a gap in place of the first point behind each jump, and where it is not finite.

    A single point that lies far from a line through its neighbours, as at a place where a formula is not defined, is
    put onto it.
    """
    least = VISIBLE_JUMP * _spread(sorted(value for value in y if math.isfinite(value)))
    steps = [abs(after - before) for before, after in pairwise(y)]
    line: list[float | None] = [value if math.isfinite(value) else None for value in y]
    for i, step in enumerate(steps):
        before, behind, next_behind = (steps[j] if 0 <= j < len(steps) else 0.0 for j in (i - 1, i + 1, i + 2))
        close = x[i + 1] - x[i] < 3 * BESIDE * x[-1]
        if step > least and behind > least and min(step, behind) > JUMP * max(before, next_behind):
            line[i + 1] = (y[i] + y[i + 2]) / 2
            steps[i + 1] = 0.0
        elif step > least and (close or step > JUMP * max(before, behind)):
            line[i + 1] = None
    return line


def _spread(ordered: Sequence[float]) -> float:
    """Return the size of ordered values, but for a few at either end."""
    if not ordered:
        return 0.0
    edge = len(ordered) // 50
    return ordered[-1 - edge] - ordered[edge] or ordered[-1] - ordered[0]


def _value_range(line: Line, reach: float) -> tuple[float, float]:
    """Return the range of a function; one that grows fast is cut off where it leaves the square around 0."""
    values = [value for value in line if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    most = max(reach, USUAL)
    if high - low > 3 * most:
        low, high = max(low, -1.1 * most), min(high, 1.1 * most)
    return _with_air(min(low, 0.0), max(high, 0.0))


def _divisor(slope: Line, bend: Line) -> int:
    """Return what to divide a second derivative by that would dwarf the first one."""
    first, second = (_size(line) for line in (slope, bend))
    return next((divisor for divisor in DIVISORS if second / divisor <= DWARFS * first), DIVISORS[-1])


def _size(line: Line) -> float:
    low, high = _trimmed(sorted(value for value in line if value is not None))
    return max(high, 0.0) - min(low, 0.0)


def _slope_range(slope: Line, bend: Line) -> tuple[float, float]:
    """Return the range of both derivatives; the second one is cut off where it would flatten the first."""
    firsts = sorted(value for value in slope if value is not None)
    seconds = [value for value in bend if value is not None]
    low, high = min(0.0, _trimmed(firsts)[0]), max(0.0, _trimmed(firsts)[1])
    room = max(high - low, 0.2)
    low = max(min([low, *seconds]), low - 0.75 * room)
    high = min(max([high, *seconds]), high + 0.75 * room)
    return _with_air(low, high)


def _trimmed(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the range of ordered values, without peaks that a few points alone reach."""
    if not ordered:
        return 0.0, 1.0
    edge = len(ordered) // 50
    low, high = ordered[edge], ordered[-1 - edge]
    room = max(high - low, 1e-3)
    return max(ordered[0], low - 2 * room), min(ordered[-1], high + 2 * room)


def _with_air(low: float, high: float) -> tuple[float, float]:
    air = max(0.06 * (high - low), 1e-3)
    return low - air, high + air
