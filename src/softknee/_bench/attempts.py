"""Who works on a run: every attempt has a file in the run's folder, and the newest one holds the run.

Whoever wants a run makes the file with the next number, which only one process can do, on network file systems too. The
holder shows that it lives by touching its file. A holder on this machine is dead when its process is gone; any other is
dead when its file was not touched for a while by the watcher's own clock, so that clocks need not agree. Numbers only
grow until the run has ended, so a slow watcher cannot mistake a new holder for the one it saw dying.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

ATTEMPTS = 5  # that bring a run no further, one after the other, before it counts as lost
BEAT = 10.0  # seconds between two signs of life
STALE = 90.0  # seconds without one after which a holder counts as dead
_PATTERN = "attempt-*.json"
# Of processes that died while they wrote, and of the attempts themselves.
_LEFTOVERS = (".*.part", "*.partial", _PATTERN)


@dataclass(frozen=True)
class Attempt:
    """What an attempt's file says.

    Attributes:
        number: Its place among the attempts at the run, from 1.
        machine: Where its process runs.
        pid: Of the process, as that machine counts.
        epoch: The last epoch it finished, 0 before the first.
        given_up: Whether it was ended on purpose; it then says nothing against the run.
        words: How its process died, where somebody saw it.
    """

    number: int
    machine: str = ""
    pid: int = 0
    epoch: int = 0
    given_up: bool = False
    words: str = ""


def read_attempts(folder: Path) -> list[Attempt]:
    """Return the attempts at a run that has not ended, in order; one whose file is being written says nothing."""
    return [_read(path) for path in sorted(folder.glob(_PATTERN))]


def fruitless(attempts: Sequence[Attempt]) -> int:
    """Count the last attempts that brought the run no further and were not ended on purpose."""
    reached = count = 0
    for attempt in attempts:
        if attempt.epoch > reached:
            reached, count = attempt.epoch, 0
        elif not attempt.given_up:
            count += 1
    return count


def clear(folder: Path) -> None:
    """Remove what attempts at a run that has ended left; the newest's file goes last, so that the run stays held."""
    for pattern in _LEFTOVERS:
        for path in sorted(folder.glob(pattern)):
            path.unlink(missing_ok=True)


def note_death(folder: Path, pid: int, words: str, *, on_purpose: bool = False) -> None:
    """Write down how a process of this machine ended that held a run.

    Args:
        folder: The run's own.
        pid: Of the process, which is gone.
        words: How it died.
        on_purpose: Whether it was ended to stop the work.
    """
    attempts = read_attempts(folder)
    if attempts and (attempts[-1].machine, attempts[-1].pid) == (machine(), pid):
        _write(folder, replace(attempts[-1], words=words, given_up=on_purpose or attempts[-1].given_up))


class Watch:
    """Tells dead holders from living ones; it needs to see a holder of another machine more than once."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def is_held(self, folder: Path, attempts: Sequence[Attempt]) -> bool:
        """Return whether the newest attempt still works on the run, as far as can be known.

        Args:
            folder: The run's own.
            attempts: Those at the run.
        """
        if not attempts or attempts[-1].given_up:
            return False
        newest = attempts[-1]
        if newest.machine == machine() and not _is_running(newest.pid):
            return False
        path, now = _path(folder, newest.number), time.monotonic()
        touched = _touched(path)
        if path not in self._seen or self._seen[path][0] != touched:
            self._seen[path] = (touched, now)
        return now - self._seen[path][1] < STALE


class Lease:
    """The right to work on a run, from `take`; as a context it shows signs of life, and gives the run up at its end.

    An exception on the way out that is neither the folder's nor a wish to stop counts against the run.

    Attributes:
        earlier: The attempts before this one.
    """

    def __init__(self, folder: Path, attempt: Attempt, earlier: Sequence[Attempt]) -> None:
        self.earlier = earlier
        self._folder = folder
        self._attempt = attempt
        self._over = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over.is_set():
            return
        self._over.set()
        if self.is_superseded():  # and perhaps its folder was cleared
            return
        fault = kind is not None and issubclass(kind, Exception) and not issubclass(kind, OSError)
        self._attempt = replace(self._attempt, given_up=not fault, words=repr(error) if fault else "")
        try:
            _write(self._folder, self._attempt)
        except OSError:  # where nothing can be written any more, it can often be removed
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def note(self, epoch: int) -> None:
        """Write down that an epoch is finished."""
        self._attempt = replace(self._attempt, epoch=epoch)
        _write(self._folder, self._attempt)

    def is_superseded(self) -> bool:
        """Return whether another process took this one for dead, and works on the run or has ended it."""
        return _path(self._folder, self._attempt.number + 1).exists() or not self._path.exists()

    def end(self) -> None:
        """Forget all attempts: the run has ended."""
        self._over.set()
        clear(self._folder)

    @property
    def _path(self) -> Path:
        return _path(self._folder, self._attempt.number)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # a network file system may be away for a moment
                os.utime(self._path)


def take(folder: Path, watch: Watch) -> Lease | None:
    """Take the right to work on a run.

    Args:
        folder: The run's own; made if it is not there.
        watch: Of this process.

    Returns:
        The lease, or None while another process holds the run.

    Raises:
        OSError: Nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read_attempts(folder)
    if watch.is_held(folder, earlier):
        return None
    number = earlier[-1].number + 1 if earlier else 1
    attempt = Attempt(number, machine(), os.getpid())
    path = _path(folder, number)
    try:
        file = path.open("x")
    except FileExistsError:
        return None
    try:
        with file:
            json.dump(asdict(attempt), file)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return Lease(folder, attempt, earlier)


@lru_cache(maxsize=1)
def machine() -> str:
    """Name what process ids are counted by: a host since it was started, or a container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _path(folder: Path, number: int) -> Path:
    return folder / f"attempt-{number:05}.json"


def _touched(path: Path) -> int:
    """Return when a file was touched; opening it makes network file systems ask their server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _read(path: Path) -> Attempt:
    number = int(path.stem.partition("-")[2])
    try:
        return replace(Attempt(**json.loads(path.read_text())), number=number)
    except (FileNotFoundError, ValueError, TypeError):
        return Attempt(number)


def _write(folder: Path, attempt: Attempt) -> None:
    """Replace an attempt's file at once, without waiting for the disk: after a crash of the machine it is old news."""
    path = _path(folder, attempt.number)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(asdict(attempt)))
    part.replace(path)
