"""The table of any function of one number, on a grid that is the same for all, with its kinks kept as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from softknee._engine.division import FLOAT_HAIR, MOST_PARTS, division_for, points_of
from softknee._engine.fit import fit
from softknee._engine.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._engine.division import Division, Points
    from softknee._engine.fit import Fit, Scales

# Bins of 1/8 from -64 to 64, fitted in three parts: what is far away must not make the middle coarser.
STEP = 1 / 8
FAR, NEAR = 512, 64
GRID = Grid(0.0, STEP, -FAR, 2 * FAR)
# Where each begins, how many bins it has, and the most cells that these may be divided into.
ZONES = (
    (Grid(0.0, STEP, -FAR, FAR - NEAR), 512),
    (Grid(0.0, STEP, -NEAR, 2 * NEAR), 8192),
    (Grid(0.0, STEP, NEAR, FAR - NEAR), 512),
)
# How much more exact tables are than elsewhere: what is on the wrong side of a kink in a single step, after errors that
# add up, changes the course of a training. And the slope, relative to the largest value, that is no matter.
TIGHTER, FLAT = 8.0, 1e-3
# Excess of a bin from which on a kink is looked for in it; how near it is come to; and the least jump of the slope.
SUSPICIOUS, RADII, LEAST_JUMP = 10.0, (0.03, 4e-3, 1e-4, 1e-6), 1e-3
# A bin with a kink has no fewer cells.
FEWEST_PARTS = 32
# How far a node may be from the kink it stands for: much less than the narrowest cell.
ASIDE = STEP / MOST_PARTS / 16


class Kink(NamedTuple):
    """A place where the slope jumps.

    Attributes:
        bin: That it is in.
        place: Where.
        parts: Cells that the bin is divided into, at least, or a multiple of that, so that one begins there.
    """

    bin: int
    place: float
    parts: int


class OneTable(NamedTuple):
    """The table of one function on `GRID`.

    Attributes:
        entries: `(bins,)` int32, the parts of each bin and its first row, as in `Table`.
        rows: `(rows, 4)` coefficients.
    """

    entries: Tensor
    rows: Tensor


def tabulated(function: Callable[[Tensor], Tensor]) -> OneTable:
    """Return the table of a function.

    Args:
        function: From a tensor to one of the same shape, float64, under autograd.

    Returns:
        The table. Within 8 of zero, slopes err by about 1e-6 of the usual or their own, and values by 1e-6 at most of
        the largest, which is float32's doing; kinks are kept as they are, unless there are several in one bin, where
        the slope errs by up to its jump within 6e-5 of them. Further out, either side is compared with itself.
    """
    entries, rows, before = [], [], 0
    for grid, room in ZONES:
        own, coefficients = _zone(function, grid, room)
        entries.append(own + before)
        rows.append(coefficients)
        before += len(coefficients)
    return OneTable(torch.cat(entries), torch.cat(rows))


def _zone(function: Callable[[Tensor], Tensor], grid: Grid, room: int) -> tuple[Tensor, Tensor]:
    """Return entries and rows of one part of the grid."""
    whole = _fitted(function, points_of(grid, torch.device("cpu")))
    kinks = _kinks(function, grid, (whole.errors[0, :, 2] > SUSPICIOUS).nonzero()[:, 0])
    division, scales = _with_nodes_at(kinks, division_for(grid, whole)).capped(room), whole.scales
    while True:
        entries, where = division.cells()
        if not division.longest:
            return entries[0], whole.rows[0]
        cells = _fitted(function, _on_their_side(kinks, where), scales)
        finer = _with_nodes_at(kinks, division.finer(cells.errors))
        if cells.excess <= 1 or finer.longest > room or torch.equal(finer.parts, division.parts):
            return entries[0], torch.cat((whole.rows[0], cells.rows[0]))
        division, scales = finer, cells.scales


def _fitted(function: Callable[[Tensor], Tensor], where: Points, scales: Scales | None = None) -> Fit:
    """Return cubics, their excess over tolerances that are tighter, and relative to the usual slope."""
    y, slopes = _at(function, where.places.double())
    given = (y[..., ::3].float().contiguous(), slopes.float(), where, None)
    if scales is None:
        largest = fit(*given).scales
        usual = max(float(slopes.abs().mean()), FLAT * largest.value)
        scales = largest._replace(slope=min(largest.slope, usual))
    found = fit(*given, scales)
    errors = torch.cat((found.errors[..., :2], TIGHTER * found.errors[..., 2:]), -1)
    return found._replace(errors=errors, excess=TIGHTER * found.excess)


def _at(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and slopes."""
    with torch.enable_grad():
        x = x.requires_grad_()
        y = function(x)
        if not y.requires_grad:  # it is constant
            return y.expand_as(x), torch.zeros_like(x)
        (slopes,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slopes


def _kinks(function: Callable[[Tensor], Tensor], grid: Grid, bins: Tensor) -> list[Kink]:
    """Return the kinks that are alone in their bin.

    A kink is where the tangents on both sides meet, ever nearer to it. Among the fractions with denominators up to
    `MOST_PARTS`, one is so near to it that hardly any number in float32 is between them.
    """
    if not len(bins):
        return []
    centre, radius = grid.low + grid.step * (bins.double() + 0.5), grid.step / 2
    for narrower in RADII:
        (f, g), (s, t) = _at(function, torch.stack((centre - radius, centre + radius)))
        meet = centre + (g - f - radius * (s + t)) / (s - t)
        centre, radius = torch.where((meet - centre).abs() <= radius, meet, torch.nan), narrower
    _, (s, t) = _at(function, torch.stack((centre - radius, centre + radius)))
    found = (s - t).abs() > LEAST_JUMP * torch.maximum(s.abs(), t.abs()).clamp(min=1)
    bins, places = bins[found], centre[found]
    parts = torch.arange(FEWEST_PARTS, MOST_PARTS + 1, dtype=torch.float64)
    nodes = ((places[:, None] - grid.low) / grid.step - bins[:, None]) * parts
    off = (nodes - nodes.round()).abs() / parts * grid.step
    least = (off <= torch.maximum(off.amin(1), FLOAT_HAIR * places.abs())[:, None]).int().argmax(1) + FEWEST_PARTS
    return [Kink(*kink) for kink in zip(bins.tolist(), places.tolist(), least.tolist(), strict=True)]


def _with_nodes_at(kinks: Sequence[Kink], division: Division) -> Division:
    """Return the division with no fewer parts of each bin, and such as have a node at its kink."""
    if not kinks:
        return division
    parts = division.parts.clone()
    for kink in kinks:
        wanted = -(-int(parts[0, kink.bin]) // kink.parts)
        parts[0, kink.bin] = kink.parts * max(1, min(wanted, MOST_PARTS // kink.parts))
    return division._replace(parts=parts, longest=int(torch.where(parts > 1, parts, 0).sum()))


def _on_their_side(kinks: Sequence[Kink], where: Points) -> Points:
    """Return points of cells with none beyond a kink that a node of the cell stands for."""
    if not kinks:
        return where
    places = where.places.double()
    for kink in kinks:
        near, hair = (places - kink.place).abs() < ASIDE, FLOAT_HAIR * abs(kink.place)
        places[..., 0] = torch.where(near[..., 0], places[..., 0].clamp(min=kink.place + hair), places[..., 0])
        places[..., 3] = torch.where(near[..., 3], places[..., 3].clamp(max=kink.place - hair), places[..., 3])
    moved = places.float()
    offsets = where.offsets + (moved - where.places)
    return where._replace(places=moved, ends=moved[..., ::3].contiguous(), offsets=offsets)
