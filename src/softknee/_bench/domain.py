"""The space in which a generated task lies, and the points at which its pictures are drawn. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Domain:
    """An interval or a square, with an even grid that holds its ends.

    Attributes:
        axes: Names of its dimensions, one or two.
        low: Lower end of every axis.
        high: Upper end.
        points: Of an axis.
    """

    axes: tuple[str, ...]
    low: float
    high: float
    points: int

    @property
    def ticks(self) -> NDArray[np.float64]:
        """Positions along an axis: `(points,)`."""
        return np.linspace(self.low, self.high, self.points)

    def grid(self) -> NDArray[np.float64]:
        """Return the points as `(points ** axes, axes)`: the first axis runs fastest, as rows of a picture do."""
        axes = np.meshgrid(*[self.ticks] * len(self.axes), indexing="ij")
        return np.stack([axis.reshape(-1) for axis in reversed(axes)], axis=1)

    def described(self) -> dict[str, Any]:
        """Return what a report needs to know about it; plain data."""
        return {"axes": list(self.axes), "low": self.low, "high": self.high, "points": self.points}
