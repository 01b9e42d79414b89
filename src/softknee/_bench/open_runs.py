"""The runs of a study that are to be done now, in a file that processes of any machine can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from softknee._bench.attempts import clear
from softknee._bench.runs import CHECKPOINT, Job, ended_status, finished_status
from softknee._bench.study_files import RESULT, RUNS
from softknee._errors import UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from softknee._bench.runs import Status

OPEN = ".open.jsonl"


def settle(job: Job) -> Status | None:
    """Make a run ready to be asked for: forget an earlier failure, and what a finished run's process left behind.

    Args:
        job: The run.

    Returns:
        How it ended if it is finished, None if it is to be done.

    Raises:
        OSError: The folder cannot be written.
    """
    status = finished_status(job)
    if status is not None:
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
        clear(job.folder)
    elif ended_status(job) is not None:
        (job.folder / RESULT).unlink()
    return status


def write_open(folder: Path, jobs: Sequence[Job]) -> None:
    """Write down which runs are to be done, or, without any, that the study has come to its end.

    Args:
        folder: Of the study.
        jobs: The runs.

    Raises:
        OSError: The folder cannot be written.
    """
    path = folder / RUNS / OPEN
    if jobs:
        write_atomic(path, "".join(f"{job.model_dump_json()}\n" for job in jobs))
    else:
        path.unlink(missing_ok=True)


def read_open(folder: Path) -> list[Job] | None:
    """Return the runs that are to be done, with their folders where this machine sees them.

    Args:
        folder: Of a study, or of a suite for those of its studies.

    Returns:
        The runs, or None where no study is under way.

    Raises:
        UsageError: Another version of softknee wrote them.
    """
    files = sorted([*folder.glob(f"{RUNS}/{OPEN}"), *folder.glob(f"*/{RUNS}/{OPEN}")])
    found = [_read(path) for path in files]
    return [job for jobs in found for job in jobs or ()] if any(jobs is not None for jobs in found) else None


def _read(path: Path) -> list[Job] | None:
    try:
        jobs = [Job.model_validate_json(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:  # the study came to its end just now
        return None
    except ValidationError:
        raise UsageError(
            f"{path} is of another version of softknee; let processes of one version work on a study"
        ) from None
    return [job.model_copy(update={"folder": path.resolve().parent / job.spec.key}) for job in jobs]
