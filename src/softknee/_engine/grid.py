"""From a formula to a table: where it is evaluated, and how fine the table is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from softknee._engine.division import MARGIN, division_for, points_of
from softknee._engine.exact import pulled_back, slopes_at, values_at
from softknee._engine.fit import constant, fit

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._engine.division import Division, Points
    from softknee._engine.fit import Fit, Scales
    from softknee._engine.plan import Plan

COARSEST = 1 / 16
# Of one channel, and of all together.
MOST_BINS = 16384
MOST_ROWS = 2**19
# How many more rows bins of one width may take than divided ones, for a lookup that is cheaper by a quarter.
EVEN = 2
# Parts from which on all bins are made narrower first, by so much, for what needs them is narrower than a bin.
CROWDED, NARROWER = 256, 4
# Cells of a channel, of its bins, that all channels may have.
LONGEST = 1.25
# Moments from which on it pays to look for rows without any.
MANY = 2**18
# Steps by which a place may be off a node and still count as on it.
ALIGNED = 1e-4
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
        entries: `(channels, bins)` int32: how many cells a bin is divided into, and the first row of them; None where
            none is.
        rows: `(channels, rows, 4)` float32 coefficients of 1, t, t^2, t^3, with t in [0, 1] across a bin or cell.
        points: `(channels, rows * 4)` where the formula was evaluated.
        value_error: No value inside the grid errs by more.
        slope_error: No slope inside the grid errs by more, except within bins that hold a kink or the end of a piece.
        accurate: Whether both are within tolerance.
    """

    grid: Grid
    entries: Tensor | None
    rows: Tensor
    points: Tensor
    value_error: float
    slope_error: float
    accurate: bool

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.rows.nbytes + self.points.nbytes + (0 if self.entries is None else self.entries.nbytes)

    def pull_back(self, plan: Plan, moments: Tensor, leaves: Tensor | None) -> Tensor | None:
        """Return the gradients of the trained entries from the moments of the incoming gradient in each row."""
        points, rows = self.points, moments.shape[1]
        if moments.numel() > MANY:
            # Most rows are met by no element. One is kept whatever it has: kernels take no empty channels.
            met = (moments != 0).any(-1).any(0)
            met[0] = True
            points = points.view(-1, rows, 4)[:, met].flatten(1)
            moments = moments[:, met]
        weights = torch.matmul(moments, constant(_TO_WEIGHTS, moments.device)).flatten(1)
        return pulled_back(plan, points, weights, leaves)[1]


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
    coarsest, times = grid_over(*reach, plan.bends(leaves)), 1
    most = min(MOST_BINS, MOST_ROWS // _channels(leaves))
    while True:
        grid = coarsest.finer(times)
        points, found = _fitted(plan, points_of(grid, device), leaves)
        # Nothing gets finite by a finer grid.
        if found.excess <= 1 or not math.isfinite(found.excess):
            break
        division, room = division_for(grid, found), most - grid.bins
        narrowest = int(division.parts.amax())
        finer = max(times + 1, min(times * narrowest, math.ceil(times * MARGIN * found.excess ** (1 / 3))))
        if narrowest > 1 and finer * coarsest.bins <= min(most, EVEN * (grid.bins + division.longest)):
            times = finer
        elif narrowest > CROWDED and NARROWER * grid.bins <= most // NARROWER:
            times *= NARROWER
        else:
            # The rows of channels are as many as those of the longest.
            room = min(room, int(LONGEST * grid.bins)) if len(division.parts) > 1 else room
            divided = division.capped(room)
            if 0 < divided.longest <= room:
                return _divided(plan, leaves, divided, points, found, room)
            break
    return Table(grid, None, found.rows, points, found.value_error, found.slope_error, accurate=found.excess <= 1)


def _divided(plan: Plan, leaves: Tensor | None, division: Division, points: Tensor, found: Fit, room: int) -> Table:
    """Return the table of bins of which some are divided, into more parts as long as they err too much."""
    scales = found.scales
    while True:
        entries, where = division.cells()
        cells, fine = _fitted(plan, where, leaves, scales)
        if fine.excess <= 1 or not math.isfinite(fine.excess):
            break
        finer = division.finer(fine.errors)
        if finer.longest > room or torch.equal(finer.parts, division.parts):
            break
        division, scales = finer, fine.scales
    rows, points = torch.cat((found.rows, fine.rows), 1), torch.cat((points, cells), 1)
    errors = (max(division.value_error, fine.value_error), max(division.slope_error, fine.slope_error))
    return Table(division.grid, entries, rows, points, *errors, accurate=fine.excess <= 1)


def _fitted(plan: Plan, where: Points, leaves: Tensor | None, scales: Scales | None = None) -> tuple[Tensor, Fit]:
    """Return the points of all channels, `(channels, bins * 4)`, and cubics from what the formula gives there."""
    channels = _channels(leaves)
    points, ends = (part.flatten(1).expand(channels, -1).contiguous() for part in (where.places, where.ends))
    values = values_at(plan, ends, leaves).view(channels, -1, 2)
    slopes = slopes_at(plan, points, leaves).view(channels, -1, 4)
    pieces = None if plan.pieces is None else values_at(plan.pieces, ends, leaves).view_as(values)
    return points, fit(values, slopes, where, pieces, scales)


def _channels(leaves: Tensor | None) -> int:
    return 1 if leaves is None else leaves.shape[1]
