"""What is kept of an activation: sums, extremes and counts for each unit, which add up over batches and processes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from softknee._diagnose.units.histogram import EDGES, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A slope below this share of the steepest one belongs to a saturated value.
FLAT = 0.01
# Up to so many numbers are summed in their own dtype, and up to so many ones are counted exactly in float32.
_FEW, _EXACT = 1024, 2**24
# The bin that zero is in.
_ZERO = 1 + EDGES.index(0.0)
# Those of which the largest counts; smallest ones are kept as largest negative ones.
_EXTREMES = frozenset({"z_edges", "h_edges", "slope_edges"})
SHIFTS = ("z_shift", "h_shift")
_WHOLE = frozenset({"z_bad", "h_counts", "slope_counts", "grad_zero", "cells"})


@dataclass
class Sums:
    """The state of a site. Memory is a few numbers for each unit, on the device of the values until `packed`.

    Sums are float64 and of the distances from a shift near the mean, so that small deviations from a large mean are not
    lost; counts are int64.

    Attributes:
        n: Outputs seen of each unit.
        inputs: Inputs seen of each unit of the input, which may be others where an activation changes the shape.
        slopes: Slopes seen of each unit.
        gradients: Gradients seen of each unit.
        flat: Calls without slopes.
        parts: By name, rows of units. `z_shift`, `h_shift`: what is subtracted. `z_sums`: powers 1 to 4 of z;
            `h_sums`: h, its square, and |h|; `zh`. `z_edges`, `h_edges`, `slope_edges`: largest of -x and of x.
            `z_bad`: not finite; `h_counts`: not finite, and exactly 0; `slope_counts`: exactly 0, and below `FLAT` of
            the steepest. `grad_sums`: |g| and its square; `grad_zero`: exactly 0. `cells`: of the histogram of z.
    """

    n: int = 0
    inputs: int = 0
    slopes: int = 0
    gradients: int = 0
    flat: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Number of units of the output."""
        return self.parts["h_sums"].shape[1] if "h_sums" in self.parts else 0

    def add(self, z: Tensor, h: Tensor, owner: Tensor | None = None, sites: int = 1, *, finite: bool = False) -> None:
        """Take in inputs and outputs.

        Args:
            z: `(outer, units, inner)`, float32 or float64.
            h: The same; its number of units may be another.
            owner: Of several sites side by side, for each unit of the input the index of its site.
            sites: How many there are; each has a histogram.
            finite: Whether all values are known to be finite, which saves the search for those that are not.
        """
        self.n += h.shape[0] * h.shape[2]
        self.inputs += z.shape[0] * z.shape[2]
        zc, z_bad = self._centred("z_shift", z, finite=finite)
        hc, h_bad = self._centred("h_shift", h, finite=finite)
        square = zc * zc
        self._add("z_sums", _sums(zc, square, square * zc, square * square))
        self._add("z_bad", z_bad)
        self._add("z_edges", _edges(z, finite=finite))
        self._add("h_sums", _sums(hc, hc * hc, _cleaned(h.abs(), finite=finite)))
        self._add("h_counts", torch.cat([h_bad, _counts(_equal(h, 0.0))]))
        self._add("h_edges", _edges(h, finite=finite))
        if z.shape == h.shape:
            self._add("zh", _sums(zc * hc))
        cells = counted(_cleaned(z, finite=finite), None if owner is None else owner[:, None], sites)
        if not finite:
            # What was not finite was counted as zero.
            cells[:, _ZERO].index_add_(0, torch.zeros_like(z_bad[0]) if owner is None else owner, z_bad[0], alpha=-1)
        self._add("cells", cells)

    def add_slopes(self, slopes: Tensor | None, steepest: Tensor | None) -> None:
        """Take in slopes.

        Args:
            slopes: `(outer, units, inner)`; None where outputs have none.
            steepest: Largest absolute slope of the function, to be broadcast.
        """
        if slopes is None or steepest is None:
            self.flat += 1
            return
        self.slopes += slopes.shape[0] * slopes.shape[2]
        low = torch.lt(slopes.abs(), FLAT * steepest, out=torch.empty_like(slopes))
        self._add("slope_counts", _counts(_equal(slopes, 0.0), low))
        self._add("slope_edges", _edges(slopes))

    def add_gradient(self, g: Tensor) -> None:
        """Take in derivatives of the loss by outputs, `(outer, units, inner)`."""
        self.gradients += g.shape[0] * g.shape[2]
        size = _cleaned(g.abs())
        self._add("grad_sums", _sums(size, size * size))
        self._add("grad_zero", _counts(_equal(g, 0.0)))

    def _centred(self, name: str, x: Tensor, *, finite: bool) -> tuple[Tensor, Tensor]:
        """Return values without their shift, those that are not finite as 0, and how many these are of each unit."""
        count = x.shape[0] * x.shape[2]
        if name not in self.parts:
            clean = _cleaned(x, finite=finite)
            good = count if finite else (count - _counts(_unequal(clean, x))).clamp_(min=1)
            # A number of the dtype of the values, so that the differences are exact.
            self.parts[name] = (_sums(clean) / good).to(x.dtype).double()
        moved = x - self.parts[name].to(x.dtype)[0, :, None]
        if finite:
            return moved, torch.zeros((1, x.shape[1]), dtype=torch.int64, device=x.device)
        centred = _cleaned(moved)
        return centred, _counts(_unequal(centred, moved))

    def _add(self, name: str, value: Tensor) -> None:
        held = self.parts.get(name)
        if held is None:
            self.parts[name] = value
        elif name in _EXTREMES:
            torch.maximum(held, value, out=held)
        else:
            held += value

    def packed(self) -> Packed:
        """Return all numbers as one vector, for one transfer; what is added later does not change it."""
        names = tuple(sorted(self.parts))
        wide = [self.parts[name] for name in names if name not in _WHOLE]
        whole = [self.parts[name] for name in names if name in _WHOLE]
        vector = torch.cat([*(one.view(torch.int64).flatten() for one in wide), *(one.flatten() for one in whole)])
        order = (*(name for name in names if name not in _WHOLE), *(name for name in names if name in _WHOLE))
        shapes = tuple((name, *self.parts[name].shape) for name in order)
        return Packed(_host_counts(self), shapes, vector)

    def __add__(self, other: Sums) -> Sums:
        return merged([self, other])


@dataclass(frozen=True)
class Packed:
    """Sums as one vector.

    Attributes:
        counts: `n`, `inputs`, `slopes`, `gradients` and `flat` of `Sums`.
        shapes: Names and shapes of the parts in order.
        vector: int64; floating-point numbers by their bits.
    """

    counts: tuple[int, int, int, int, int]
    shapes: tuple[tuple[str, int, int], ...]
    vector: Tensor

    def sums(self) -> Sums:
        """Return what was packed, on the device of the vector."""
        parts: dict[str, Tensor] = {}
        start = 0
        for name, rows, columns in self.shapes:
            values = self.vector[start : start + rows * columns].reshape(rows, columns)
            parts[name] = values.clone() if name in _WHOLE else values.view(torch.float64).clone()
            start += rows * columns
        return Sums(*self.counts, parts)


def fetched(packs: Sequence[Packed]) -> list[Packed]:
    """Return packed sums in the memory of the CPU, after one transfer for each device."""
    found: list[Packed] = list(packs)
    for device in {one.vector.device for one in packs}:
        here = [index for index, one in enumerate(packs) if one.vector.device == device]
        vectors = torch.cat([packs[index].vector for index in here]).cpu()
        lengths = [len(packs[index].vector) for index in here]
        for index, vector in zip(here, vectors.split(lengths), strict=True):
            found[index] = Packed(packs[index].counts, packs[index].shapes, vector)
    return found


def merged(several: Sequence[Sums]) -> Sums:
    """Return the sums of all values that several have seen, of as many units each and on one device."""
    if len(several) == 1:
        return several[0]
    result = Sums(*(sum(counts) for counts in zip(*map(_host_counts, several), strict=True)))
    for name in dict.fromkeys(name for one in several for name in one.parts):
        rows = torch.stack([one.parts[name] for one in several if name in one.parts])
        if name in _EXTREMES:
            result.parts[name] = rows.amax(0)
        elif name in SHIFTS:
            result.parts[name] = rows[0]
        elif name not in {"z_sums", "h_sums", "zh"}:
            result.parts[name] = rows.sum(0)
    _merge_moments(result, several)
    return result


def _merge_moments(result: Sums, several: Sequence[Sums]) -> None:
    """Add sums of powers of distances from different shifts up, as distances from the first of them."""
    z, dz = _moved(several, "z", [one.inputs for one in several], "z_bad")
    h, dh = _moved(several, "h", [one.n for one in several], "h_counts")
    result.parts["z_sums"], result.parts["h_sums"] = z, h
    if all("zh" in one.parts for one in several):
        zh, zs, hs = (torch.stack([one.parts[name][0] for one in several]) for name in ("zh", "z_sums", "h_sums"))
        n = torch.tensor([[one.n] for one in several], device=zh.device)
        result.parts["zh"] = (zh + dz * hs + dh * zs + n * dz * dh).sum(0)[None]


def _moved(several: Sequence[Sums], side: str, counts: list[int], bad: str) -> tuple[Tensor, Tensor]:
    """Return added sums about the first shift, and how far from it each shift lies.

    Args:
        several: All sums.
        side: `"z"` or `"h"`.
        counts: Values seen of each unit.
        bad: Where those that are not finite are counted.
    """
    rows = torch.stack([one.parts[f"{side}_sums"] for one in several])
    shifts = torch.stack([one.parts[f"{side}_shift"][0] for one in several])
    good = torch.tensor(counts, device=rows.device)[:, None] - torch.stack([one.parts[bad][0] for one in several])
    d = shifts - shifts[0]
    first, second, third = rows[:, 0], rows[:, 1], rows[:, 2]
    parts = [first + good * d, second + 2 * d * first + good * d**2]
    if side == "h":
        # The third is the sum of |h|, which knows no shift.
        return torch.stack([part.sum(0) for part in (*parts, third)]), d
    parts += [
        third + 3 * d * second + 3 * d**2 * first + good * d**3,
        rows[:, 3] + 4 * d * third + 6 * d**2 * second + 4 * d**3 * first + good * d**4,
    ]
    return torch.stack([part.sum(0) for part in parts]), d


def gathered(sums: Mapping[str, Sums]) -> dict[str, Sums]:
    """Merge what all processes have seen; all must call it, and all receive the result.

    Args:
        sums: By site, in the memory of the CPU.

    Returns:
        The same sites and those of other processes; what is given, if there is one process.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return dict(sums)
    everyone: list[dict[str, Packed]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everyone, {name: one.packed() for name, one in sums.items()})
    found: dict[str, list[Sums]] = {}
    for one in everyone:
        for name, packed in one.items():
            found.setdefault(name, []).append(packed.sums())
    # Of other numbers of units, which a site has where processes see other shapes, the first process counts.
    return {name: merged([one for one in parts if one.units == parts[0].units]) for name, parts in found.items()}


def by_unit(x: Tensor, axis: int | None) -> Tensor:
    """Return values as `(outer, units, inner)`.

    Args:
        x: Any shape.
        axis: Dimension of the units; None if all values are of one.
    """
    if axis is None:
        return x.reshape(-1, 1, 1)
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)


def wide(x: Tensor) -> Tensor:
    """Return values as float32 or float64."""
    # Not all devices have float64, which the sums are.
    here = x.cpu() if x.device.type == "mps" else x
    return here if here.dtype == torch.float64 else here.float()


def _host_counts(one: Sums) -> tuple[int, int, int, int, int]:
    return one.n, one.inputs, one.slopes, one.gradients, one.flat


def _sums(*several: Tensor) -> Tensor:
    """Return the sums of each unit, one row for each tensor, in float64."""
    outer, _, inner = several[0].shape
    # The sum of few numbers is as good in their own dtype.
    dtype = None if outer * inner <= _FEW else torch.float64
    return torch.stack([_over(x, dtype) for x in several]).double()


def _counts(*masks: Tensor) -> Tensor:
    """Return how many entries of each unit are 1 and not 0, one row for each mask."""
    outer, _, inner = masks[0].shape
    dtype = None if outer * inner <= _EXACT else torch.float64
    return torch.stack([_over(mask, dtype) for mask in masks]).long()


def _over(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x[..., 0].sum(0, dtype=dtype) if x.shape[2] == 1 else x.sum((0, 2), dtype=dtype)


def _equal(x: Tensor, value: float) -> Tensor:
    # Truth values as floating-point numbers: several times faster to make and to sum.
    return torch.eq(x, value, out=torch.empty_like(x))


def _unequal(x: Tensor, y: Tensor) -> Tensor:
    return torch.ne(x, y, out=torch.empty_like(x))


def _cleaned(x: Tensor, *, finite: bool = False) -> Tensor:
    return x if finite else x.nan_to_num(0.0, 0.0, 0.0)


def _edges(x: Tensor, *, finite: bool = False) -> Tensor:
    """Return the largest finite -x and x of each unit, minus infinity where there is none, in float64."""
    low, high = (x if finite else x.nan_to_num(end, end, end) for end in (math.inf, -math.inf))
    # One dimension after the other, and not `aminmax`: several times faster.
    return torch.stack([-low.amin(0).amin(-1), high.amax(0).amax(-1)]).double()
