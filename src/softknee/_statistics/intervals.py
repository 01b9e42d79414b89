"""Intervals and p values for mean scores and their differences, paired or not.

The half-width of an interval is `sqrt((t * seed error)^2 + (z * example error)^2)`: Student's t with one degree of
freedom less than there are seeds (Welch's where seeds do not pair) for the part that a handful of seeds estimates, and
practically the normal quantile for the part that thousands of examples estimate; the seed part is at least what the
noise of single predictions makes it. This is exact when either part dominates. The alternatives were simulated and
dropped: percentiles of the bootstrap cover far too rarely at three seeds, and t for the whole error makes intervals at
three seeds more than twice as wide as they need to be wherever the examples dominate.
`tests/statistics/test_coverage.py` measures the coverage. p values invert the same intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._statistics.variance import Components, components, unpaired_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
# p values are found by bisection on their logarithm, to a relative 1e-12; smaller ones are given as SMALLEST_TAIL.
BISECTIONS = 45
SMALLEST_TAIL = 1e-15


@dataclass(frozen=True)
class Estimate:
    """A mean score with its interval; everything in the unit of the scores.

    Attributes:
        mean: Mean over seeds and examples.
        low: Lower end of the interval.
        high: Upper end of the interval.
        seeds: Number of seeds it rests on.
    """

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval and tests; everything but the p values in the unit of the scores.

    Attributes:
        mean: Mean of first minus second.
        low: Lower end of the interval.
        high: Upper end of the interval.
        seeds: Number of pairs; where seeds do not pair, the smaller number of seeds.
        p: Two-sided p value against no difference, not adjusted.
        p_equivalence: p value of two one-sided tests against a difference of at least the margin, not adjusted.
    """

    mean: float
    low: float
    high: float
    seeds: int
    p: float
    p_equivalence: float


def mean_interval(scores: NDArray[Any]) -> Estimate:
    """Mean of scores with a 95 % interval over new seeds and new test examples.

    Args:
        scores: `(n, m)`, one row a seed, one column a test example, any numeric or boolean dtype.

    Returns:
        The mean and its interval, in the unit of `scores`.

    Raises:
        UsageError: There are fewer than two seeds or two examples.
    """
    parts = components(scores)
    reach = _reach(parts, (1 - CONFIDENCE) / 2)
    return Estimate(parts.mean, parts.mean - reach, parts.mean + reach, parts.rows)


def paired_difference(first: NDArray[Any], second: NDArray[Any], *, margin: float) -> Difference:
    """Mean difference of two score matrices, paired by seed and by test example.

    Args:
        first: `(n, m)`, any numeric dtype; row `i` of both has the same seed, column `j` the same example.
        second: Same shape.
        margin: Differences smaller than this do not matter; positive, in the unit of the scores.

    Returns:
        The difference `first - second`, its 95 % interval, and the p values of both questions.

    Raises:
        UsageError: The shapes differ or hold fewer than two seeds or examples, or `margin` is not positive.
    """
    if first.shape != second.shape:
        raise UsageError(f"paired scores have shapes {first.shape} and {second.shape}; they must be the same")
    _check(margin)
    return _difference(components(first.astype(np.float64) - second.astype(np.float64)), margin)


def unpaired_difference(first: NDArray[Any], second: NDArray[Any], *, margin: float) -> Difference:
    """Mean difference of two score matrices, paired by test example but not by seed.

    For runs that are not deterministic: there the same seed does not make the same choices, and pairs would only cost
    degrees of freedom. Without examples that differ it is Welch's t test.

    Args:
        first: `(n, m)`, any numeric or boolean dtype.
        second: `(k, m)`; column `j` of both is the same example.
        margin: Differences smaller than this do not matter; positive, in the unit of the scores.

    Returns:
        The difference of the means, its 95 % interval, and the p values of both questions.

    Raises:
        UsageError: A matrix holds fewer than two seeds or examples, they are not about the same number of examples, or
            `margin` is not positive.
    """
    _check(margin)
    return _difference(unpaired_components(first, second), margin)


def _check(margin: float) -> None:
    if margin <= 0:
        raise UsageError(f"margin is {margin}; it must be positive")


def _difference(parts: Components, margin: float) -> Difference:
    reach = _reach(parts, (1 - CONFIDENCE) / 2)
    return Difference(
        mean=parts.mean,
        low=parts.mean - reach,
        high=parts.mean + reach,
        seeds=parts.rows,
        p=min(2 * _tail(parts, abs(parts.mean)), 1.0),
        p_equivalence=_tail(parts, margin - abs(parts.mean)),
    )


def _reach(parts: Components, tail: float) -> float:
    """Half-width of the interval that leaves the probability `tail` on either side."""
    special = require("scipy.special", extra="bench")
    # Upper quantiles as negated lower ones: 1 - tail would round to 1 for tiny tails.
    t, z = -special.stdtrit(parts.freedom, tail), -special.stdtrit(parts.columns - 1, tail)
    # A handful of seeds can agree by chance to less than the noise of single predictions that is in them.
    return float(np.sqrt(max(t**2 * parts.seeds, z**2 * parts.noise) + z**2 * parts.examples))


def _tail(parts: Components, distance: float) -> float:
    """One-sided p value of a mean that lies `distance` on the far side of a hypothesis; above 1/2 if it is negative."""
    if distance < 0:
        return 1 - _tail(parts, -distance)
    if distance == 0:
        return 0.5
    low, high = np.log(SMALLEST_TAIL), np.log(0.5)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _reach(parts, float(np.exp(middle))) > distance:
            low = middle
        else:
            high = middle
    return float(np.exp(high))
