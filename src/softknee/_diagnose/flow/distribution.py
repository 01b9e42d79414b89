"""How the elements of a tensor are distributed, in units of their own size: no scale is too small to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from softknee._report.plain import plain
from softknee._surgery.trace import unwrapped

if TYPE_CHECKING:
    from torch import Tensor

# In units of the root mean square: about even steps below NARROW, steps in proportion above, WIDEST at the end.
NARROW, WIDEST, BINS = 0.1, 30.0, 40
DIGITS = 5


def unit_edges() -> Tensor:
    """Return the edges of the bins in units of the root mean square, float64, symmetric, zero among them."""
    steps = torch.arange(1, BINS // 2 + 1, dtype=torch.float64) / (BINS // 2)
    positive = NARROW * torch.sinh(math.asinh(WIDEST / NARROW) * steps)
    return torch.cat([-positive.flip(0), torch.zeros(1, dtype=torch.float64), positive])


@dataclass(frozen=True)
class Distribution:
    """Of the elements of one or several tensors.

    Attributes:
        count: Number of elements; all else is of the finite ones, not a number where there are none.
        mean: Of the elements.
        std: Their standard deviation.
        min: The smallest.
        max: The largest.
        zero: Share that is exactly zero, of all elements.
        nonfinite: Share that is infinite or not a number, of all elements.
        scale: Root mean square.
        edges: Of the bins, in units of `scale`.
        counts: How many elements are below the first edge, between each two, and from the last on.
    """

    count: int
    mean: float
    std: float
    min: float
    max: float
    zero: float
    nonfinite: float
    scale: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain(vars(self))


@dataclass
class Counter:
    """Counts tensors in, one after the other. The first with a finite element that is not zero sets the bins."""

    total: int = 0
    finite: int = 0
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    # Mean of the finite elements, and their summed squared distance from it.
    mean: float = 0.0
    squares: float = 0.0
    unit: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS + 2, dtype=torch.int64))

    def add(self, x: Tensor) -> None:
        """Count the elements of a tensor in."""
        values = unwrapped(x.detach()).flatten()
        kept = values[values.isfinite()].double()
        self.total += values.numel()
        if not len(kept):
            return
        zeros = int((kept == 0).sum())
        variance, mean = (float(one) for one in torch.var_mean(kept, correction=0))
        before, self.finite = self.finite, self.finite + len(kept)
        distance = mean - self.mean
        self.squares += variance * len(kept) + distance**2 * len(kept) * (before / self.finite)
        self.mean += distance * len(kept) / self.finite
        self.low, self.high = min(self.low, float(kept.min())), max(self.high, float(kept.max()))
        self.zeros += zeros
        self.unit = self.unit or math.sqrt(variance + mean**2)
        # Zeros alone have no size; they lie in the bin that begins at zero, whatever the unit.
        places = torch.bucketize(kept / (self.unit or 1.0), unit_edges().to(kept.device), right=True)
        self.counts += torch.bincount(places, minlength=BINS + 2).cpu()

    def distribution(self) -> Distribution:
        """Return what was counted."""
        known, nothing = self.finite > 0, math.nan
        variance = self.squares / self.finite if known else nothing
        scale = math.sqrt(variance + self.mean**2) if known else nothing
        stretch = self.unit / scale if known and scale > 0 else 1.0
        edges = tuple(float(f"{edge:.{DIGITS}g}") for edge in (unit_edges() * stretch).tolist())
        return Distribution(
            count=self.total,
            mean=self.mean if known else nothing,
            std=math.sqrt(variance) if known else nothing,
            min=self.low if known else nothing,
            max=self.high if known else nothing,
            zero=self.zeros / self.total if self.total else nothing,
            nonfinite=1 - self.finite / self.total if self.total else nothing,
            scale=scale,
            edges=edges,
            counts=tuple(self.counts.tolist()),
        )


def distribution(x: Tensor) -> Distribution:
    """Return how the elements of a tensor are distributed.

    Args:
        x: Any shape and floating dtype.

    Returns:
        Statistics in float64, and counts in 42 bins whose width grows with the distance from zero, asinh-like.
    """
    counter = Counter()
    counter.add(x)
    return counter.distribution()
