"""Every function of a small space, trained: for models so small that thousands fit side by side."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._search.batches import drawing
from softknee._search.candidate import Candidate, Function, hash_of
from softknee._search.method import FIRST_RUN, MORE_RUNS
from softknee._search.pack import check_optimizer
from softknee._search.packed_chunks import chunks
from softknee._search.shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._search.judge import Judge
    from softknee._search.packed_chunks import Chunk
    from softknee._search.space import Space
    from softknee._search.task import Task

NAME = "enumerate"
RUNS = (FIRST_RUN, MORE_RUNS)
# Steps after which it is estimated what all will cost, behind one that is not timed.
PILOT = 10
# By how much more than estimated what is begun may cost, so that it does not take what verification needs.
CAUTION = 1.2
# How many are returned, and how many of them the judge trains as well if that can be paid, so that tables show them.
BEST, CONFIRMED = 100, 3


def find(
    judge: Judge, space: Space, known: Sequence[Candidate], runs: float, rng: np.random.Generator
) -> list[Candidate]:
    """Train every distinct function of a one-core space in two runs; see `softknee._search.method.Find`.

    Thousands of small models side by side take far less time than one after the other. What they cost is therefore
    counted by seconds: those they took, over those that a run of one model takes here. Where the time is up before all
    are trained, which is estimated first, the simpler ones have been.

    Args:
        judge: Trains them.
        space: What they are made of.
        known: The best of the catalogue, each with its score of a full run.
        runs: What may be spent, in training runs.
        rng: Not used: there is nothing to choose.

    Returns:
        The best by their mean validation loss, best first, without those that are known.

    Raises:
        UsageError: The space has several cores, the task several groups of sites, or the cost is more than is left.
    """
    del rng
    task = judge.task
    check(task, space)
    candidates = [Candidate((space.function(genotype),), NAME) for genotype in space.distinct()]
    with judge.meter.limited(runs):
        pace = _seconds_of_a_run(judge, known)
        check_optimizer(task)
        return _best(judge, candidates, _losses(judge, candidates, pace), known)


def _losses(judge: Judge, candidates: Sequence[Candidate], pace: float) -> dict[int, float]:
    """Train candidates, the first ones first, as far as can be paid.

    Args:
        judge: With the task, the ledger and the meter.
        candidates: All.
        pace: Seconds of a run of one model.

    Returns:
        Mean losses of those that were trained, infinite where one diverged.

    Raises:
        UsageError: By the first ones, all cost more than is left.
    """
    losses: dict[int, float] = {}
    for chunk, seconds in _timed(chunks(judge.task, candidates)):
        records = [judge.ledger.read(_key(chunk, candidates, run)) for run in RUNS]
        if None in records:
            started = time.perf_counter()
            estimate = CAUTION * (_seconds_of(judge.task, chunk) * len(RUNS) + seconds) / len(chunk.rows) / pace
            seconds += time.perf_counter() - started
            if not losses and not judge.meter.affords(estimate * len(candidates)):
                raise UsageError(_too_dear(len(candidates), estimate * len(candidates), judge.meter.left))
            if not judge.meter.affords(estimate * len(chunk.rows)):
                break
        for run, record in zip(RUNS, records, strict=True):
            found = record or _train(judge, chunk, candidates, run, pace, seconds if run == RUNS[0] else 0.0)
            judge.meter.charge(NAME, found["runs"] * judge.task.run_steps, found["seconds"])
            for row, loss in zip(chunk.rows, found["losses"], strict=True):
                losses[row] = losses.get(row, 0.0) + (np.inf if loss is None else loss / len(RUNS))
    return losses


def _train(
    judge: Judge, chunk: Chunk, candidates: Sequence[Candidate], run: int, pace: float, before: float
) -> dict[str, Any]:
    """Train a part of the candidates in one run, and write down how they did.

    Args:
        judge: With the task and the ledger.
        chunk: Which ones.
        candidates: All.
        run: Number of the run.
        pace: Seconds of a run of one model.
        before: Seconds that their tables and the estimate took.

    Returns:
        The record: losses, None for those that diverged; what they cost in seconds and in runs.
    """
    started = time.perf_counter()
    losses = chunk.pack(judge.task, run).train((1.0,))[:, 0]
    seconds = time.perf_counter() - started + before
    finite = [float(loss) if np.isfinite(loss) else None for loss in losses]
    record = {"losses": finite, "seconds": seconds, "runs": seconds / pace}
    judge.ledger.write(_key(chunk, candidates, run), record)
    return record


def _best(
    judge: Judge, candidates: Sequence[Candidate], losses: dict[int, float], known: Sequence[Candidate]
) -> list[Candidate]:
    """Return the best, of which the judge has trained the first ones too, as far as that can be paid."""
    met, best = Shapes(known), []
    for row in sorted((row for row in losses if np.isfinite(losses[row])), key=losses.__getitem__):
        if met.find(candidates[row]) is None:
            best.append(candidates[row])
        if len(best) == BEST:
            break
    for candidate in best[:CONFIRMED]:
        if judge.meter.affords(judge.price(phase=NAME)):
            judge.score(candidate, FIRST_RUN, phase=NAME)
    return best


def _key(chunk: Chunk, candidates: Sequence[Candidate], run: int) -> str:
    return hash_of([NAME, run, [candidates[row].key for row in chunk.rows]])


def _timed(parts: Iterator[Chunk]) -> Iterator[tuple[Chunk, float]]:
    """Yield chunks with the seconds that making them took."""
    while True:
        started = time.perf_counter()
        chunk = next(parts, None)
        if chunk is None:
            return
        yield chunk, time.perf_counter() - started


def _seconds_of_a_run(judge: Judge, known: Sequence[Candidate]) -> float:
    """Return how long one model trains; without any trained so far, one is."""
    if judge.meter.pace is None:
        judge.score(next(iter(known), Candidate((Function("relu"),), NAME)), FIRST_RUN, phase=NAME)
    pace = judge.meter.pace
    assert pace is not None  # noqa: S101 (something was charged)
    return pace


def _seconds_of(task: Task, chunk: Chunk) -> float:
    """Return about how long a chunk trains in one run, by its first steps."""
    pack = chunk.pack(task, RUNS[0])
    batches = (batch for epoch in range(task.epochs) for batch in task.batches(RUNS[0], epoch))
    with drawing(0):
        pack.take(next(batches))
        started, taken = time.perf_counter(), 0
        for batch in islice(batches, PILOT):
            pack.take(batch)
            taken += 1
    return (time.perf_counter() - started) / max(taken, 1) * task.run_steps


def _too_dear(number: int, cost: float, left: float) -> str:
    return (
        f"to train all {number:,} functions of the space in {len(RUNS)} runs may cost as much time here as {cost:.3g} "
        f"training runs, and {left:.3g} are left; 'enumerate' is for small models: raise the budget, take fewer "
        "operations, or another method"
    )


def check(task: Task, space: Space) -> None:
    """See that a task can be searched for in a space.

    Args:
        task: With one group of sites.
        space: With one core.

    Raises:
        UsageError: It cannot.
    """
    if space.cores != 1:
        raise UsageError(
            f"'enumerate' trains every function of a space of one core; this one has {space.cores} cores and "
            f"{space.size:,} genotypes; take the space 'one-core', or another method"
        )
    if len(task.groups) != 1:
        raise UsageError(
            f"'enumerate' tries one function at all sites, and there are {len(task.groups)} groups with one each; "
            "take scope='all', or another method"
        )
