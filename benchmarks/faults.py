"""Faults: what becomes of a study whose workers are killed, whose cluster loses a node, whose disk fills.

Each study is compared with an undisturbed one of the same runs, in a fresh folder: all runs must end `done` with the
same numbers bit by bit, and no run may be trained to its end twice, which is seen by a watcher of the results' files.

`kills`: the local executor, while a random one of its workers gets SIGKILL at random moments.
`packed`: the same with four runs side by side in each worker, until one of them dies.
`node`: a Ray cluster of two nodes on this machine, one of which goes away without a word in the middle.
`disk`: a file system of 64 MB that fills up while runs go on, and is then read only (needs leave to mount one).

Usage: python benchmarks/faults.py [kills] [packed] [node] [disk] [--runs 100] [--kills 20] [--every 2.0]
       [--epochs 30] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import softknee as sk
from softknee._errors import SoftkneeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROTOCOL, ACTIVATIONS = "gmm-2d", ("relu", "prelu")
TIMES = ("seconds", "step_seconds")
WORKER = b"softknee._bench.worker"


def study(folder: Path, options: argparse.Namespace, **more: Any) -> None:
    """Have the study done, or go on."""
    seeds = options.runs // len(ACTIVATIONS)
    sk.bench(PROTOCOL, ACTIVATIONS, seeds=seeds, epochs=options.epochs, out=folder, jobs=options.jobs, **more)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of a study by key, without the times."""
    read = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")}
    return {key: {k: v for k, v in result.items() if k not in TIMES} for key, result in read.items()}


@contextmanager
def watched(folder: Path) -> Iterator[dict[str, set[int]]]:
    """Collect the files that each run's result has been; every one that is written has a number of its own."""
    files: dict[str, set[int]] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for path in folder.glob("runs/*/result.json"):
                files.setdefault(path.parent.name, set()).add(path.stat().st_ino)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        over.set()
        thread.join()


def verdict(name: str, folder: Path, whole: Path, files: dict[str, set[int]]) -> bool:
    """Print and return whether a study is what the undisturbed one is."""
    got, wanted = results(folder), results(whole)
    done = sum(result["status"] == "done" for result in got.values())
    same = sum(got.get(key) == result for key, result in wanted.items())
    twice = sum(len(numbers) > 1 for numbers in files.values())
    left = [path.name for path in folder.glob("runs/*/*") if path.name != "result.json"]
    good = done == same == len(wanted) and not twice and not left
    print(
        f"{name}: {done} of {len(wanted)} runs done, {same} with the same numbers, {twice} trained twice, left {left}"
    )
    return good


def workers() -> list[int]:
    """Return the ids of this process's workers."""
    listings = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return [int(pid) for pids in listings for pid in pids if is_worker(pid)]


def is_worker(pid: str) -> bool:
    """Return whether a process is one of the local executor's."""
    try:
        return WORKER in Path("/proc", pid, "cmdline").read_bytes()
    except FileNotFoundError:
        return False


def with_kills(folder: Path, whole: Path, options: argparse.Namespace, pack: int = 1) -> bool:
    """Kill random workers at random moments until the study is finished."""
    generator, over, killed = random.Random(0), threading.Event(), []

    def hunt() -> None:
        while not over.wait(generator.expovariate(1 / options.every)):
            living = workers()
            if living:
                os.kill(generator.choice(living), signal.SIGKILL)
                killed.append(time.monotonic())

    hunter = threading.Thread(target=hunt, daemon=True)
    with watched(folder) as files:
        hunter.start()
        try:
            study(folder, options, pack=pack)
        finally:
            over.set()
            hunter.join()
    print(f"{folder.name}: {len(killed)} workers killed")
    return verdict(folder.name, folder, whole, files) and len(killed) >= options.kills


def with_lost_node(folder: Path, whole: Path, options: argparse.Namespace) -> bool:
    """Take one of two nodes away when a third of the runs are done."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    ends = 0

    def lose(progress: Any) -> None:
        nonlocal ends
        ends += progress.event.status is not None
        if ends >= options.runs // 3 and len(nodes) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            print(f"node: one of two lost after {ends} runs")

    try:
        with watched(folder) as files:
            study(folder, options, executor="ray", progress=lose)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return verdict("node", folder, whole, files) and len(nodes) == 1


def with_full_disk(folder: Path, whole: Path, options: argparse.Namespace) -> bool:
    """Fill the disk when a third of the runs are done, go on with room, and try a read-only one."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "none", str(folder))
    try:
        out, ballast, ends = folder / "study", folder / "ballast", 0

        def fill(progress: Any) -> None:
            nonlocal ends
            ends += progress.event.status is not None
            if ends == options.runs // 3:
                fill_up(ballast)

        full = complaint(lambda: study(out, options, progress=fill))
        kept = results(out)
        print(f"disk: full after {len(kept)} runs: {full}")
        ballast.unlink()
        mount("-o", "remount,ro", str(folder))
        read_only = complaint(lambda: study(out, options))
        print(f"disk: read only: {read_only}")
        mount("-o", "remount,rw", str(folder))
        finished = {key for key, result in kept.items() if result["status"] == "done"}
        before = {key: (out / "runs" / key / "result.json").stat().st_ino for key in finished}
        with watched(out) as files:
            study(out, options)
        stayed = all((out / "runs" / key / "result.json").stat().st_ino == number for key, number in before.items())
        same = verdict("disk", out, whole, files)
        return same and stayed and finished == set(kept) and "No space" in full and "Read-only" in read_only
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def fill_up(ballast: Path) -> None:
    """Write until nothing fits any more."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def complaint(work: Callable[[], None]) -> str:
    """Return the one error that some work ends with, or nothing."""
    try:
        work()
    except SoftkneeError as error:
        return str(error)
    return ""


def mount(*arguments: str) -> None:
    """Mount a file system."""
    subprocess.run(["mount", *arguments], check=True)


FAULTS = {
    "kills": with_kills,
    "packed": partial(with_kills, pack=4),
    "node": with_lost_node,
    "disk": with_full_disk,
}


def main() -> None:
    """Try the faults and say what held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20, help="least number of kills")
    parser.add_argument("--every", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary, "undisturbed")
        study(whole, options)
        held = {name: FAULTS[name](Path(temporary, name), whole, options) for name in options.faults}
    print(", ".join(f"{name}: {'held' if good else 'BROKEN'}" for name, good in held.items()))
    raise SystemExit(not all(held.values()))


if __name__ == "__main__":
    main()
