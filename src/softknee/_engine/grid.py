"""From a formula to a table: where it is evaluated, how fine, and how large the error is.

Each bin holds the cubic whose slope passes through the formula's own at both ends and in the middle, and whose value is
right at the left end. Slopes thus never come from differences of rounded values. Where the formula is smooth, the slope
errs most near a quarter of the bin, which is where it is checked; the value, its integral, errs most in the middle and
is right again at the right end, which is checked too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.exact import pulled_back, values_and_slopes

if TYPE_CHECKING:
    from softknee._engine.plan import Plan

COARSEST = 1 / 16
MOST_BINS = 16384
# Relative to the largest value and slope on the grid.
VALUE_TOLERANCE = 2e-6
SLOPE_TOLERANCE = 1e-5
# The derivative that decides may vary within a bin, so more than the error at the quarter is assumed.
CAUTION = 2.0
# Bins are made narrower by so much more than the error found asks for.
MARGIN = 1.03
# The largest error of the value over that of the slope times h, where the fourth derivative is constant.
VALUE_RATIO = 72 * math.sqrt(3) / 384
# Of the input and of the value, at their worst over thousands of points.
ROUNDINGS = 2 * torch.finfo(torch.float32).eps
PLACES = (0.0, 0.25, 0.5, 1.0)
# How far inside, relative to the bin, and to the place: a formula rounds on its own way to where it bends.
HAIR = 1e-6
FLOAT_HAIR = 1.01 * torch.finfo(torch.float32).eps
TINY = 1e-30
# Steps by which a place may be off a node and still count as on it.
ALIGNED = 1e-4
# Slopes (times h) at the four places to the coefficients of 1, t, t^2, t^3; the quarter serves the check alone.
_TO_CUBIC = ((0.0, 1.0, -1.5, 2 / 3), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, -4 / 3), (0.0, 0.0, -0.5, 2 / 3))
# Slopes at the four places to the error at the quarter, and to the integral over the bin.
_TO_CHECKS = ((0.375, 1 / 6), (-1.0, 0.0), (0.75, 2 / 3), (-0.125, 1 / 6))
# Moments g, g t, g t^2 of a bin (and one unused) to weights of the four places, by the quadratic through three.
_TO_WEIGHTS = ((1.0, 0.0, 0.0, 0.0), (-3.0, 0.0, 4.0, -1.0), (2.0, 0.0, -4.0, 2.0), (0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Grid:
    """Uniform bins, from `origin + first h` on.

    Attributes:
        origin: Where some node lies exactly.
        step: Width h of a bin.
        first: Steps from the origin to the first node; usually negative.
        bins: How many there are.
    """

    origin: float
    step: float
    first: int
    bins: int

    def finer(self, times: int) -> Grid:
        """Return the grid with each bin divided into so many."""
        return Grid(self.origin, self.step / times, self.first * times, self.bins * times)

    @property
    def low(self) -> float:
        """The first node."""
        return self.origin + self.step * self.first

    @property
    def high(self) -> float:
        """The last node."""
        return self.origin + self.step * (self.first + self.bins)


@lru_cache(maxsize=32)
def points_of(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the formula is evaluated on a grid.

    Args:
        grid: The grid.
        device: Where the tensors are to be.

    Returns:
        Points `(bins, 4)`, by how much each is off from its place in the bin, and the largest distance of each bin from
        zero `(bins,)`, float32. The ends lie a hair inside their bin, so that a kink at a node has its own slope on
        either side.
    """
    kind: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    steps = torch.arange(grid.first, grid.first + grid.bins, **kind)
    places = grid.origin + grid.step * (steps[:, None] + torch.tensor(PLACES, **kind))
    inward = torch.tensor([1.0, 0.0, 0.0, -1.0], **kind)
    points = (places + inward * (HAIR * grid.step + FLOAT_HAIR * places.abs())).float()
    return points.to(device), (points - places).float().to(device), points.abs().amax(-1).to(device)


def grid_over(low: float, high: float, bends: tuple[float, ...] = ()) -> Grid:
    """Return the coarsest grid over a range, with nodes where pieces meet.

    Args:
        low: Lower end of the range; the grid reaches at least there.
        high: Upper end.
        bends: Where pieces meet, ascending.

    Returns:
        The grid. Where no uniform grid of few enough bins has nodes at all of the places, it has one at the first.
    """
    origin, step = _lattice(tuple(bend for bend in bends if low < bend < high))
    while (high - low) / step > MOST_BINS - 1:
        step *= 2
    first = math.floor((low - origin) / step)
    return Grid(origin, step, first, math.ceil((high - origin) / step) - first)


def _lattice(bends: tuple[float, ...]) -> tuple[float, float]:
    """Return the origin and step of the coarsest grid; by default a step that divides without rounding."""
    if all((bend / COARSEST).is_integer() for bend in bends):
        return 0.0, COARSEST
    origin = bends[0]
    gaps = [bend - origin for bend in bends[1:]]
    narrow = min((b - a for a, b in pairwise(bends)), default=COARSEST)
    step = narrow / max(1, round(narrow / COARSEST))
    fits = all(abs(gap / step - round(gap / step)) < ALIGNED for gap in gaps)
    return origin, step if fits else COARSEST


@dataclass(frozen=True)
class Table:
    """A tabulated function.

    Attributes:
        grid: Where.
        rows: `(channels, bins, 4)` float32 coefficients of 1, t, t^2, t^3, with t in [0, 1] across a bin.
        points: `(channels, bins * 4)` where the formula was evaluated.
        value_error: No value inside the grid errs by more.
        slope_error: No slope inside the grid errs by more, except within bins that hold a kink.
        accurate: Whether both are within tolerance.
    """

    grid: Grid
    rows: Tensor
    points: Tensor
    value_error: float
    slope_error: float
    accurate: bool

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.rows.nbytes + self.points.nbytes

    def pull_back(self, plan: Plan, moments: Tensor, leaves: Tensor | None) -> Tensor | None:
        """Return the gradients of the trained entries from the moments of the incoming gradient in each bin."""
        weights = torch.matmul(moments, _constant(_TO_WEIGHTS, moments.device)).flatten(1)
        return pulled_back(plan, self.points, weights, leaves)[1]


def tabulate(plan: Plan, leaves: Tensor | None, reach: tuple[float, float], device: torch.device) -> Table:
    """Build a table that is fine enough, or as fine as tables get.

    How fine depends on the present parameters alone, never on earlier calls.

    Args:
        plan: The activation.
        leaves: `(entries, channels)` parameter values.
        reach: The range the table must cover.
        device: Where it is to be.

    Returns:
        The table; its `accurate` tells whether it is fine enough.
    """
    coarsest = grid_over(*reach, plan.bends(leaves))
    most = max(1, MOST_BINS // coarsest.bins)
    times = 1
    while True:
        table, excess = _tabulated(plan, coarsest.finer(times), leaves, device)
        if excess <= 1 or times == most:
            return table
        # The slope errs by the third power of the step.
        times = min(most, max(times + 1, math.ceil(times * MARGIN * excess ** (1 / 3))))


def _tabulated(plan: Plan, grid: Grid, leaves: Tensor | None, device: torch.device) -> tuple[Table, float]:
    """Return the table on a grid, and by which factor the worse of its two errors exceeds its tolerance."""
    channels = 1 if leaves is None else leaves.shape[1]
    places, offsets, distances = points_of(grid, device)
    points = places.flatten().expand(channels, -1).contiguous()
    values, slopes = (part.view(channels, *places.shape) for part in values_and_slopes(plan, points, leaves))
    values = values - slopes * offsets
    rows = torch.matmul(slopes, grid.step * _constant(_TO_CUBIC, device))
    rows[..., 0] = values[..., 0]
    checks = torch.matmul(slopes, _constant(_TO_CHECKS, device))
    ends = values[..., 0] + grid.step * checks[..., 1] - values[..., -1]
    slope_errors = CAUTION * checks[..., 0].abs()
    value_errors = ends.abs() + grid.step * VALUE_RATIO * slope_errors
    # What rounding `x` and the result does to the formula anyway, no table can be asked to undercut.
    value_scale, slope_scale = values.abs().amax(), slopes.abs().amax()
    bend = (slopes[..., -1] - slopes[..., 0]).abs().amax() / grid.step
    value_noise, slope_noise = (
        ROUNDINGS * (value_scale + distances * slope_scale),
        ROUNDINGS * (slope_scale + distances * bend),
    )
    excess = torch.maximum(
        value_errors / (VALUE_TOLERANCE * value_scale + value_noise + TINY),
        slope_errors / (SLOPE_TOLERANCE * slope_scale + slope_noise + TINY),
    )
    worst, value_error, slope_error = (
        float(part.amax()) for part in (excess, value_errors + value_noise, slope_errors + slope_noise)
    )
    finite = math.isfinite(worst)
    table = Table(grid, rows, points, value_error, slope_error, accurate=finite and worst <= 1)
    return table, worst if finite else 1.0


@lru_cache(maxsize=8)
def _constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device=device)
