"""Doing runs whoever else may be doing some: what every executor's processes call."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from softknee._bench.attempts import ATTEMPTS, Watch, fruitless, take
from softknee._bench.device import kernels_on
from softknee._bench.open_runs import read_open
from softknee._bench.pack import execute_together, shares
from softknee._bench.runs import CHECKPOINT, FINISHED, Job, RunSpec, ended_status, write_failure
from softknee._bench.study_files import MANIFEST
from softknee._bench.suite_files import is_suite
from softknee._errors import SoftkneeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from softknee._bench.attempts import Attempt, Lease
    from softknee._bench.pack import Progress
    from softknee._bench.runs import Status

PAUSE = 1.0  # seconds before a run is asked for again that another process holds
PATIENCE = 300.0  # seconds that a worker waits for a study to have work


class _Superseded(BaseException):
    """Another process took this one for dead and works on the run."""


def attempt(jobs: Sequence[Job], watch: Watch, progress: Progress) -> list[Status | None]:
    """Do the runs of a share, unless other processes do; one that ended is not done again.

    Args:
        jobs: What to run and where to write.
        watch: Of this process.
        progress: Called with each run and epoch, and the score after it.

    Returns:
        How each ended, `"lost"` after too many attempts that ended without a word; None while another process holds
        it.

    Raises:
        SoftkneeError: Nothing can be written, for a reason that has nothing to do with the runs.
    """
    try:
        with ExitStack() as stack:
            leases: dict[Job, Lease] = {}
            for job in jobs:
                lease = take(job.folder, watch)
                if lease is not None:
                    leases[job] = lease
                    stack.enter_context(lease)
            ended = {job: _earlier(job) or _lost(job, lease.earlier) for job, lease in leases.items()}
            waiting = [job for job in leases if ended[job] is None]
            ended.update(zip(waiting, _execute(waiting, leases, progress), strict=True))
            for lease in leases.values():
                lease.end()
            return [ended.get(job) for job in jobs]
    except _Superseded:
        return [None] * len(jobs)
    except OSError as error:
        # What goes wrong in a run is written down; this is about the folder, and all other runs would meet it.
        raise SoftkneeError(
            f"cannot write in {jobs[0].folder.parent}: {error.strerror or error}; what is finished is kept, and the "
            "same call goes on once that is mended"
        ) from error


def work_through(texts: Sequence[str], listen: Callable[[Job, Status], None], pack: int = 1) -> None:
    """Do whatever of some jobs is free, until all have ended, by whomever.

    Args:
        texts: Jobs as JSON.
        listen: Called with each run that this process ended.
        pack: Runs that may be trained side by side.

    Raises:
        UsageError: A run is planned for another kind of machine, or by another version of softknee.
        SoftkneeError: Nothing can be written.
    """
    watch = Watch()
    jobs = [Job.model_validate_json(text) for text in texts]
    while jobs := _pass(jobs, watch, listen, pack):
        time.sleep(PAUSE)


def work_off(folder: Path, listen: Callable[[Job, Status], None]) -> None:
    """Help with a study that another process conducts, until it is finished.

    Args:
        folder: Of the study or suite; it may be mounted elsewhere than where that was begun.
        listen: Called with each run that this process ended.

    Raises:
        UsageError: No study was begun there in a while, or a run is planned for another kind of machine, or by another
            version of softknee.
        SoftkneeError: Nothing can be written.
    """
    watch, seen, idle_since = Watch(), False, time.monotonic()
    while time.monotonic() - idle_since < PATIENCE:
        jobs = read_open(folder)
        if jobs is None and seen and not is_suite(folder):  # a suite's next study may be about to begin
            return
        seen = jobs is not None
        waiting = [job for job in jobs or () if ended_status(job) is None]
        _pass(waiting, watch, listen)
        if waiting:
            idle_since = time.monotonic()
        time.sleep(PAUSE)
    if not (folder / MANIFEST).exists() and not is_suite(folder):
        raise UsageError(f"no study was begun in {folder} in {PATIENCE:.0f} seconds; `softknee bench` begins one")


def say(job: Job, status: Status) -> None:
    """Write a line about a run that ended."""
    sys.stdout.write(f"{job.spec.activation}, seed {job.spec.seed}: {status}\n")
    sys.stdout.flush()


def _pass(jobs: Sequence[Job], watch: Watch, listen: Callable[[Job, Status], None], pack: int = 1) -> list[Job]:
    """Do each job that is free; return those that other processes hold."""
    held = []
    for share in shares([job for job in jobs if ended_status(job) is None], pack=pack, slots=1):
        waiting = [job for job in share if ended_status(job) is None]
        if waiting:
            _check_machine(waiting[0])
            statuses = attempt(waiting, watch, _ignore)
            for job, status in zip(waiting, statuses, strict=True):
                if status is None:
                    held.append(job)
                else:
                    listen(job, status)
    return held


def _check_machine(job: Job) -> None:
    """Check that this process has the code, the device and the kernels a run is planned with: they decide its numbers.

    Raises:
        UsageError: It has not.
    """
    spec, revision = job.spec, RunSpec.model_fields["revision"].default
    if spec.revision != revision:
        raise UsageError(
            f"the run {spec.key} is planned with revision {spec.revision} of its numbers, and this version of softknee "
            f"has {revision}; let processes of one version work on a study"
        )
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"the run {spec.key} is planned for CUDA, and this machine has no CUDA device")
    if spec.kernels != (found := kernels_on(spec.device)):
        raise UsageError(
            f"the run {spec.key} is planned with kernels for {spec.kernels}, and this machine has {found}; let "
            "machines of one kind work on a study"
        )


def _earlier(job: Job) -> Status | None:
    """Return how the run ended before, without what is left where its process died right behind the result."""
    status = ended_status(job)
    if status in FINISHED:
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return status


def _execute(jobs: Sequence[Job], leases: Mapping[Job, Lease], progress: Progress) -> list[Status]:
    def note(job: Job, epoch: int, score: float) -> None:
        if leases[job].is_superseded():
            raise _Superseded
        leases[job].note(epoch)
        progress(job, epoch, score)

    return execute_together(jobs, note)


def _lost(job: Job, attempts: Sequence[Attempt]) -> Status | None:
    """Give a run up when too many attempts died one after the other without bringing it further."""
    if fruitless(attempts) < ATTEMPTS:
        return None
    last = attempts[-1]
    words = last.words or f"the process {last.pid} of {last.machine.partition(' ')[0]} went away"
    message = f"{ATTEMPTS} attempts in a row ended without a further epoch; at the last one {words}"
    write_failure(job.folder, job.spec, "lost", kind="ProcessDied", message=message)
    return "lost"


def _ignore(job: Job, epoch: int, score: float) -> None:
    """Tell nobody about epochs; who wants to know reads the attempt's file."""
