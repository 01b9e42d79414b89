"""Search by gradients, as often as may be spent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from softknee._errors import UsageError
from softknee._search.candidate import Candidate, hash_of
from softknee._search.draw import Individual
from softknee._search.grafs import NAME, RATE, Search, Settings
from softknee._search.method import MORE_RUNS
from softknee._search.schedule import TICKS
from softknee._search.shapes import Shapes
from softknee._search.space import Genotype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from softknee._search.grafs import Bilevel
    from softknee._search.judge import Judge
    from softknee._search.mixture import Relaxation
    from softknee._search.space import Space
    from softknee._search.task import Task

TRAJECTORY = "trajectory"


def check(
    task: Task,
    space: Space,
    *,
    bilevel: Bilevel = "clean",
    relaxation: Relaxation = "drnas",
    rate: float = RATE,
) -> None:
    """See that a task can be searched for by gradients, in any space.

    Args:
        task: What to search for.
        space: What functions are made of.
        bilevel: Of `find`, as the others.
        relaxation: The same.
        rate: The same.

    Raises:
        OptionError: An option is none of these.
        UsageError: Its runs are too short.
    """
    del space
    Settings(bilevel, relaxation, rate, task.run_steps)
    if task.run_steps < TICKS:
        raise UsageError(f"a search by gradients needs runs of at least {TICKS} steps, these have {task.run_steps}")


def least(task: Task) -> float:
    """Return the full runs that the shortest search costs."""
    return usual(TICKS).price(task) / task.run_steps


def usual(steps: int) -> Settings:
    """Return how `find` searches by default, in so many steps."""
    return Settings("clean", "drnas", RATE, steps)


def find(
    judge: Judge,
    space: Space,
    known: Sequence[Candidate],
    runs: float,
    rng: np.random.Generator,
    *,
    bilevel: Bilevel = "clean",
    relaxation: Relaxation = "drnas",
    rate: float = RATE,
) -> list[Candidate]:
    """Search by gradients, as often as may be spent; see `softknee._search.method.Find`.

    Args:
        judge: With the task.
        space: Of the functions.
        known: They are not found again.
        runs: What may be spent: a search of the length of a training run costs a little more than two.
        rng: Of seeds.
        bilevel: `"clean"`, or `"joint"` as published.
        relaxation: `"drnas"` or `"darts"`.
        rate: Learning rate of the weights of operations.

    Returns:
        The most likely functions at several times of the searches, by their validation loss in the mixed network.

    Raises:
        OptionError: An option is none of these.
        UsageError: The run is too short to be searched in.
    """
    whole = Settings(bilevel, relaxation, rate, judge.task.run_steps)
    return [one.candidate for one in suggested(judge, space, known, runs, rng, whole)]


def suggested(
    judge: Judge,
    space: Space,
    known: Sequence[Candidate],
    runs: float,
    rng: np.random.Generator,
    whole: Settings,
) -> list[Individual]:
    """Return what `find` finds, with the genotypes.

    Args:
        judge: As in `find`, and so on.
        space: Likewise.
        known: Likewise.
        runs: Likewise.
        rng: Likewise.
        whole: How to search, in as many steps as a training run has.

    Returns:
        The most likely functions, best first.

    Raises:
        UsageError: The run is too short to be searched in.
    """
    task = judge.task
    times = max(1, int(runs * task.run_steps // whole.price(task)))
    if times == 1:
        spare = runs * task.run_steps - (whole.price(task) - 2 * whole.steps)
        whole = replace(whole, steps=min(task.run_steps, max(0, int(spare / 2))))
    if whole.steps < TICKS:
        raise UsageError(f"a search by gradients needs at least {TICKS} steps, and {whole.steps} may be spent")
    found: dict[Candidate, float] = {}
    genotypes: dict[Candidate, tuple[Genotype, ...]] = {}
    best, shown = math.inf, None
    for number in range(times):
        record = _searched(judge, space, whole, MORE_RUNS + number, int(rng.integers(2**31)))
        for one in record["found"]:
            candidate = Candidate.from_json(one["candidate"])
            found[candidate] = min(one["loss"], found.get(candidate, math.inf))
            genotypes[candidate] = tuple(Genotype(*map(tuple, names)) for names in one["genotypes"])
        lowest = min((one["loss"] for one in record["found"]), default=math.inf)
        if shown is None or lowest < best:
            best, shown = lowest, record["trajectory"]
    if shown is not None:
        judge.ledger.write(TRAJECTORY, shown)
    shapes = Shapes(known)
    new = [one for one in sorted(found, key=found.__getitem__) if shapes.add(one) is None]
    return [Individual(genotypes[one], one) for one in new]


def _searched(judge: Judge, space: Space, settings: Settings, run: int, seed: int) -> dict[str, Any]:
    """Return the record of one search, made now unless it is there; charge for it."""
    operations = [[group.name, *((one.name, one.formula) for one in group.operations)] for group in space.groups]
    asked = [operations, space.bound, settings.bilevel, settings.relaxation, settings.rate, settings.steps, run, seed]
    key = f"{NAME}-{hash_of(asked)}"
    record = judge.ledger.read(key)
    judge.meter.allow(settings.price(judge.task))
    if record is None:
        search = Search(judge.task, space, settings, run, seed)
        state = judge.ledger.state(key)
        if state is not None:
            search.load(state)

        def part_done() -> None:
            judge.ledger.keep_state(key, search.state())
            judge.meter.tell(NAME, search.notes.charged)

        search.go(part_done)
        record = search.record()
        judge.ledger.write(key, record)
        judge.ledger.drop_state(key)
    judge.meter.charge(NAME, record["charged"], record["seconds"])
    return record
