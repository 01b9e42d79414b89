"""Runs of a study that one process trains side by side, with the same numbers as one after the other."""

from __future__ import annotations

import math
import time
from functools import partial
from operator import mul
from typing import TYPE_CHECKING

from softknee._bench.attempts import fruitless, read_attempts
from softknee._bench.course import Course, execute, is_of_the_disk, surroundings
from softknee._bench.examples import Examples
from softknee._bench.packed import Member, shape_of, train_epoch_packed
from softknee._bench.submission import is_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from softknee._bench.runs import Job, Status

    Progress = Callable[[Job, int, float], None]  # a run, the epoch it just finished, the score after it

# Weights of the largest perceptron that is packed: the products of larger ones are most of a step, and a stack of them
# takes as long as one after the other, or longer, since it leaves the caches.
LARGEST = 30_000
# Fields of a run in which those of a pack may differ.
_OWN = {"activation", "definition", "seed", "initialization", "learning_rate"}


def shares(jobs: Sequence[Job], *, pack: int, slots: int) -> list[tuple[Job, ...]]:
    """Divide jobs into shares, each of which a process does at a time.

    A run whose process died is alone in its share: it may be what its process died of. So is a submission, which
    only a process under limits may load.

    Args:
        jobs: In the order they are started.
        pack: Runs that may be trained side by side.
        slots: Processes there are for all.

    Returns:
        The shares, in the order of the first job of each kind; what is trained side by side is sorted by activation,
        since neighbours that are alike are evaluated in one call.
    """
    most = min(pack, math.ceil(len(jobs) / slots))
    if most <= 1:
        return [(job,) for job in jobs]
    alike: dict[Hashable, list[Job]] = {}
    for job in jobs:
        alike.setdefault(_alike(job), []).append(job)
    return [
        tuple(sorted(group[start : start + most], key=lambda job: job.spec.activation))
        for group in alike.values()
        for start in range(0, len(group), most)
    ]


def _alike(job: Job) -> Hashable:
    """Return what the jobs of a share have in common; the job itself where it is to be alone."""
    spec = job.spec
    usual = (spec.recipe.model, spec.device, spec.precision, spec.compiled) == ("mlp", "cpu", "float32", False)
    weights = sum(map(mul, spec.recipe.widths, spec.recipe.widths[1:]))
    if not usual or weights > LARGEST or is_submission(spec.activation) or fruitless(read_attempts(job.folder)):
        return job
    return job.source, spec.model_copy(update=dict.fromkeys(_OWN))


def execute_together(jobs: Sequence[Job], progress: Progress) -> list[Status]:
    """Run jobs side by side as far as possible, and then each by itself; otherwise as `execute`.

    Args:
        jobs: From one share, none of them finished.
        progress: Called after each epoch of each.

    Returns:
        How they ended.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    if len(jobs) > 1:
        try:
            _side_by_side(jobs, progress)
        except Exception as error:
            if is_of_the_disk(error):
                raise
            # Whatever it is, it is one of theirs: each goes on by itself from its last epoch.
    return [execute(job, partial(progress, job)) for job in jobs]


def _side_by_side(jobs: Sequence[Job], progress: Progress) -> None:
    """Train those to their end that are of one shape and as far as each other."""
    with surroundings(jobs[0].spec):
        groups: dict[Hashable, list[tuple[Job, Course]]] = {}
        for job in jobs:
            course = Course(job)
            shape = shape_of(course.model)
            if shape is not None and type(course.data).objective is Examples.objective:
                groups.setdefault((shape, course.epoch), []).append((job, course))
        for group in groups.values():
            while len(group) > 1 and group[0][1].epoch < jobs[0].spec.epochs:
                group = _advance(group, progress)
            for _, course in group:
                if course.epoch == jobs[0].spec.epochs:
                    course.finish()


def _advance(group: Sequence[tuple[Job, Course]], progress: Progress) -> list[tuple[Job, Course]]:
    """Train an epoch of each; return those that go on."""
    start, recipe = time.perf_counter(), group[0][1].recipe
    members = [Member(course.model, course.optimizer, course.data, course.start_epoch()) for _, course in group]
    trained = train_epoch_packed(members, recipe.batch_size, recipe.steps)
    seconds = (time.perf_counter() - start) / len(group)
    going_on = []
    for (job, course), epoch in zip(group, trained, strict=True):
        if course.end_epoch(epoch, seconds=seconds, step_seconds=None):
            going_on.append((job, course))
            progress(job, course.epoch, course.score)
    return going_on
