"""A run of a submission: trained by a child process under limits, with the lines that the public harness logs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._bench.runs import finished_status, read_result, write_failure
from softknee._bench.submission_guard import Limits, Stopped, guarded, half_of_memory
from softknee._bench.tasks import TASKS
from softknee._errors import UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._bench.metric import Metric
    from softknee._bench.runs import Job, Split, Status

LOG = "train.log"
# Epochs between two lines of the log.
LOGGED = 10
# Seconds that an epoch may take by default. The public harness stops a run after 59 minutes on its GPUs; here the
# limit finds what hangs, on any machine and also in runs that go on where an earlier call left them.
EPOCH_SECONDS = 3600.0


def make_limits(minutes: float | None, gigabytes: float | None) -> Limits:
    """Return the limits of the process of a submission.

    Args:
        minutes: That an epoch may take, 60 by default.
        gigabytes: Of memory, half of it by default.

    Returns:
        Them.

    Raises:
        UsageError: One is not positive.
    """
    for name, value in (("time_limit", minutes), ("memory_limit", gigabytes)):
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise UsageError(f"{name} must be a positive number, got {value!r}")
    return Limits(
        seconds=EPOCH_SECONDS if minutes is None else 60 * minutes,
        gigabytes=half_of_memory() if gigabytes is None else gigabytes,
    )


def run_guarded(job: Job, progress: Callable[[int, float], None]) -> Status:
    """Train a submission in a child process, and write its result and log.

    Args:
        job: What to run and where to write.
        progress: Called after each epoch; whatever it raises ends the child.

    Returns:
        How the run ended: `"failed"` too where it broke a limit or ended its process.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    limits = job.limits or make_limits(None, None)
    status: Status | None = None
    try:
        with guarded({"job": job.model_dump(mode="json")}, limits, threads=job.spec.threads) as answers:
            for answer in answers:
                if answer["event"] == "end":
                    status = answer["status"]
                    break
                if answer["event"] == "storage":
                    raise OSError(*answer["error"])
                progress(answer["epoch"], answer["score"])
    except Stopped as stop:
        status = finished_status(job)
        if status is None:
            status = "failed"
            write_failure(job.folder, job.spec, status, kind="SubmissionStopped", message=str(stop))
    assert status is not None  # noqa: S101 - answers end with it, or raise
    lines = log_lines(read_result(job.folder) or {"status": status}, TASKS[job.spec.recipe.task].metric, job.spec.split)
    write_atomic(job.folder / LOG, "".join(f"{line}\n" for line in lines))
    return status


def log_lines(result: Mapping[str, Any], metric: Metric, split: Split) -> list[str]:
    """Return what the public harness would log of a run.

    Args:
        result: Of the run.
        metric: Of its protocol.
        split: What it was evaluated on; of a held-out part, lines say `dev` instead of `test`.

    Returns:
        The lines.
    """
    lines, counts = [], result.get("counts")
    if counts:
        lines.append(f"parameters={counts['parameters']} activation_parameters={counts['activation_parameters']}")
        lines.append("A dry forward pass came before that count and before the optimizer.")
    scores = result.get(metric.test) or []
    lines += [epoch_line(epoch, score, metric, split) for epoch, score in enumerate(scores, 1) if epoch % LOGGED == 0]
    return [*lines, last_line(result, metric, split)]


def last_line(result: Mapping[str, Any], metric: Metric, split: Split) -> str:
    """Return the last line of a log: the score of the best epoch, or how the run went wrong."""
    if result["status"] == "done":
        return f"{_word(split).upper()}_METRICS: {_scored(max(result[metric.test]), metric, split)}"
    error = result.get("error")
    if not error:
        return str(result["status"])
    message, _, _ = error["message"].partition("\n")
    return f"{result['status']}: {error['type']}: {message}"


def epoch_line(epoch: int, score: float, metric: Metric, split: Split) -> str:
    """Return the line of an epoch."""
    return f"epoch={epoch} {_scored(score, metric, split)}"


def _scored(score: float, metric: Metric, split: Split) -> str:
    name = "acc" if metric.name == "accuracy" else metric.name
    return f"{_word(split)}_{name}={score:.{metric.digits}f}"


def _word(split: Split) -> str:
    return "test" if split == "test" else "dev"
