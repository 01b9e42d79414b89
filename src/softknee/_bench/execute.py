"""Ways to execute jobs: warm child processes, one a slot, or this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from softknee._bench.attempts import Watch, note_death
from softknee._bench.pack import shares
from softknee._bench.runs import SHARE
from softknee._bench.work import attempt
from softknee._errors import SoftkneeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.runs import Job, Status

    Share = tuple[Job, ...]

STARTS = 20  # of a child that dies before it takes a job: more than a hunt for processes brings about
PAUSE = 0.2  # seconds before a run is asked for again that another process holds
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


def run_here(jobs: Sequence[Job], listen: Callable[[Event], None], *, pack: int = 1) -> None:
    """Execute jobs in this process: for notebooks and tests.

    Args:
        jobs: In the order they are started; one that another process works on is waited for.
        listen: Called with what happens.
        pack: Runs that may be trained side by side.

    Raises:
        SoftkneeError: Nothing can be written.
    """
    waiting, watch = deque(shares(jobs, pack=pack, slots=1)), Watch()
    while waiting:
        share = waiting.popleft()
        statuses = attempt(share, watch, lambda job, epoch, score: listen(Event(job, epoch, None, score)))
        held = _tell(share, statuses, listen)
        if held:
            waiting.append(held)
            time.sleep(PAUSE)


def _tell(share: Share, statuses: Sequence[Status | None], listen: Callable[[Event], None]) -> Share:
    """Tell which runs of a share have ended; return those that other processes hold."""
    for job, status in zip(share, statuses, strict=True):
        if status is not None:
            listen(Event(job, status=status))
    return tuple(job for job, status in zip(share, statuses, strict=True) if status is None)


def run_in_children(jobs: Sequence[Job], listen: Callable[[Event], None], *, slots: int, pack: int = 1) -> None:
    """Execute jobs in `slots` child processes that stay warm between jobs.

    A child that dies is replaced and its run goes on where it was; a run is lost when several attempts in a row die
    without a further epoch, and the others go on. However this function is left, no child is left behind, and
    unfinished runs can be resumed.

    Args:
        jobs: In the order they are started; one that another process works on is waited for.
        listen: Called in this thread.
        slots: How many children work at the same time.
        pack: Runs that each may train side by side.

    Raises:
        SoftkneeError: Nothing can be written, or children die before they do anything.
    """
    waiting = deque(shares(jobs, pack=pack, slots=slots))
    events: SimpleQueue[Event] = SimpleQueue()
    slot_list = [_Slot(waiting, events) for _ in range(min(slots, len(waiting)))]
    threads = [threading.Thread(target=slot.work, daemon=True) for slot in slot_list]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or not events.empty():
            _raise_first(slot_list)
            event = _next(events)
            if event is not None:
                listen(event)
    finally:
        waiting.clear()
        for slot in slot_list:
            slot.stop()
        for thread in threads:
            thread.join()
    _raise_first(slot_list)


def _raise_first(slots: Sequence[_Slot]) -> None:
    for slot in slots:
        if slot.error is not None:
            raise slot.error


def _next(events: SimpleQueue[Event]) -> Event | None:
    try:
        return events.get(timeout=0.1)
    except Empty:
        return None


class _Slot:
    """A child process and the thread that feeds it."""

    def __init__(self, waiting: deque[Share], events: SimpleQueue[Event]) -> None:
        self._waiting = waiting
        self._events = events
        self._child: _Child | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._failed_starts = 0
        self.error: BaseException | None = None

    def work(self) -> None:
        """Take shares until there are none; an exception is kept for the caller's thread, and ends the others' work."""
        try:
            while not self._stopped.is_set() and (share := self._next_share()) is not None:
                self._run(share)
        except BaseException as error:
            self.error = error
            self._waiting.clear()
        finally:
            if self._child is not None:
                self._child.end()

    def stop(self) -> None:
        """End the child at once; the runs it is in can be resumed from their last epochs."""
        with self._lock:
            self._stopped.set()
            if self._child is not None:
                self._child.kill()

    def _next_share(self) -> Share | None:
        """Take the next share; asking first whether there is one would race with the other slots."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _run(self, share: Share) -> None:
        child = self._warm_child(share[0].spec.threads)
        statuses = child.run(share, self._events.put)
        if statuses is None:
            self._bury(child, share)
            # By themselves from now on, so that the others end, whichever the process died of.
            self._waiting.extendleft((job,) for job in reversed(share))
        elif held := _tell(share, statuses, self._events.put):  # by processes of another machine perhaps
            self._waiting.append(held)
            self._stopped.wait(PAUSE)

    def _bury(self, child: _Child, share: Share) -> None:
        """Write down how a child died.

        Raises:
            SoftkneeError: It never began, and another would not either; that has nothing to do with the share.
        """
        words = child.end()
        if child.began:
            self._failed_starts = 0
            for job in share:
                note_death(job.folder, child.pid, words, on_purpose=self._stopped.is_set())
            return
        self._failed_starts += 1
        if not self._stopped.is_set() and (child.failed or self._failed_starts == STARTS):
            raise SoftkneeError(f"a process for runs cannot be started: {words}")

    def _warm_child(self, threads: int) -> _Child:
        with self._lock:
            if self._child is not None and self._child.is_dead():
                self._child.end()
                self._child = None
            self._child = self._child or _Child(threads)
            if self._stopped.is_set():
                self._child.kill()
            return self._child


class _Child:
    """A warm worker process.

    Attributes:
        pid: Its id.
        began: Whether it came so far that it could take a job.
    """

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
        self.pid = self._process.pid
        self.began = False

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not by a signal: another would, too."""
        return (self._process.poll() or 0) > 0

    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def run(self, share: Share, put: Callable[[Event], None]) -> list[Status | None] | None:
        """Do the share and pass its epochs on; None when the process dies before it has told the end.

        Raises:
            SoftkneeError: It cannot write.
        """
        try:
            print(SHARE.dump_json(share).decode(), file=self._process.stdin, flush=True)
            for line in self._process.stdout or ():
                event = json.loads(line)
                self.began = True
                if event["event"] == "end":
                    return list(event["statuses"])
                if event["event"] == "refused":
                    raise SoftkneeError(event["message"])
                if event["event"] == "epoch":
                    put(Event(share[event["run"]], event["epoch"], None, event["score"]))
        except (BrokenPipeError, json.JSONDecodeError):
            pass  # it died while it was written to, or in the middle of a line
        return None

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
        return f"its process died with exit status {status}{': ' if words else ''}{words}"
