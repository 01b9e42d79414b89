"""Choosing learning rates: the same number of trials for every activation, wherever its best rate lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softknee._bench.protocol import Tuning


@dataclass
class RateSearch:
    """The rates tried so far for one activation and initialization.

    Attributes:
        tuning: Grid and number of trials.
        scores: Mean validation score by rate; minus infinity where a run diverged.
    """

    tuning: Tuning
    scores: dict[float, float] = field(default_factory=dict)

    def proposals(self) -> list[float]:
        """Return the rates to try next: first the whole grid, then one at a time, at the end none.

        A single proposal goes one grid step outward when the best rate so far is the smallest or largest tried, else
        between the best and the better of its two neighbours (geometric mean).
        """
        if not self.scores:
            return list(self.tuning.grid)
        if len(self.scores) >= self.tuning.trials:
            return []
        return [self._inward() if self.found and not self.at_edge else self._outward()]

    @property
    def best(self) -> float:
        """The rate with the highest score, the smallest of equals."""
        return max(sorted(self.scores), key=self.scores.__getitem__)

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the smallest or largest tried, so that a better one may lie beyond."""
        return self.found and self.best in {min(self.scores), max(self.scores)}

    @property
    def found(self) -> bool:
        """Whether any rate trained at all."""
        return self.scores[self.best] > -inf

    def _outward(self) -> float:
        grid = self.tuning.grid
        step = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1))
        return _rounded(self.best * step if self.best == max(self.scores) else self.best / step)

    def _inward(self) -> float:
        rates = sorted(self.scores)
        place = rates.index(self.best)
        neighbour = max(rates[place - 1], rates[place + 1], key=self.scores.__getitem__)
        return _rounded(sqrt(self.best * neighbour))


def _rounded(rate: float) -> float:
    """Round to two digits, so that a rate can be read, typed and compared."""
    return float(f"{rate:.2g}")
