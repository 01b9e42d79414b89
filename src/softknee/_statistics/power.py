"""How many seeds it takes to find a difference, from the spread that was measured.

The test is the one of `softknee._statistics.intervals`: it rejects where a difference exceeds
`sqrt((t * seed error)^2 + (z * example error)^2)`. More seeds shrink the seed error alone; the same test examples stay.
The power is the exact expectation over the measured seed error, whose square is a scaled chi-squared variable
independent of the mean. With no example error it is the noncentral t distribution's (Cohen 1988, chapter 2), computed
without it: SciPy's `nct` is not a number for some large effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._statistics.decisions import LEVEL
from softknee._statistics.variance import components, unpaired_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

POWER = 0.8
# Of the upper confidence limit of a spread (Browne 1995, Statistics in Medicine 14, 1933-1940).
CAUTION = 0.8
MOST_SEEDS = 1_000_000
# Nodes of the integral over the measured seed error; the noncentral t distribution is met to 4e-6.
NODES = 128


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds for each activation with which a difference would be found, from measured runs.

    Attributes:
        seeds: With the spread as measured; None where no number of seeds suffices.
        cautious: With the upper 80 % confidence limit of the spread, which a few seeds hardly know.
        sd: Standard deviation over seeds that was measured: of paired differences, or of single runs.
        example_error: Standard error of the difference through the choice of test examples, which stays.
        smallest: Difference that infinitely many seeds would find as often as wanted, on these test examples.
    """

    seeds: int | None
    cautious: int | None
    sd: float
    example_error: float
    smallest: float


def power(
    difference: float, *, seeds: int, sd: float, paired: bool, example_error: float = 0.0, level: float = LEVEL
) -> float:
    """Probability that the two-sided t test over seeds finds a true difference.

    Args:
        difference: True difference of the means; its sign does not matter.
        seeds: Of each activation, at least 2.
        sd: Standard deviation over seeds: of the paired differences, or of single runs where `paired` is false.
        paired: Whether seeds pair.
        example_error: Standard error of the difference through test examples, the same for any number of seeds.
        level: Of the test.

    Returns:
        The probability, in [0, 1].

    Raises:
        UsageError: A number is outside its range.
    """
    _check(sd=sd, example_error=example_error)
    _check_share(level=level)
    if seeds < 2:
        raise UsageError(f"seeds is {seeds}; it must be at least 2")
    special = require("scipy.special", extra="bench")
    sides = 1 if paired else 2
    freedom, variance = sides * (seeds - 1), sides * sd**2 / seeds
    spread = np.hypot(np.sqrt(variance), example_error)
    if spread == 0:
        return 1.0 if difference else 0.0
    nodes, weights = _rule()
    measured = variance * 2 * special.gammaincinv(freedom / 2, (nodes + 1) / 2) / freedom
    t, z = -special.stdtrit(freedom, level / 2), -special.ndtri(level / 2)
    reach = np.sqrt(t**2 * measured + (z * example_error) ** 2)
    found = special.ndtr((difference - reach) / spread) + special.ndtr((-difference - reach) / spread)
    return float(weights @ found / 2)


def seeds_needed(
    difference: float,
    *,
    sd: float,
    paired: bool,
    example_error: float = 0.0,
    wanted: float = POWER,
    level: float = LEVEL,
) -> int | None:
    """Fewest seeds of each activation with which a true difference is found as often as wanted.

    Args:
        difference: True difference of the means, positive.
        sd: Standard deviation over seeds: of the paired differences, or of single runs where `paired` is false.
        paired: Whether seeds pair.
        example_error: Standard error of the difference through test examples, the same for any number of seeds.
        wanted: Power, between 0 and 1.
        level: Of the test.

    Returns:
        The number, at least 2; None where the test examples are too few for any, or it would be above a million.

    Raises:
        UsageError: A number is outside its range.
    """
    if difference <= 0:
        raise UsageError(f"difference is {difference}; it must be positive")
    _check(sd=sd, example_error=example_error)
    _check_share(wanted=wanted, level=level)

    def enough(seeds: int) -> bool:
        found = power(difference, seeds=seeds, sd=sd, paired=paired, example_error=example_error, level=level)
        return found >= wanted

    if enough(2):
        return 2
    low, high = 2, 4
    while not enough(high):
        if high > MOST_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def measured_seeds_needed(
    first: NDArray[Any], second: NDArray[Any], *, difference: float, paired: bool, wanted: float = POWER
) -> SeedsNeeded:
    """Seeds needed to find a difference between two activations, from runs of both.

    The difference is one that matters, such as the margin of the study. The measured one must not be put in: whether it
    is real is the question.

    Args:
        first: `(n, m)`, one row a seed, one column a test example, any numeric or boolean dtype.
        second: `(k, m)`; `k = n` where `paired`.
        difference: To be found, positive, in the unit of the scores.
        paired: Whether seeds pair.
        wanted: Power, between 0 and 1.

    Returns:
        The numbers of seeds and what they rest on.

    Raises:
        UsageError: The shapes do not fit together, or a number is outside its range.
    """
    if paired and first.shape != second.shape:
        raise UsageError(f"paired scores have shapes {first.shape} and {second.shape}; they must be the same")
    if paired:
        parts = components(first.astype(np.float64) - second.astype(np.float64))
        variance = parts.seeds * parts.rows
        freedom: float = parts.freedom
    else:
        parts = unpaired_components(first, second)
        sides = components(first), components(second)
        variance = sum(side.seeds * side.rows for side in sides) / 2
        freedom = sum(side.freedom for side in sides)
    special = require("scipy.special", extra="bench")
    sd, example_error = float(np.sqrt(variance)), float(np.sqrt(parts.examples))
    upper = sd * float(np.sqrt(freedom / (2 * special.gammaincinv(freedom / 2, 1 - CAUTION))))
    found, cautious = (
        seeds_needed(difference, sd=spread, paired=paired, example_error=example_error, wanted=wanted)
        for spread in (sd, upper)
    )
    return SeedsNeeded(
        seeds=found,
        cautious=cautious,
        sd=sd,
        example_error=example_error,
        smallest=float(example_error * (special.ndtri(wanted) - special.ndtri(LEVEL / 2))),
    )


@cache
def _rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(NODES)


def _check(**spreads: float) -> None:
    for name, value in spreads.items():
        if value < 0:
            raise UsageError(f"{name} is {value}; it must not be negative")


def _check_share(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value}; it must be between 0 and 1")
