"""The default: evolution, from what gradients suggest if the budget allows these; a race if it allows few runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._search import halving
from softknee._search.evolve import evolved
from softknee._search.gradient import suggested
from softknee._search.schedule import TICKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.draw import Individual
    from softknee._search.judge import Judge
    from softknee._search.space import Space

# Fewer runs are too few for a generation to follow another.
FEWEST = 6.0
# Of the budget, the most that gradients may take; and the runs that a search of the length of a training run takes.
SHARE, WHOLE = 0.2, 2.2


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Choose by the budget; see `softknee._search.method.Find`."""
    if runs < FEWEST:
        return halving.find(judge, space, known, runs, rng)
    before = judge.meter.spent
    first: list[Individual] = []
    if judge.task.run_steps >= TICKS and SHARE * runs >= WHOLE:
        with judge.meter.limited(SHARE * runs):
            first = suggested(judge, space, known, SHARE * runs, rng)
    return evolved(judge, first, space, known, runs - (judge.meter.spent - before), rng)
