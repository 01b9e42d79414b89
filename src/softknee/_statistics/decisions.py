"""From p values to a verdict: Holm's adjustment, and what may be said about a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Verdict = Literal["better", "worse", "equivalent", "undecided", "too few seeds"]

LEVEL = 0.05
FEWEST_SEEDS = 3


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p values for their number by Holm's step-down method (Holm 1979).

    Args:
        p: `(k,)` p values in [0, 1]; may be empty.

    Returns:
        `(k,)` float64 adjusted p values in the same order: rejecting those below a level keeps the chance of any false
        rejection under that level.

    Raises:
        UsageError: A p value is not in [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise UsageError(f"p values are {values.tolist()}; each must be in [0, 1]")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def verdict(difference: float, *, p: float, p_equivalence: float, seeds: int) -> Verdict:
    """Say what a paired difference shows; a missing significance alone never shows equivalence.

    Args:
        difference: Mean paired difference, positive when the first is better.
        p: Holm-adjusted p value against no difference.
        p_equivalence: Holm-adjusted p value against a difference of at least the margin.
        seeds: Number of pairs.

    Returns:
        `"too few seeds"` under three pairs; `"better"` or `"worse"` when `p` is under 0.05; else `"equivalent"` when
        `p_equivalence` is; else `"undecided"`.
    """
    if seeds < FEWEST_SEEDS:
        return "too few seeds"
    if p < LEVEL:
        return "better" if difference > 0 else "worse"
    return "equivalent" if p_equivalence < LEVEL else "undecided"
