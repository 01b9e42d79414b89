"""One process at a time works in a study's folder."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from softknee._bench.study_files import RUNS
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
PROBE = 64 * 1024  # bytes: a study needs more than an empty file


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it however the process ends. Without POSIX locks, hold nothing.

    Args:
        folder: Of the study; made if it is not there.

    Yields:
        Nothing.

    Raises:
        UsageError: Another process works there, or nothing can be written.
    """
    check_writable(folder, within=RUNS)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / RUNS / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is working in {folder}; wait for it, or give another folder as out"
            ) from None
        yield


def check_writable(folder: Path, *, within: str = "") -> None:
    """Make a folder for a study or suite and see that files can be written in it.

    Args:
        folder: Its own.
        within: The folder in that one which is made and tried.

    Raises:
        UsageError: It cannot be made or written; the message says why.
    """
    probe = folder / within / f".{secrets.token_hex(6)}.part"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE))
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write in {folder}: {reason}; mend that, or give another folder as out") from error
