"""A race: many start, the better ones are trained on, from where they stopped and on more seeds.

Successive halving (Jamieson & Talwalkar, arXiv:1502.07943) with paired seeds: all that are compared were trained for
the same part of the same runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._search.draw import Draws
from softknee._search.meter import SLACK
from softknee._search.method import FIRST_RUN, MORE_RUNS, PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge
    from softknee._search.space import Space

NAME = "halving"
# Of those who reach a rung, one in so many reaches the next.
ETA = 3


@dataclass(frozen=True)
class Rung:
    """A comparison.

    Attributes:
        part: Of a full run that has been trained.
        runs: Which runs, the mean of whose losses counts.
    """

    part: float
    runs: tuple[int, ...]


RUNGS = tuple(
    Rung(part, (FIRST_RUN, *range(MORE_RUNS, MORE_RUNS + more))) for part, more in zip(PARTS, (0, 1, 1), strict=True)
)


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Race as many draws as the budget allows; see `softknee._search.method.Find`."""
    draws = Draws(space, len(judge.task.groups), known, rng, origin=NAME)
    size = most(judge, runs)
    racing: list[Candidate] = []
    while len(racing) < size and (drawn := draws.new()) is not None:
        racing.append(drawn.candidate)
    left_behind: list[Candidate] = []
    for index, rung in enumerate(RUNGS):
        losses = {one: _mean_loss(judge, one, rung, _runs(rung, len(racing))) for one in racing}
        order = sorted((one for one in racing if losses[one] < math.inf), key=losses.__getitem__)
        racing = order[: survivors(size, index + 1)] if index + 1 < len(RUNGS) else order
        left_behind = [one for one in order if one not in racing] + left_behind
        _release(judge, [one for one in losses if one not in racing], rung)
    return [*racing, *left_behind]


def most(judge: Judge, runs: float) -> int:
    """Return how many can start.

    Args:
        judge: Knows what training costs.
        runs: What may be spent.
    """
    size = 0
    while price(judge, size + 1) <= runs + SLACK:
        size += 1
    return size


def price(judge: Judge, size: int) -> float:
    """Return what a race costs at most, in runs.

    Args:
        judge: Knows what training costs.
        size: How many start.
    """
    total, before = 0.0, dict.fromkeys(RUNGS[-1].runs, 0.0)
    for index, rung in enumerate(RUNGS):
        count = survivors(size, index)
        runs = _runs(rung, count)
        total += count * math.fsum(judge.price(rung.part, phase=NAME, after=before[run]) for run in runs)
        before.update(dict.fromkeys(runs, rung.part))
    return total


def survivors(size: int, rung: int) -> int:
    """Return how many of those who start reach a rung."""
    reached = size
    for _ in range(rung):
        reached = -(-reached // ETA)
    return reached


def _runs(rung: Rung, count: int) -> tuple[int, ...]:
    """Return the runs to train so many candidates in: one that is alone is compared with none."""
    return rung.runs if count > 1 else rung.runs[:1]


def _mean_loss(judge: Judge, candidate: Candidate, rung: Rung, runs: tuple[int, ...]) -> float:
    losses = [judge.score(candidate, run, rung.part, phase=NAME).loss for run in runs]
    return sum(losses) / len(losses)


def _release(judge: Judge, candidates: Sequence[Candidate], rung: Rung) -> None:
    for candidate in candidates:
        for run in rung.runs:
            judge.release(candidate, run)
