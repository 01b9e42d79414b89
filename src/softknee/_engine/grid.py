"""From a formula to a table: where it is evaluated, and how fine the table is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from softknee._engine.exact import pulled_back, slopes_at, values_at
from softknee._engine.fit import PLACES, constant, fit

if TYPE_CHECKING:
    from softknee._engine.plan import Plan

COARSEST = 1 / 16
MOST_BINS = 16384
# Bins of all channels together.
MOST_ROWS = 2**18
# Bins are made narrower by so much more than the error found asks for.
MARGIN = 1.03
# How far inside, relative to the bin, and to the place: a formula rounds on its own way to where it bends.
HAIR = 1e-6
FLOAT_HAIR = 1.01 * torch.finfo(torch.float32).eps
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


class Points(NamedTuple):
    """Where a formula is evaluated on a grid.

    Attributes:
        places: `(bins, 4)`, a hair inside each bin, so that a kink at a node has its own slope on either side.
        ends: `(bins, 2)`, the first and the last of them.
        offsets: `(bins, 4)` by how much they are off from `PLACES` in the bin.
        distances: `(bins,)`, the largest distance of each bin from zero.
    """

    places: Tensor
    ends: Tensor
    offsets: Tensor
    distances: Tensor


@lru_cache(maxsize=128)
def points_of(grid: Grid, device: torch.device) -> Points:
    """Return where the formula is evaluated on a grid, float32 on a device."""
    kind: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    steps = torch.arange(grid.first, grid.first + grid.bins, **kind)
    exact = grid.origin + grid.step * (steps[:, None] + torch.tensor(PLACES, **kind))
    inward = torch.tensor([1.0, 0.0, 0.0, -1.0], **kind)
    places = (exact + inward * (HAIR * grid.step + FLOAT_HAIR * exact.abs())).float()
    parts = (places, places[:, ::3].contiguous(), (places - exact).float(), places.abs().amax(-1))
    return Points(*(part.to(device) for part in parts))


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
        weights = torch.matmul(moments, constant(_TO_WEIGHTS, moments.device)).flatten(1)
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
    channels = 1 if leaves is None else leaves.shape[1]
    most = max(1, min(MOST_BINS, MOST_ROWS // channels) // coarsest.bins)
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
    where = points_of(grid, device)
    points = where.places.flatten().expand(channels, -1).contiguous()
    ends = where.ends.flatten().expand(channels, -1).contiguous()
    values = values_at(plan, ends, leaves).view(channels, *where.ends.shape)
    slopes = slopes_at(plan, points, leaves).view(channels, *where.places.shape)
    found = fit(values, slopes, where.offsets, where.distances, grid.step)
    table = Table(grid, found.rows, points, found.value_error, found.slope_error, accurate=found.excess <= 1)
    # Nothing gets finite by a finer grid.
    return table, found.excess if math.isfinite(found.excess) else 1.0
