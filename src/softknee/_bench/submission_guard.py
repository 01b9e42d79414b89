"""A child process for code that is not ours: watched for its time and memory, and ended with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from softknee._bench.protocol import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The first answer, before anything that is not ours is run; and how many seconds it may take on a busy machine.
READY, STARTING = {"ready": True}, 600.0
# Seconds between two looks at the process.
INTERVAL = 0.1
# Characters of what it says on standard error that are kept, and how many of them are read at once.
KEPT_WORDS, CHUNK = 2000, 4096
GIGABYTE = 1e9
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class Limits(Frozen):
    """What a child process may take.

    Attributes:
        seconds: Between two signs of life.
        gigabytes: Of memory, None for any amount; watched where there is `/proc`.
    """

    seconds: float
    gigabytes: float | None


class Stopped(Exception):
    """The process came to an end before its time; the message says how, as the end of a sentence about it."""


def half_of_memory() -> float | None:
    """Return half of this machine's memory, or of this container's, in gigabytes; None where nobody says."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    with suppress(OSError, ValueError):  # elsewhere it is not there; without a limit it says "max"
        sizes.append(int(_CGROUP.read_text()))
    return min(sizes) / 2 / GIGABYTE if sizes else None


@contextmanager
def guarded(request: Mapping[str, Any], limits: Limits, *, threads: int = 1) -> Iterator[Iterator[dict[str, Any]]]:
    """Start a child process on a request; however the context is left, the process and its children are ended.

    Args:
        request: As `softknee._bench.submission_child` takes it.
        limits: What the process may take.
        threads: Of its arithmetic.

    Yields:
        Its answers, as they come. They raise `Stopped` where it breaks a limit, or dies before anybody has stopped
        listening.
    """
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "softknee._bench.submission_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        start_new_session=True,  # a group of its own, which ends as a whole
    )
    talk = _Talk(process)
    try:
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=process.stdin, flush=True)
        yield talk.answers(limits)
    finally:
        talk.end()


class _Talk:
    """What a process says, read by threads so that nobody has to wait for it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: SimpleQueue[str] = SimpleQueue()
        self.words = b""
        self.threads = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_words)]
        for thread in self.threads:
            thread.start()

    def _read_lines(self) -> None:
        for line in self.process.stdout or ():
            self.lines.put(line)

    def _read_words(self) -> None:
        """Keep the last words on standard error, of which there may be no end."""
        assert self.process.stderr is not None  # noqa: S101 - it is a pipe
        while chunk := os.read(self.process.stderr.fileno(), CHUNK):
            self.words = (self.words + chunk)[-KEPT_WORDS:]

    def answers(self, limits: Limits) -> Iterator[dict[str, Any]]:
        heard, patience = time.monotonic(), STARTING
        while True:
            ended = self.process.poll() is not None
            try:
                answer = json.loads(self.lines.get(timeout=INTERVAL))
                if answer != READY:
                    yield answer
                heard, patience = time.monotonic(), limits.seconds
            except Empty:
                if ended:
                    raise Stopped(f"it ended its process {_how(self.process.returncode)}{self._last()}") from None
            if time.monotonic() - heard > patience:
                raise Stopped(f"it took longer than {_duration(patience)}")
            if limits.gigabytes is not None and _memory(self.process.pid) > limits.gigabytes * GIGABYTE:
                raise Stopped(f"it took more than {limits.gigabytes:.3g} GB of memory")

    def _last(self) -> str:
        lines = self.words.decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def end(self) -> None:
        """End the process and its group; pipes that somebody else still holds are left to the threads."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):  # it is gone already
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        for thread, pipe in zip(self.threads, (self.process.stdout, self.process.stderr), strict=True):
            thread.join(timeout=1)
            if pipe is not None and not thread.is_alive():
                pipe.close()


def _how(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


def _duration(seconds: float) -> str:
    return f"{seconds:g} seconds" if seconds < 120 else f"{seconds / 60:g} minutes"


def _memory(pid: int) -> int:
    """Return how many bytes of memory a process holds; 0 where nobody says."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
