"""What a number of seeds cannot show, whatever the scores are."""

from __future__ import annotations

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


def wilcoxon_pairs(comparisons: int = 1, *, level: float = LEVEL) -> int:
    """Fewest pairs with which the exact signed-rank test can reach a level after Holm's adjustment.

    Holm's method multiplies the smallest of k p values by k and lowers none below it.

    Args:
        comparisons: Number of p values that are adjusted together, at least 1.
        level: To be undercut, between 0 and 1.

    Returns:
        Number of pairs: 6 for one comparison at 0.05.

    Raises:
        UsageError: `comparisons` is less than 1 or `level` no level.
    """
    if comparisons < 1:
        raise UsageError(f"comparisons is {comparisons}; it must be at least 1")
    if not 0 < level < 1:
        raise UsageError(f"level is {level}; it must be between 0 and 1")
    pairs = 1
    while comparisons * wilcoxon_floor(pairs) >= level:
        pairs += 1
    return pairs


def seeds_warning(seeds: int, *, comparisons: int = 1) -> str | None:
    """Say that there are too few seeds for a conclusion that does not rest on a normal distribution.

    Args:
        seeds: Number of paired seeds, at least 1.
        comparisons: Number of p values that are adjusted together, at least 1.

    Returns:
        Two sentences, or None where the exact signed-rank test can reach 0.05.

    Raises:
        UsageError: A number is less than 1.
    """
    needed = wilcoxon_pairs(comparisons)
    floor = wilcoxon_floor(seeds)
    if seeds >= needed:
        return None
    adjusted = min(comparisons * floor, 1.0)
    family = f", or {adjusted:.3g} after Holm's adjustment for {comparisons} comparisons" if comparisons > 1 else ""
    return (
        f"With {seeds} seed{'' if seeds == 1 else 's'} an exact Wilcoxon signed-rank test cannot give a p value below "
        f"{floor:.3g}{family}; it takes {needed} seeds to get below {LEVEL}. "
        "The t tests shown have no such floor, but they take differences between seeds to be normally distributed, "
        "which so few seeds cannot confirm."
    )
