"""Keeps freed memory in the process, at its user's wish."""

from __future__ import annotations

import ctypes
import sys

from softknee._errors import UsageError

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_memory() -> None:
    """Have the C library keep freed memory for the next tensor, instead of handing it back to the system each time.

    On a CPU, most of an activation's time on a large tensor is the system's work of giving it fresh memory, page by
    page. This changes the allocator of the whole process, from now on: fewer page faults, but memory once used is not
    given back, and freed blocks may be split among smaller ones. It cannot be undone.

    Raises:
        UsageError: The C library is not glibc, which alone has these settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or not (mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _LARGEST)):
        raise UsageError("memory can be kept with glibc on Linux only; set nothing here, and lose only time")
