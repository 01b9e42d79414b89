"""Execute jobs as tasks of a Ray cluster, the one that is there or one on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from softknee._bench.execute_watched import Watched
from softknee._bench.pack import shares
from softknee._bench.work import say, work_through
from softknee._errors import SoftkneeError
from softknee._extras import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from softknee._bench.execute import Event
    from softknee._bench.runs import Job

LOOK = 1.0  # seconds between looks at the folders
GOODBYE = 5.0  # seconds that tasks have to give their runs up
DEATHS = 20  # of tasks, one after the other, while nothing happens in any folder


def run_with_ray(
    jobs: Sequence[Job], listen: Callable[[Event], None], *, slots: int | None = None, pack: int = 1
) -> None:
    """Execute jobs as Ray tasks, one a run or a pack of them; what a node loses goes on at another.

    The cluster is the one this process is connected to; else the one Ray finds (`RAY_ADDRESS`, or one started on this
    machine); else one of this machine for the time being. All its nodes must see the study's folder, and the data,
    under the same paths.

    Args:
        jobs: In the order they are started.
        listen: Called in this thread; of epochs it is told as folders are looked at.
        slots: How many tasks there are at the same time; by default twice as many as the cluster has processors, so
            that none is idle.
        pack: Runs that a task may train side by side.

    Raises:
        SoftkneeError: Nothing can be written, tasks die before they do anything, or machines are of several kinds.
        MissingExtra: Ray is not installed.
    """
    ray = require("ray", extra="ray")
    with _cluster(ray, slots):
        _Tasks(ray, jobs, listen, slots=slots, pack=pack).finish()


@contextmanager
def _cluster(ray: Any, slots: int | None) -> Iterator[None]:
    """Be connected to a cluster.

    Raises:
        SoftkneeError: None can be reached or started.
    """
    if ray.is_initialized():
        yield
        return
    try:
        with _same_signals():
            _connect(ray, slots)
    except Exception as error:  # Ray raises plain ones, too
        raise SoftkneeError(f"no Ray cluster can be reached or started: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any, slots: int | None) -> None:
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)


@contextmanager
def _same_signals() -> Iterator[None]:
    """Keep Ray from putting its own end in the place of ours, which leaves no task behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Tasks:
    """The tasks of one call."""

    def __init__(
        self, ray: Any, jobs: Sequence[Job], listen: Callable[[Event], None], *, slots: int | None, pack: int
    ) -> None:
        self._ray = ray
        self._slots = slots
        self._waiting = shares(jobs, pack=pack, slots=self._most())[::-1]
        self._watched = Watched(jobs, listen)
        self._pending: dict[Any, tuple[Job, ...]] = {}
        self._deaths = 0
        self._task = ray.remote(max_retries=0)(work_through)

    def finish(self) -> None:
        """Start tasks and wait until every run has ended; however this is left, no task goes on."""
        try:
            while self._waiting or self._pending:
                self._fill()
                ready, _ = self._ray.wait(list(self._pending), timeout=LOOK)
                before = self._watched.changes
                self._watched.look()
                self._deaths = self._deaths if self._watched.changes == before else 0
                for reference in ready:
                    self._collect(reference)
            self._watched.look()
        finally:
            self._cancel()

    def _most(self) -> int:
        return self._slots or 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _fill(self) -> None:
        while self._waiting and len(self._pending) < self._most():
            share = self._waiting.pop()
            task = self._task.options(num_cpus=share[0].spec.threads)
            texts = [job.model_dump_json() for job in share]
            self._pending[task.remote(texts, say, len(share))] = share

    def _collect(self, reference: Any) -> None:
        """Take a task's end; the loss of its process means another task for each of its runs.

        Raises:
            SoftkneeError: The task met what all others would meet, or tasks die before they do anything.
        """
        share = self._pending.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SoftkneeError):
                raise SoftkneeError(str(error.cause)) from None
            raise SoftkneeError(f"a task failed: {error.cause!r}") from error
        except self._ray.exceptions.RayError as error:
            self._deaths += 1
            if self._deaths == DEATHS:
                raise SoftkneeError(f"{DEATHS} tasks in a row died before they did anything: {error}") from error
            self._waiting += [(job,) for job in share]

    def _cancel(self) -> None:
        for reference in self._pending:
            self._ray.cancel(reference, force=False)
        deadline = time.monotonic() + GOODBYE
        while self._pending and time.monotonic() < deadline:
            ready, _ = self._ray.wait(list(self._pending), timeout=LOOK)
            for reference in ready:
                del self._pending[reference]
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
