"""Ways to execute jobs: warm child processes, one a slot, or this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from softknee._bench.runs import finished_status, write_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from softknee._bench.runs import Job, Status

ATTEMPTS = 2
LONGEST_COMPLAINT = 2000


@dataclass(frozen=True)
class Event:
    """Something happened to a run.

    Attributes:
        job: The run.
        epoch: The epoch just finished, 0 at the end of the run.
        status: How the run ended, None while it goes on.
        score: The metric after the epoch.
    """

    job: Job
    epoch: int = 0
    status: Status | None = None
    score: float | None = None


def run_here(jobs: Sequence[Job], listen: Callable[[Event], None]) -> None:
    """Execute jobs one after the other in this process: for notebooks and tests."""
    from softknee._bench.train import execute

    for job in jobs:
        status = execute(job, lambda epoch, score, job=job: listen(Event(job, epoch, None, score)))  # type: ignore[misc]
        listen(Event(job, status=status))


def run_in_children(jobs: Sequence[Job], listen: Callable[[Event], None], *, slots: int) -> None:
    """Execute jobs in `slots` child processes that stay warm between jobs.

    A child that dies is replaced and its job tried once more; if that dies too, the run is recorded as lost and the
    others go on. However this function is left, no child is left behind, and unfinished runs can be resumed.

    Args:
        jobs: In the order they are started.
        listen: Called in this thread.
        slots: How many children work at the same time.
    """
    waiting = deque(jobs)
    events: SimpleQueue[Event] = SimpleQueue()
    slot_list = [_Slot(waiting, events) for _ in range(min(slots, len(jobs)))]
    threads = [threading.Thread(target=slot.work, daemon=True) for slot in slot_list]
    try:
        for thread in threads:
            thread.start()
        for event in _until_done(events, threads):
            listen(event)
    finally:
        waiting.clear()
        for slot in slot_list:
            slot.stop()
        for thread in threads:
            thread.join()
    for slot in slot_list:
        if slot.error is not None:
            raise slot.error


def _until_done(events: SimpleQueue[Event], threads: Sequence[threading.Thread]) -> Iterator[Event]:
    while any(thread.is_alive() for thread in threads) or not events.empty():
        event = _next(events)
        if event is not None:
            yield event


def _next(events: SimpleQueue[Event]) -> Event | None:
    try:
        return events.get(timeout=0.1)
    except Empty:
        return None


class _Slot:
    """A child process and the thread that feeds it."""

    def __init__(self, waiting: deque[Job], events: SimpleQueue[Event]) -> None:
        self._waiting = waiting
        self._events = events
        self._child: _Child | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Take jobs until there are none; an exception is kept for the caller's thread."""
        try:
            while not self._stopped and (job := self._next_job()) is not None:
                self._run(job)
        except BaseException as error:
            self.error = error
        finally:
            if self._child is not None:
                self._child.end()

    def stop(self) -> None:
        """End the child at once; the run it is in can be resumed from its last epoch."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def _next_job(self) -> Job | None:
        """Take the next job; asking first whether there is one would race with the other slots."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _run(self, job: Job) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            child = self._warm_child(job.spec.threads)
            status = child.run(job, self._events.put)
            if status is None and not self._stopped:
                complaint = child.end()
                if attempt == ATTEMPTS:
                    write_failure(job.folder, job.spec, "lost", kind="ProcessDied", message=complaint)
                    status = "lost"
            if status is not None or self._stopped:
                break
        if status is not None:
            self._events.put(Event(job, status=status))

    def _warm_child(self, threads: int) -> _Child:
        with self._lock:
            if self._child is None or self._child.is_dead():
                self._child = _Child(threads)
            if self._stopped:
                self._child.kill()
            return self._child


class _Child:
    """A warm worker process."""

    def __init__(self, threads: int) -> None:
        package = str(Path(__file__).parents[2])
        paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed by end)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "softknee._bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
        )

    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def run(self, job: Job, put: Callable[[Event], None]) -> Status | None:
        """Do the job and pass its events on; None when the process dies before it has told the end."""
        try:
            print(job.model_dump_json(), file=self._process.stdin, flush=True)
            for line in self._process.stdout or ():
                event = json.loads(line)
                if event["event"] == "end":
                    return event["status"]  # type: ignore[no-any-return]
                put(Event(job, event["epoch"], None, event["score"]))
        except (BrokenPipeError, json.JSONDecodeError):
            pass  # it died while it was written to, or in the middle of a line
        return finished_status(job)

    def end(self) -> str:
        """Make sure the process is gone, free its pipes and say how it ended, with its last words."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        if self._complaints.closed:
            return ""
        self._complaints.seek(0)
        words = self._complaints.read().strip()[-LONGEST_COMPLAINT:]
        self._complaints.close()
        return f"the process died {ATTEMPTS} times, last with exit status {status}{': ' if words else ''}{words}"
