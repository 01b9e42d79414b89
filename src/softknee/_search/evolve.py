"""Regularised evolution: mutants of what did well; the oldest die (Real et al., arXiv:1802.01548).

Learnable scalars of the functions are trained with the network. How fit a function is, a quarter of a run says; the
fittest are trained to the end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._search.draw import Draws, Individual, candidate_of, ranked
from softknee._search.meter import SLACK
from softknee._search.method import FIRST_RUN, PARTS
from softknee._search.shapes import Shapes
from softknee._search.space import Genotype

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.space import Space

NAME = "evolve"
# Of the budget, kept to train the fittest to the end.
KEPT = 0.3
# Of all that can be tried, the share that is alive, with its limits; of these, the share a parent is chosen from.
ALIVE, FEWEST, MOST = 0.2, 4, 32
TOURNAMENT = 0.4
# How far a fitness looks.
PART = PARTS[0]


@dataclass(frozen=True)
class _Living:
    """Someone of the population, and how well it does."""

    individual: Individual
    loss: float


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Evolve functions; see `softknee._search.method.Find`."""
    return evolved(judge, (), space, known, runs, rng)


def evolved(
    judge: Judge,
    first: Sequence[Individual],
    space: Space,
    known: Sequence[Candidate],
    runs: float,
    rng: np.random.Generator,
) -> list[Candidate]:
    """Evolve functions from some, the catalogue's best and draws.

    Args:
        judge: Trains them.
        first: Who is there from the start, as far as the budget allows.
        space: Of the functions.
        known: The best of the catalogue; those of the space are there from the start.
        runs: What may be spent.
        rng: Of all choices.

    Returns:
        Those who did not fail and are not of the catalogue: first those who were trained to the end, by their losses;
        last, of `first`, those whom the budget did not let in.
    """
    groups = len(judge.task.groups)
    draws = Draws(space, groups, [*known, *(one.candidate for one in first)], rng, origin=NAME, trained=True)
    waiting = deque(first)
    losses: dict[Candidate, float] = {}
    with judge.meter.limited(runs):
        living = deque(
            _Living(one, judge.score(one.candidate, FIRST_RUN, PART, phase=NAME).loss)
            for one in _said_by(space, groups, known)
        )
        tries = _affordable(judge)
        size = round(min(max(ALIVE * tries, FEWEST), MOST))
        for _ in range(tries):
            mature = len(living) >= size
            child = waiting.popleft() if waiting else None
            child = child or (draws.near(_parent(living, rng)) if mature else None) or draws.new()
            if child is None:
                break
            losses[child.candidate] = judge.score(child.candidate, FIRST_RUN, PART, phase=NAME).loss
            living.append(_Living(child, losses[child.candidate]))
            if mature:
                living.popleft()
        return [*_to_the_end(judge, ranked(losses)), *(one.candidate for one in waiting)]


def _affordable(judge: Judge) -> int:
    """Return how many can be tried, with enough left to train the best to the end."""
    left, rest = judge.meter.left, judge.price(1.0, phase=NAME, after=PART)
    return max(1, int((left - max(rest, KEPT * left)) / judge.price(PART, phase=NAME) + SLACK))


def _parent(living: Sequence[_Living], rng: np.random.Generator) -> Individual:
    """Return the fittest of some, chosen at random."""
    count = max(2, round(TOURNAMENT * len(living)))
    chosen = rng.choice(len(living), size=min(count, len(living)), replace=False)
    return min((living[int(index)] for index in chosen), key=lambda one: one.loss).individual


def _to_the_end(judge: Judge, order: list[Candidate]) -> list[Candidate]:
    """Train the first ones to the end as far as the budget goes, and return all, those first by how they did."""
    rest = judge.price(1.0, phase=NAME, after=PART)
    finished: dict[Candidate, float] = {}
    for candidate in order:
        if judge.meter.affords(rest):
            finished[candidate] = judge.score(candidate, FIRST_RUN, phase=NAME).loss
        else:
            judge.release(candidate, FIRST_RUN)
    return ranked(finished) + [one for one in order if one not in finished]


def _said_by(space: Space, groups: int, known: Sequence[Candidate]) -> Iterator[Individual]:
    """Yield those of the catalogue's best that are one operation of the space, the same at all sites."""
    met = Shapes(known)
    for genotype in _single(space):
        made = candidate_of(space, (genotype,) * groups, origin=NAME)
        same = None if made is None else met.find(made)
        if same is not None:
            yield Individual((genotype,) * groups, same)


def _single(space: Space) -> Iterator[Genotype]:
    """Yield the genotypes that are one unary operation."""
    names = {operation.name for operation in space.unary}
    if "left" not in {operation.name for operation in space.binary} or (space.cores > 1 and "identity" not in names):
        return
    for operation in space.unary:
        others = ("identity" if "identity" in names else operation.name,) * (space.edges - 1)
        yield Genotype((operation.name, *others), ("left",) * space.cores)
