"""What an executor knows of runs that processes elsewhere do: what their folders say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench.attempts import read_attempts
from softknee._bench.execute import Event
from softknee._bench.runs import ended_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.runs import Job


class Watched:
    """Runs that are done elsewhere, as events.

    Attributes:
        open: Those that have not ended.
        changes: Counts what happened: attempts, epochs and ends.
    """

    def __init__(self, jobs: Sequence[Job], listen: Callable[[Event], None]) -> None:
        self.open = list(jobs)
        self.changes = 0
        self._listen = listen
        self._known: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Read the folders and tell what is new."""
        for job in list(self.open):
            status = ended_status(job)
            if status is not None:
                self.open.remove(job)
                self.changes += 1
                self._listen(Event(job, status=status))
            else:
                self._look_at(job)

    def _look_at(self, job: Job) -> None:
        attempts = read_attempts(job.folder)
        reached = max((attempt.epoch for attempt in attempts), default=0)
        known = self._known.get(job.spec.key, (0, 0))
        if (len(attempts), reached) != known:
            self._known[job.spec.key] = (len(attempts), reached)
            self.changes += 1
            if reached > known[1]:
                self._listen(Event(job, reached))
