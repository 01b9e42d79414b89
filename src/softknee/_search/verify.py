"""The proof: the best that was found and the best of the catalogue, trained anew in several paired runs.

One candidate comes to the finals. `heats` chooses it in runs that are neither those of the search nor of the finals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from softknee._engine.select import engine
from softknee._errors import UsageError
from softknee._search.judge import VERIFY
from softknee._search.meter import SLACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from softknee._search.candidate import Candidate
    from softknee._search.judge import Judge

# Of what is left when the baselines have been trained once, the share that the search leaves for verification.
SHARE = 0.85
# Heats: the best candidates are trained in so many runs that nothing was chosen by before, to send one to the finals.
SELECT, HEAT_RUNS = "select", (2000, 2001)


class Places(NamedTuple):
    """How many take part.

    Attributes:
        candidates: In the heats, of whom one comes to the finals; a single one goes there without.
        baselines: In the finals.
    """

    candidates: int
    baselines: int


# From the least to the most. A claim rests on the baselines that it was compared with, so theirs is the first more.
LADDER = tuple(Places(*places) for places in ((1, 1), (1, 2), (2, 2), (3, 2), (3, 3), (4, 3)))


@dataclass(frozen=True)
class Final:
    """Someone's final runs.

    Attributes:
        candidate: Who.
        is_baseline: Whether it is one of the catalogue that others have to beat.
        validation: Losses, `(runs, batches)`; None if a run failed.
        failure: Why a run failed, None if none did.
    """

    candidate: Candidate
    is_baseline: bool
    validation: NDArray[np.float64] | None
    failure: str | None

    @property
    def loss(self) -> float:
        """Mean validation loss, infinite if a run failed."""
        return math.inf if self.validation is None else float(self.validation.mean())


def price(judge: Judge, places: Places, seeds: int) -> float:
    """Return what verification costs at most, in runs.

    Args:
        judge: Knows what training costs.
        places: Who takes part.
        seeds: Runs of the finals.
    """
    heats = places.candidates * len(HEAT_RUNS) if places.candidates > 1 else 0
    entrants = min(places.candidates, 1) + places.baselines
    return heats * judge.price(phase=SELECT) + entrants * seeds * judge.price(phase=VERIFY)


def places_for(judge: Judge, runs: float, seeds: int, *, candidates: int, baselines: int) -> Places:
    """Return how many can take part, at least as many as the smallest verification has.

    Args:
        judge: Knows what training costs.
        runs: What may be spent.
        seeds: Runs of the finals.
        candidates: How many there are.
        baselines: How many there are.
    """
    rungs = [Places(min(one.candidates, candidates), min(one.baselines, baselines)) for one in LADDER]
    return [rungs[0], *(one for one in rungs if price(judge, one, seeds) <= runs + SLACK)][-1]


def check_paid(judge: Judge, places: Places, seeds: int) -> None:
    """See that a verification can be paid; a method that is charged by time may have taken more than it was given.

    Args:
        judge: Knows what training costs, and what is left.
        places: Who takes part.
        seeds: Runs of the finals.

    Raises:
        UsageError: It cannot; the message says what would do.
    """
    needed, meter = price(judge, places, seeds), judge.meter
    if not meter.affords(needed):
        raise UsageError(
            f"the search took longer than was estimated: {meter.left:.3g} training runs are left, and verification "
            f"needs {needed:.3g}; with a budget of {math.ceil(10 * (meter.spent + needed)) / 10:g} and the same folder "
            "as out it goes on from here"
        )


def heats(judge: Judge, found: Sequence[Candidate], progress: Callable[[str], None]) -> list[Candidate]:
    """Send the candidate with the least mean validation loss in runs of their own to the finals.

    Choosing there, and testing one candidate in other runs, needs no correction for how many there were, which with
    three final runs would hide all but huge differences.

    Args:
        judge: Trains them.
        found: The best ones, best first.
        progress: Is told what goes on.

    Returns:
        One; none if all failed.
    """
    if len(found) < 2:
        return [*found]
    losses: dict[Candidate, float] = {}
    for number, candidate in enumerate(found, 1):
        progress(f"select {number} of {len(found)}: {candidate.name}")
        losses[candidate] = sum(judge.score(candidate, run, phase=SELECT).loss for run in HEAT_RUNS)
    best = min(losses, key=losses.__getitem__)
    return [best] if losses[best] < math.inf else []


def finals(
    judge: Judge,
    found: Sequence[Candidate],
    baselines: Sequence[Candidate],
    seeds: int,
    progress: Callable[[str], None],
) -> tuple[Final, ...]:
    """Train everyone in the runs 1 to `seeds`.

    Args:
        judge: Trains them.
        found: The candidates let in.
        baselines: The baselines let in.
        seeds: How many runs.
        progress: Is told what goes on.

    Returns:
        Baselines, then candidates, in the order given.
    """
    everyone = [*baselines, *found]
    results = []
    for number, candidate in enumerate(everyone, 1):
        progress(f"verify {number} of {len(everyone)}: {candidate.name}")
        results.append(_final(judge, candidate, seeds, is_baseline=number <= len(baselines)))
    return tuple(results)


def test_losses(judge: Judge, candidate: Candidate, seeds: int) -> NDArray[np.float64]:
    """Return the losses on the test data, `(runs, batches)`."""
    return np.stack([judge.test(candidate, run) for run in final_runs(seeds)])


def final_runs(seeds: int) -> range:
    """Return the runs of the finals, which nothing was chosen by before."""
    return range(1, seeds + 1)


def several_batches(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return losses `(runs, batches)` of two batches at least: a single one, which says nothing of others, twice."""
    return losses if losses.shape[1] > 1 else losses.repeat(2, axis=1)


def _final(judge: Judge, candidate: Candidate, seeds: int, *, is_baseline: bool) -> Final:
    rows = []
    for run in final_runs(seeds):
        # In closed form: what is claimed must not rest on tables.
        with engine("fused"):
            score = judge.score(candidate, run, phase=VERIFY)
        if score.failure is not None:
            return Final(candidate, is_baseline, None, f"run {run}: {score.failure}")
        rows.append(score.losses)
    return Final(candidate, is_baseline, np.array(rows), None)
