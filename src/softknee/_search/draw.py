"""Random search: draws from the space, each trained once; and what other methods draw from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._search.candidate import Candidate
from softknee._search.method import FIRST_RUN
from softknee._search.shapes import Shapes, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from softknee._search.judge import Judge
    from softknee._search.space import Genotype, Space

NAME = "random"
# Draws without anything new, after which there is taken to be nothing new.
PATIENCE = 1000


@dataclass(frozen=True)
class Individual:
    """A candidate and what it was made from.

    Attributes:
        genotypes: One for each group of sites.
        candidate: Their functions.
    """

    genotypes: tuple[Genotype, ...]
    candidate: Candidate


class Draws:
    """Makes candidates that are new, each another function than all before.

    Args:
        space: What they are made of.
        groups: Groups of sites, with a function each.
        known: What is not made again.
        rng: Of all choices.
        origin: Of the candidates.
        trained: Whether their constants are trained with the network.
    """

    def __init__(
        self,
        space: Space,
        groups: int,
        known: Sequence[Candidate],
        rng: np.random.Generator,
        *,
        origin: str,
        trained: bool = False,
    ) -> None:
        self._space, self._groups, self._rng = space, groups, rng
        self._origin, self._trained = origin, trained
        self._met = Shapes(known)

    def new(self) -> Individual | None:
        """Return a draw, None if there seem to be no more."""
        return self._first(lambda: tuple(self._space.draw(self._rng) for _ in range(self._groups)))

    def near(self, parent: Individual) -> Individual | None:
        """Return one that differs from another in one operation of one group, None if there seem to be no more."""

        def mutant() -> tuple[Genotype, ...]:
            genotypes = [*parent.genotypes]
            group = int(self._rng.integers(len(genotypes)))
            genotypes[group] = self._space.mutate(genotypes[group], self._rng)
            return tuple(genotypes)

        return self._first(mutant)

    def _first(self, make: Callable[[], tuple[Genotype, ...]]) -> Individual | None:
        for _ in range(PATIENCE):
            genotypes = make()
            candidate = candidate_of(self._space, genotypes, origin=self._origin, trained=self._trained)
            if candidate is not None and self._met.add(candidate) is None:
                return Individual(genotypes, candidate)
        return None


def candidate_of(
    space: Space, genotypes: Sequence[Genotype], *, origin: str, trained: bool = False
) -> Candidate | None:
    """Return the candidate of genotypes, None where a function of it is constant or not finite.

    Args:
        space: Theirs.
        genotypes: One for each group of sites.
        origin: Of the candidate.
        trained: Whether its constants are trained with the network.
    """
    functions = tuple(space.function(one, trained=trained) for one in genotypes)
    return Candidate(functions, origin) if all(map(shape_of, functions)) else None


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Train different draws once each; see `softknee._search.method.Find`."""
    draws = Draws(space, len(judge.task.groups), known, rng, origin=NAME)
    losses: dict[Candidate, float] = {}
    with judge.meter.limited(runs):
        while judge.meter.affords(judge.price(phase=NAME)) and (drawn := draws.new()) is not None:
            losses[drawn.candidate] = judge.score(drawn.candidate, FIRST_RUN, phase=NAME).loss
    return ranked(losses)


def ranked(losses: dict[Candidate, float]) -> list[Candidate]:
    """Return candidates by their losses, without those that failed."""
    return sorted((one for one, loss in losses.items() if loss < float("inf")), key=losses.__getitem__)
