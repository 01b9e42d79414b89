"""Two processes joined by gloo, started once, which run checks by name."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from networks import WORLD
from torch import multiprocessing

# Seconds in which a check must end; a process that waits for one that failed waits for ever.
LIMIT = 120
AFTER_A_FAILURE = 2


class Pair:
    """Calls a function in both processes; it fails where the function does."""

    def __init__(self):
        self._processes = []
        self._connections = []
        self._folder = None

    def __call__(self, check, *arguments):
        """Run `check(rank, *arguments)`, a function at the top of a module, in both at once."""
        if not self._processes:
            self._start()
        for connection in self._connections:
            connection.send((check, arguments))
        complaints, limit = [], LIMIT
        for rank, connection in enumerate(self._connections):
            answered = connection.poll(limit)
            complaint = connection.recv() if answered else f"process {rank} did not answer"
            if complaint:
                complaints.append(complaint)
                limit = AFTER_A_FAILURE
        if complaints:
            self.stop()
            raise AssertionError("\n".join(complaints))

    def _start(self):
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        for rank in range(WORLD):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, self._folder.name), daemon=True)
            process.start()
            self._processes.append(process)
            self._connections.append(ours)

    def stop(self):
        """End both."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(None)
        for process in self._processes:
            process.join(AFTER_A_FAILURE)
            process.kill()
            process.join()
        self._processes, self._connections = [], []
        if self._folder is not None:
            self._folder.cleanup()


def _serve(connection, rank, folder):
    torch.set_num_threads(1)
    # The name of this machine need not lead to an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    store = dist.FileStore(str(Path(folder) / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=LIMIT))
    while (asked := connection.recv()) is not None:
        check, arguments = asked
        try:
            torch.manual_seed(0)
            check(rank, *arguments)
        except BaseException:
            connection.send(f"process {rank}:\n{traceback.format_exc()}")
        else:
            connection.send("")
    dist.destroy_process_group()
