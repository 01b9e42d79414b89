"""The default: a race where the budget is small, else evolution; in large spaces it begins with what gradients suggest.

What `benchmarks/search_quality.py` shows decides (docs/results/search.md). In the space of one core, nothing does
better than evolution from some ten runs on, which does as well without the suggestions of gradients; below, a race
does. In that of two, a search by gradients for the price of two runs does as well as nine draws, and evolution goes on
from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._search import evolve, halving
from softknee._search.gradient import least, suggested, usual

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.draw import Individual
    from softknee._search.judge import Judge
    from softknee._search.space import Space

# Fewer runs are too few for a generation to follow another.
FEWEST = 6.0
# Runs that a search by gradients of the length of a training run takes, and what has to be left to try what it finds.
WHOLE, LEFT = 2.2, 1.2


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Choose by the space and the budget; see `softknee._search.method.Find`."""
    first: list[Individual] = []
    before = judge.meter.spent
    if space.cores > 1 and runs >= WHOLE + LEFT and least(judge.task) <= WHOLE:
        with judge.meter.limited(WHOLE):
            first = suggested(judge, space, known, WHOLE, rng, usual(judge.task.run_steps))
    elif runs < FEWEST:
        return halving.find(judge, space, known, runs, rng)
    return evolve.evolved(judge, first, space, known, runs - (judge.meter.spent - before), rng)
