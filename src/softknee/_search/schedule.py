"""When a relaxed cell loses its operations: GRAFS's progressive shrinking (arXiv:2408.06820 and its code)."""

from __future__ import annotations

from collections import Counter

import numpy as np

# A search has so many parts; the first warms up, and drops begin with the third. GRAFS's are epochs.
TICKS = 50
WARM_TICKS = 1
FIRST_DROPS = 2


def drops(count: int, first: int = FIRST_DROPS, ticks: int = TICKS) -> tuple[int, ...]:
    """Return how many operations to drop in each part of a search, most of them early.

    The time of drop `i` of `D` is `s - 1 + floor(10 ** (i log10(T - s) / (D - 1)))`, for drops from `s` on in a search
    of `T` parts: 104 drops are 19 in the third of 50 parts, then 11, 7, 6, 5, and one each in the end.

    Args:
        count: All drops together, D.
        first: The part with the first ones, s, from 0.
        ticks: Parts of the search, T.

    Returns:
        A number for each part.
    """
    times = first - 1 + np.floor(np.logspace(0.0, np.log10(ticks - first), count)).astype(int)
    counted = Counter(times.tolist())
    return tuple(counted[tick] for tick in range(ticks))
