"""Processes to be killed, forked from a server that has imported what they need, so that they begin at once."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", "scipy.special", "softknee._search.search", "softknee._search.enumerate"])
# Seconds that are waited for what must come.
PATIENCE = 60.0


@contextmanager
def process(function: Callable[..., object], *arguments: object) -> Iterator[multiprocessing.Process]:
    """Run a function of a module in a process with one thread, and kill it at the end."""
    child = _CONTEXT.Process(target=_run, args=(function, *arguments))
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def await_(what: Callable[[], bool], child: multiprocessing.Process) -> None:
    """Wait until something is so, while the process lives."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert child.is_alive(), f"it ended with {child.exitcode}"
        assert time.monotonic() < end
        time.sleep(0.002)


def _run(function: Callable[..., object], *arguments: object) -> None:
    torch.set_num_threads(1)
    function(*arguments)
