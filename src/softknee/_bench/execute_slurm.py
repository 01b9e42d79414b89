"""Execute jobs as workers that Slurm starts, by way of submitit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from softknee._bench.execute_watched import Watched
from softknee._bench.work import say, work_through
from softknee._errors import SoftkneeError
from softknee._extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.execute import Event
    from softknee._bench.runs import Job

CLUSTER = "slurm"
LOGS = ".slurm"  # beside the runs
LOOK = 2.0  # seconds between looks at the folders
MINUTES = 240  # of a Slurm job, unless SBATCH_TIMELIMIT says otherwise
RULE = "-" * 22  # submitit draws it before and behind a traceback
DEATHS = 20  # of workers, one after the other, while nothing happens in any folder


def run_with_slurm(
    jobs: Sequence[Job], listen: Callable[[Event], None], *, slots: int, pack: int = 1, cluster: str = CLUSTER
) -> None:
    """Execute jobs by Slurm jobs that each do whatever is free; one that ends early is replaced.

    Few long Slurm jobs wait in its queue less often than many short ones. Partition, account, time limit and all else
    are Slurm's own variables (`SBATCH_PARTITION`, `SBATCH_ACCOUNT`, `SBATCH_TIMELIMIT`). All nodes must see the study's
    folder, and the data, under the same paths.

    Args:
        jobs: In the order they are started.
        listen: Called in this thread; of epochs it is told as folders are looked at.
        slots: How many Slurm jobs there are at the same time.
        pack: Runs that each may train side by side.
        cluster: As submitit names it; `"local"` starts processes of this machine instead.

    Raises:
        SoftkneeError: There is no Slurm, nothing can be written, workers die before they do anything, or machines are
            of several kinds.
        MissingExtra: submitit is not installed.
    """
    workers = _Workers(require("submitit", extra="slurm"), jobs, cluster, pack)
    watched = Watched(jobs, listen)
    try:
        while watched.open:
            workers.fill(min(slots, len(watched.open)))
            time.sleep(LOOK)
            before = watched.changes
            watched.look()
            workers.collect(anything_new=watched.changes > before)
    finally:
        workers.cancel()


class _Workers:
    """The Slurm jobs of one call."""

    def __init__(self, submitit: Any, jobs: Sequence[Job], cluster: str, pack: int) -> None:
        self._submitit = submitit
        self._texts = [job.model_dump_json() for job in jobs]
        self._pack = pack
        self._logs = jobs[0].folder.parent / LOGS
        self._alive: list[Any] = []
        self._deaths = 0
        try:
            self._executor = submitit.AutoExecutor(folder=self._logs, cluster=cluster)
        except RuntimeError as error:
            raise SoftkneeError(f"this is no machine of a Slurm cluster: {error}") from error
        threads = max(job.spec.threads for job in jobs)
        self._executor.update_parameters(name="softknee", timeout_min=MINUTES, cpus_per_task=threads)

    def fill(self, number: int) -> None:
        """Submit what is missing, as one array."""
        missing = number - len(self._alive)
        if missing > 0:
            with self._executor.batch():
                new = [self._executor.submit(work_through, self._texts, say, self._pack) for _ in range(missing)]
            self._alive += new

    def collect(self, *, anything_new: bool) -> None:
        """Take the ends of workers; any but the regular one means another worker.

        Raises:
            SoftkneeError: One met what all others would meet, or workers die before they do anything.
        """
        ended = [worker for worker in self._alive if worker.done()]
        self._alive = [worker for worker in self._alive if worker not in ended]
        self._deaths = 0 if anything_new else self._deaths
        for worker in ended:
            error = worker.exception()
            if isinstance(error, self._submitit.core.utils.FailedJobError):
                raise SoftkneeError(f"a worker failed: {_last_line(str(error))}; see {self._logs}")
            self._deaths += error is not None
            if self._deaths == DEATHS:
                raise SoftkneeError(f"{DEATHS} workers in a row died before they did anything; see {self._logs}")

    def cancel(self) -> None:
        """Leave no worker behind; the runs they are in go on in the next call."""
        for worker in self._alive:
            worker.cancel(check=False)


def _last_line(text: str) -> str:
    """Return the last line of the traceback in a message of submitit's."""
    trace = text.split(RULE)[1] if text.count(RULE) > 1 else text
    return trace.strip().splitlines()[-1]
