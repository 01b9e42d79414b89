"""What a number of seeds cannot show, whatever the scores are."""

from __future__ import annotations

from itertools import count
from math import comb

from softknee._errors import UsageError
from softknee._statistics.decisions import LEVEL


def wilcoxon_floor(pairs: int) -> float:
    """Smallest two-sided p value of the exact signed-rank test (Wilcoxon 1945, Biometrics Bulletin 1(6), 80-83).

    All differences then have the same sign, which 2 of the 2^n equally likely patterns of signs do.

    Args:
        pairs: Number of differences that are not zero, at least 1.

    Returns:
        `2^(1 - pairs)`: 0.0625 for five.

    Raises:
        UsageError: `pairs` is less than 1.
    """
    if pairs < 1:
        raise UsageError(f"pairs is {pairs}; it must be at least 1")
    return 2.0 ** (1 - pairs)


def rank_sum_floor(seeds: int) -> float:
    """Smallest two-sided p value of the exact rank-sum test (Mann and Whitney 1947) of two samples of one size.

    All of one then lie above all of the other, which 2 of the equally likely orders do.

    Args:
        seeds: Of each sample, at least 1.

    Returns:
        2 over the number of ways to choose half of all runs: 0.1 for three.
    """
    return 2 / comb(2 * seeds, seeds)


def fewest_seeds(comparisons: int = 1, *, paired: bool = True) -> int:
    """Fewest seeds with which the exact test can get below 0.05 after Holm's adjustment.

    Holm's method multiplies the smallest of k p values by k and lowers none below it.

    Args:
        comparisons: Number of p values that are adjusted together, at least 1.
        paired: The signed-rank test's, or the rank-sum test's.

    Returns:
        6 pairs, or 4 seeds a side, for one comparison.

    Raises:
        UsageError: `comparisons` is less than 1.
    """
    if comparisons < 1:
        raise UsageError(f"comparisons is {comparisons}; it must be at least 1")
    floor = wilcoxon_floor if paired else rank_sum_floor
    return next(seeds for seeds in count(1) if comparisons * floor(seeds) < LEVEL)


def seeds_warning(seeds: int, *, comparisons: int = 1, paired: bool = True) -> str | None:
    """Say that there are too few seeds for a conclusion that does not rest on a normal distribution.

    Args:
        seeds: Number of paired seeds, or of those on each side, at least 1.
        comparisons: Number of p values that are adjusted together, at least 1.
        paired: Whether seeds pair.

    Returns:
        Two sentences, or None where the exact test can get below 0.05.

    Raises:
        UsageError: A number is less than 1.
    """
    needed, floor = fewest_seeds(comparisons, paired=paired), (wilcoxon_floor if paired else rank_sum_floor)(seeds)
    if seeds >= needed:
        return None
    adjusted = min(comparisons * floor, 1.0)
    family = f", or {adjusted:.3g} after Holm's adjustment for {comparisons} comparisons" if comparisons > 1 else ""
    test = "Wilcoxon signed-rank" if paired else "Mann-Whitney rank-sum"
    taken = "differences between seeds to be normally distributed" if paired else "scores to be normal over seeds"
    return (
        f"With {seeds} seed{'' if seeds == 1 else 's'} an exact {test} test cannot give a p value below {floor:.3g}"
        f"{family}; it takes {needed} seeds to get below {LEVEL}. The t tests shown have no such floor, but they take "
        f"{taken}, which so few seeds cannot confirm."
    )
