"""Where a formula is evaluated for its table: in bins of one width, and in the parts of those that need to be finer.

Each bin is divided into its own number of equal cells. The rows of a table are those of all bins, then those of the
cells, bin after bin; the row of a divided bin is not used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._engine.fit import BETTER, STILL_BETTER, TINY, native

if TYPE_CHECKING:
    from softknee._engine.fit import Fit
    from softknee._engine.grid import Grid

# Of a bin, where the formula is evaluated.
PLACES = (0.0, 0.25, 0.5, 1.0)
# How far inside, relative to the bin, and to the place: a formula rounds on its own way to where it bends.
HAIR = 1e-6
FLOAT_HAIR = 1.01 * torch.finfo(torch.float32).eps
# An entry holds the number of parts of a bin, then its first row.
ROW_BITS = 20
ROW_MASK = 2**ROW_BITS - 1
MOST_PARTS = 2**11 - 1
# A cell has no fewer numbers in it, so that its places differ: its width relative to its distance from zero.
FEWEST_NUMBERS = 16 * torch.finfo(torch.float32).eps
# Bins are made narrower by so much more than the error found asks for, and the more where that did not suffice.
MARGIN, LARGER_MARGIN = 1.03, 1.15
# Fewer parts are tried one after the other, in this ratio.
CAPPED, FEWEST_PARTS = 0.8, 2.0


class Points(NamedTuple):
    """Where a formula is evaluated on a grid, for each channel or, with one, for all.

    Attributes:
        places: `(channels, bins, 4)`, a hair inside each bin, so that a kink at a node has a slope on either side.
        ends: `(channels, bins, 2)`, the first and the last of them.
        offsets: `(channels, bins, 4)` by how much they are off from `PLACES` in the bin.
        distances: `(channels, bins)`, the largest distance of each bin from zero, no less than the width of whole ones.
        steps: `(channels, bins)` widths.
    """

    places: Tensor
    ends: Tensor
    offsets: Tensor
    distances: Tensor
    steps: Tensor


@lru_cache(maxsize=128)
def points_of(grid: Grid, device: torch.device) -> Points:
    """Return where a formula is evaluated in the bins of a grid, float32 on a device."""
    steps = torch.arange(grid.first, grid.first + grid.bins, dtype=torch.float64, device="cpu")
    widths = torch.full_like(steps, grid.step)
    points = _points(grid.origin + grid.step * steps[None], widths[None], grid.step)
    return Points(*(part.to(device) for part in points))


def _points(left: Tensor, widths: Tensor, step: float) -> Points:
    """Return points in bins, or in cells of bins of width `step`, from some places on, float64."""
    kind: dict[str, Any] = {"dtype": torch.float64, "device": left.device}
    exact = left[..., None] + widths[..., None] * torch.tensor(PLACES, **kind)
    inward = torch.tensor([1.0, 0.0, 0.0, -1.0], **kind)
    places = (exact + inward * (HAIR * widths[..., None] + FLOAT_HAIR * exact.abs())).float()
    ends = places[..., ::3].contiguous()
    # Where a place is in its bin is rounded too.
    distances = places.abs().amax(-1).clamp(min=step)
    return Points(places, ends, (places - exact).float(), distances, widths.float())


class Division(NamedTuple):
    """How the bins of a grid are divided.

    Attributes:
        grid: The grid.
        parts: `(channels, bins)` int32, how many cells each bin is divided into; 1 where it stays whole.
        longest: Cells of the channel that has most.
        value_error: No value errs by more in bins that stay whole.
        slope_error: Nor does a slope.
    """

    grid: Grid
    parts: Tensor
    longest: int
    value_error: float
    slope_error: float

    def capped(self, room: int) -> Division:
        """Return the division where channels with more cells than that have fewer parts of the bins that have most."""
        parts, longest, most = self.parts, self.longest, float(MOST_PARTS)
        # A divided bin stays divided, for nobody looks at the errors of whole ones again.
        while longest > room and most > FEWEST_PARTS:
            most = max(FEWEST_PARTS, most * CAPPED)
            over = (_lengths(parts) > room)[:, None]
            parts = torch.where(over, parts.clamp(max=int(most)), parts)
            longest = int(_lengths(parts).amax())
        return self._replace(parts=parts, longest=longest)

    def cells(self) -> tuple[Tensor, Points]:
        """Return the entries for looking up rows, `(channels, bins)` int32, and where cells are evaluated."""
        library, (channels, bins), grid = native(self.parts.device), self.parts.shape, self.grid
        if library is None:
            return _cells_in_torch(self)
        shape = (channels, self.longest)
        entries = torch.empty_like(self.parts)
        places, offsets = (torch.empty(*shape, 4, device="cpu", dtype=torch.float32) for _ in range(2))
        ends = torch.empty(*shape, 2, device="cpu", dtype=torch.float32)
        distances, steps = (torch.empty(shape, device="cpu", dtype=torch.float32) for _ in range(2))
        points = Points(places, ends, offsets, distances, steps)
        where = (grid.origin, grid.step, grid.first, HAIR, FLOAT_HAIR)
        written = (part.data_ptr() for part in (entries, *points))
        library.sk_cells(self.parts.data_ptr(), channels, bins, self.longest, *where, *written)
        return entries, points

    def finer(self, errors: Tensor) -> Division:
        """Return the division with more parts of bins whose cells, `(channels, longest, 4)` errors, err too much."""
        library = native(self.parts.device)
        if library is None:
            parts = _finer_in_torch(self, errors)
            return self._replace(parts=parts, longest=int(_lengths(parts).amax()))
        parts, grid = self.parts.clone(), self.grid
        longest = library.sk_divide_again(
            errors.data_ptr(), *parts.shape, self.longest, LARGER_MARGIN, *_limits(grid, STILL_BETTER), parts.data_ptr()
        )
        return self._replace(parts=parts, longest=longest)


def division_for(grid: Grid, found: Fit) -> Division:
    """Divide bins by their errors.

    Args:
        grid: Of the bins.
        found: Cubics on them.

    Returns:
        The division; a channel may have any number of cells.
    """
    errors = found.errors
    library = native(errors.device)
    if library is None:
        return _divide_in_torch(grid, errors)
    parts = torch.empty(errors.shape[:2], dtype=torch.int32, device="cpu")
    whole = torch.empty(2, dtype=torch.float32, device="cpu")
    longest = library.sk_divide(
        errors.data_ptr(), *parts.shape, MARGIN, *_limits(grid, BETTER), parts.data_ptr(), whole.data_ptr()
    )
    return Division(grid, parts, longest, *whole.tolist())


def _limits(grid: Grid, better: float) -> tuple[float, float, float, int, int, float]:
    return better, grid.origin, grid.step, grid.first, MOST_PARTS, FEWEST_NUMBERS


def _lengths(parts: Tensor) -> Tensor:
    """Return how many cells each channel has."""
    return torch.where(parts > 1, parts, 0).sum(1)


def _needed(grid: Grid, parts: Tensor, errors: Tensor, margin: float) -> Tensor:
    """Return how many parts suffice where so many err by that much, `(..., 2)` smooth and not."""
    steps = torch.arange(grid.bins + 1, dtype=torch.float64, device=parts.device)
    nodes = grid.origin + grid.step * (grid.first + steps)
    sizes = torch.maximum(nodes[1:].abs(), nodes[:-1].abs())
    limit = (grid.step / (FEWEST_NUMBERS * sizes + TINY)).clamp(1, MOST_PARTS).floor()
    smooth, joined = errors.clamp(min=1).unbind(-1)
    wanted = torch.minimum((parts * margin * torch.maximum(smooth ** (1 / 3), joined.sqrt())).ceil(), limit)
    return torch.where((errors > 1).any(-1), torch.maximum(wanted.to(torch.int32), parts), parts)


def _divide_in_torch(grid: Grid, errors: Tensor) -> Division:
    smooth, joined = errors[..., 2:].unbind(-1)
    near = torch.maximum(F.pad(smooth, (1, 0))[:, :-1], F.pad(smooth, (0, 1))[:, 1:])
    excess = torch.stack((torch.maximum(smooth, near / 2), BETTER * joined), -1)
    parts = _needed(grid, torch.ones_like(smooth, dtype=torch.int32), excess, MARGIN)
    whole = (errors[..., :2] * (parts == 1)[..., None]).flatten(0, 1).amax(0)
    return Division(grid, parts, int(_lengths(parts).amax()), *whole.tolist())


def _owners(division: Division) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bins of `(channels, longest)` cells, their numbers within those, and the first cell of each bin.

    Where a channel has fewer cells, the last comes again; where it has none, the number of bins stands for a bin.
    """
    parts = division.parts
    lengths = torch.where(parts > 1, parts, 0)
    after = lengths.cumsum(1)
    cells = torch.arange(division.longest, device=parts.device).expand(len(parts), -1)
    cells = torch.minimum(cells, (after[:, -1:] - 1).clamp(min=0)).contiguous()
    owners, first = torch.searchsorted(after, cells, right=True), after - lengths
    return owners, cells - F.pad(first, (0, 1)).gather(1, owners), first


def _cells_in_torch(division: Division) -> tuple[Tensor, Points]:
    grid, parts = division.grid, division.parts
    channels, bins = parts.shape
    owners, cells, first = _owners(division)
    counts = F.pad(parts, (0, 1), value=1).gather(1, owners).double()
    places = torch.where(owners < bins, owners + cells / counts, 0.0)
    points = _points(grid.origin + grid.step * (grid.first + places), grid.step / counts, grid.step)
    rows = torch.where(parts > 1, bins + first, torch.arange(bins, device=parts.device))
    rows = rows + torch.arange(channels, device=parts.device)[:, None] * (bins + division.longest)
    return (parts << ROW_BITS) | rows.to(torch.int32), points


def _finer_in_torch(division: Division, errors: Tensor) -> Tensor:
    parts = division.parts
    owners = _owners(division)[0][..., None].expand(-1, -1, 2)
    worst = torch.zeros(len(parts), parts.shape[1] + 1, 2, dtype=errors.dtype, device=parts.device)
    smooth, joined = worst.scatter_reduce(1, owners, errors[..., 2:], "amax")[:, :-1].unbind(-1)
    excess = torch.stack((smooth, torch.where(joined > 1, STILL_BETTER * joined, 0)), -1)
    return _needed(division.grid, parts, excess, LARGER_MARGIN)
