"""Average ranks over several settings: Friedman's test and Nemenyi's critical difference (Demsar 2006, JMLR 7, 1-30).

Ranks compare settings whose scores have nothing in common but their order. They cost much: with the three settings of
the public benchmark, ten activations are told apart by ranks that differ by 7.8 of at most 9. And they depend on who
else takes part: another activation can change what is said about two others (Benavoli, Corani and Mangili 2016, JMLR
17(5), 1-10). Where scores are comparable, their differences with intervals say more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._statistics.decisions import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEWEST_SETTINGS = 5
PERMUTATIONS = 9_999
# Sums of squared ranks are multiples of 1/4, so this is rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Ranking:
    """Average ranks and what they show.

    Attributes:
        ranks: Average rank of each activation, in the order given; 1 is best, ties share the mean of their ranks.
        settings: Number of settings, `N`.
        chi2: Friedman's statistic, corrected for ties.
        f: Iman and Davenport's (1980), a monotone function of it; infinite where all settings agree.
        p: p value of both against "all activations are alike", by permutation.
        critical: Nemenyi's critical difference at the level 0.05: ranks that differ by less are not told apart.
        groups: Largest groups of activations that are not told apart, as indices by ascending rank; all activations
            where `p` is not below 0.05. One that belongs to no group differs from all others.
    """

    ranks: tuple[float, ...]
    settings: int
    chi2: float
    f: float
    p: float
    critical: float
    groups: tuple[tuple[int, ...], ...]


def friedman(scores: NDArray[Any], *, generator: np.random.Generator, permutations: int = PERMUTATIONS) -> Ranking:
    """Rank activations in each setting and test whether their average ranks differ.

    The p value comes from ranks permuted within settings, and so is exact for any number of settings and any ties. The
    distributions that are usual are not, in simulation, at few: at the level 0.05 and three activations in three
    settings, that of Iman and Davenport rejects 22 % of what is all alike; chi-squared rejects next to nothing in two.

    Args:
        scores: `(settings, activations)`, mean scores, higher is better; `-inf` ranks last, for one that diverged.
        generator: Draws the permutations.
        permutations: How many.

    Returns:
        Average ranks, the tests, and the groups not told apart.

    Raises:
        UsageError: There are fewer than two settings or three activations, or a score is NaN or positive infinity.
    """
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < 3:
        raise UsageError(f"scores have shape {scores.shape}; at least (2 settings, 3 activations) are needed")
    check_rankable(scores)
    stats = require("scipy.stats", extra="bench")
    settings, activations = scores.shape
    placed = stats.rankdata(-scores.astype(np.float64), axis=1)
    ranks = tuple(placed.mean(axis=0).tolist())
    chi2 = float(stats.friedmanchisquare(*placed.T).statistic) if np.ptp(placed) > 0 else 0.0
    left = settings * (activations - 1) - chi2
    f = (settings - 1) * chi2 / left if left > ROUNDING else inf
    p = _permuted(placed, generator, permutations)
    critical = critical_difference(activations, settings)
    groups = groups_within(ranks, critical) if p < LEVEL else (_by_rank(ranks),)
    return Ranking(ranks, settings, chi2, f, p, critical, groups)


def critical_difference(activations: int, settings: int, *, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of average ranks: `q sqrt(k (k + 1) / (6 N))`.

    Args:
        activations: `k`, at least 2.
        settings: `N`, at least 1.
        level: Chance of telling any two apart where all are alike, between 0 and 1.

    Returns:
        The difference, with `q` the upper quantile of the studentized range over the root of 2.

    Raises:
        UsageError: A number is outside its range.
    """
    if activations < 2 or settings < 1 or not 0 < level < 1:
        raise UsageError(
            f"activations, settings and level are {activations}, {settings} and {level}; "
            "they must be at least 2, at least 1 and between 0 and 1"
        )
    stats = require("scipy.stats", extra="bench")
    q = float(stats.studentized_range.ppf(1 - level, activations, inf)) / sqrt(2)
    return q * sqrt(activations * (activations + 1) / (6 * settings))


def groups_within(ranks: Sequence[float], critical: float) -> tuple[tuple[int, ...], ...]:
    """Largest groups of two or more whose ranks all lie within less than a critical difference.

    Args:
        ranks: Average ranks.
        critical: Difference from which on two are told apart.

    Returns:
        Groups of indices by ascending rank, ordered by their best; none lies within another.
    """
    order = _by_rank(ranks)
    groups = []
    last_end = 0
    for start in range(len(order)):
        end = start
        while end < len(order) and ranks[order[end]] - ranks[order[start]] < critical:
            end += 1
        if end > last_end and end - start >= 2:
            groups.append(order[start:end])
        last_end = max(last_end, end)
    return tuple(groups)


def settings_warning(ranking: Ranking) -> str | None:
    """Say how little a few settings can tell apart by ranks.

    Args:
        ranking: Of `friedman`.

    Returns:
        A sentence, or None from five settings on.
    """
    if ranking.settings >= FEWEST_SETTINGS:
        return None
    largest = len(ranking.ranks) - 1
    start = f"Ranks over {ranking.settings} settings tell little apart"
    if ranking.critical > largest:
        return (
            f"{start}: the critical difference of average ranks is {ranking.critical:.2f}, more than the largest "
            f"possible, {largest}."
        )
    return (
        f"{start}: average ranks must differ by {ranking.critical:.2f}, where {largest} is the largest possible "
        "difference; what is not told apart is not shown to be equal."
    )


def check_rankable(*scores: NDArray[Any]) -> None:
    """Refuse scores that have no rank.

    Args:
        *scores: Of any shape.

    Raises:
        UsageError: One is NaN or positive infinity.
    """
    if any(bool(np.any(np.isnan(found) | (found == inf))) for found in scores):
        raise UsageError("a score is NaN or infinite; give -inf for a run that diverged, which ranks below all others")


def _permuted(placed: NDArray[np.float64], generator: np.random.Generator, permutations: int) -> float:
    """Return the p value of the sum of squared rank sums, of which Friedman's statistic is a linear function."""
    observed = float(np.square(placed.sum(axis=0)).sum())
    sums = np.zeros((permutations, placed.shape[1]))
    for row in placed:
        sums += generator.permuted(np.broadcast_to(row, sums.shape), axis=1)
    as_far = np.square(sums).sum(axis=1) >= observed - ROUNDING
    return float((1 + np.count_nonzero(as_far)) / (1 + permutations))


def _by_rank(ranks: Sequence[float]) -> tuple[int, ...]:
    return tuple(sorted(range(len(ranks)), key=lambda index: (ranks[index], index)))
