"""One process at a time works in a study's folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from softknee._bench.study_files import RUNS
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it however the process ends. Without POSIX locks, hold nothing.

    Args:
        folder: Of the study; made if it is not there.

    Yields:
        Nothing.

    Raises:
        UsageError: Another process works there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    with (folder / RUNS / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is working in {folder}; wait for it, or give another folder as out"
            ) from None
        yield
