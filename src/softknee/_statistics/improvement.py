"""Probability that a run of one activation scores higher than a run of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._statistics.intervals import CONFIDENCE
from softknee._statistics.ranks import check_rankable
from softknee._statistics.resampling import DRAWS, counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Improvement:
    """Probability of improvement with its interval.

    Attributes:
        probability: That a new run of the first scores higher than one of the second, in a setting drawn at random;
            ties count half. 1/2 where neither is better.
        low: Lower end of the 95 % interval.
        high: Upper end.
        settings: Number of settings.
        seeds: Fewest runs of either in a setting.
    """

    probability: float
    low: float
    high: float
    settings: int
    seeds: int


def probability_of_improvement(
    first: Sequence[NDArray[Any]],
    second: Sequence[NDArray[Any]],
    *,
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Improvement:
    """Probability of improvement (Agarwal et al. 2021, arXiv:2108.13264), the mean over settings of Mann and Whitney's.

    The interval is for new seeds in the same settings: runs are resampled within each setting (a stratified bootstrap)
    and percentiles are taken. Where every run of one beats all of the other, resampling changes nothing; then the
    interval is that of Clopper and Pearson (1934) for as many won games as there are disjoint pairs of runs. Simulated
    coverage of the nominal 95 % is 89 to 100 % at 3 seeds, 91 to 99 % at 10.

    It says how often, not by how much: where seeds vary little, a difference that does not matter has probability 1.

    Args:
        first: For each setting `(n,)` scores of runs, higher is better; `-inf` for runs that diverged.
        second: The same settings in the same order; numbers of runs may differ.
        generator: Draws the resamples.
        draws: Number of resamples.

    Returns:
        The probability and its interval.

    Raises:
        UsageError: The numbers of settings differ or are zero, a setting has no run, or a score is NaN.
    """
    if not first or len(first) != len(second):
        raise UsageError(f"there are {len(first)} and {len(second)} settings; both must have the same, at least one")
    if any(side.ndim != 1 or not side.size for side in (*first, *second)):
        shapes = [side.shape for side in (*first, *second)]
        raise UsageError(f"scores have shapes {shapes}; each setting needs a row of at least one run")
    check_rankable(*first, *second)
    wins = [_wins(ours, theirs) for ours, theirs in zip(first, second, strict=True)]
    probability = float(np.mean([won.mean() for won in wins]))
    seeds = min(min(won.shape) for won in wins)
    tail = (1 - CONFIDENCE) / 2
    if probability in {0.0, 1.0}:
        far = tail ** (1 / (seeds * len(wins)))
        low, high = (far, 1.0) if probability else (0.0, 1 - far)
    else:
        low, high = np.quantile(_resampled(wins, generator, draws), [tail, 1 - tail])
    return Improvement(probability, float(low), float(high), len(wins), seeds)


def _wins(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each pair of runs 1 where ours is higher, 1/2 where they are equal, else 0."""
    mine = ours[:, None]
    return np.where(mine > theirs, 1.0, np.where(mine == theirs, 0.5, 0.0))


def _resampled(wins: Sequence[NDArray[np.float64]], generator: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Return the mean over settings, each with drawn runs of both sides."""
    total = np.zeros(draws)
    for won in wins:
        ours, theirs = (counts(size, draws, generator) / size for size in won.shape)
        total += ((ours @ won) * theirs).sum(axis=1)
    return total / len(wins)
