"""The default: what gradients suggest, if the budget allows them, in a race with draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._search.halving import race
from softknee._search.method import METHODS
from softknee._search.schedule import TICKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.space import Space

GRADIENT = "grafs"
# Of the budget, the most that gradients may take; and the runs that a search of the length of a training run takes.
SHARE, WHOLE = 0.5, 2.2


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Ask several methods; see `softknee._search.method.Find`."""
    before = judge.meter.spent
    suggested: list[Candidate] = []
    gradient = METHODS[GRADIENT]
    if judge.task.run_steps >= TICKS and SHARE * runs >= WHOLE:
        with judge.meter.limited(SHARE * runs):
            suggested = gradient.find(judge, space, known, SHARE * runs, rng)
    return race(judge, suggested, space, known, runs - (judge.meter.spent - before), rng)
