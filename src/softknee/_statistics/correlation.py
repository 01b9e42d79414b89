"""Do two settings rank activations alike?"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, pi, sin, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._statistics.decisions import LEVEL
from softknee._statistics.ranks import check_rankable

if TYPE_CHECKING:
    from numpy.typing import NDArray

# With four, even the same order twice has p = 0.083.
FEWEST_ACTIVATIONS = 5
BISECTIONS = 50


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b between two rankings.

    Attributes:
        tau: From -1, the reverse order, to 1, the same order.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided p value against independent rankings, exact where there are few activations and no ties.
        activations: How many are ranked.
    """

    tau: float
    low: float
    high: float
    p: float
    activations: int


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> RankCorrelation:
    """Kendall's tau-b between the scores of the same activations in two settings, with an interval.

    The activations are taken as a sample of those that might be compared. The interval holds the true values that lie
    within 1.96 standard errors, each with its own error: the exact one of jointly normal scores (Esscher 1924,
    Skandinavisk Aktuarietidskrift 7, 201-219). So it has a width for perfect agreement too, where Fieller's has none.
    It is about the scores as measured: noise between seeds brings tau closer to zero than it is between true means.

    Args:
        first: `(k,)` mean scores in one setting, higher is better; `-inf` for an activation that diverged.
        second: `(k,)` in the other, the same activations in the same order.

    Returns:
        The correlation and its interval.

    Raises:
        UsageError: The shapes differ, there are fewer than five activations, a score is NaN, or all are equal.
    """
    if first.ndim != 1 or first.shape != second.shape or len(first) < FEWEST_ACTIVATIONS:
        raise UsageError(
            f"scores have shapes {first.shape} and {second.shape}; "
            f"they must be of the same activations, at least {FEWEST_ACTIVATIONS}"
        )
    check_rankable(first, second)
    if any(bool(np.all(side == side[0])) for side in (first, second)):
        raise UsageError("all activations have the same score in a setting, which therefore does not rank them")
    stats = require("scipy.stats", extra="bench")
    found = stats.kendalltau(first, second)
    tau, count = float(found.statistic), len(first)
    reach = float(stats.norm.isf(LEVEL / 2))
    low, high = (_farthest(tau, end, reach, count) for end in (-1.0, 1.0))
    return RankCorrelation(tau, low, high, float(found.pvalue), count)


def _farthest(tau: float, end: float, reach: float, count: int) -> float:
    """Return the value nearest to `end` whose standard error, `reach` times, still reaches back to `tau`."""
    inside, outside = tau, end
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        if abs(middle - tau) <= reach * _error(middle, count):
            inside = middle
        else:
            outside = middle
    return inside


def _error(tau: float, count: int) -> float:
    """Return the standard error of Kendall's tau of `count` jointly normal pairs whose true one is `tau`."""
    triples = 1 / 9 - (2 / pi * asin(sin(pi * tau / 2) / 2)) ** 2
    # At the ends both terms are 0, or below it by rounding.
    return sqrt(max(2 / (count * (count - 1)) * (1 - tau**2 + 2 * (count - 2) * triples), 0.0))
