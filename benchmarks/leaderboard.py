"""Reports and leaderboards of many runs: processor time, memory and size of what is written.

Fabricates 10,000 runs of `fashion-mlp`, with all the fields and the size of real ones and 10,000 test examples each:
50 activations with 200 seeds in one study, and the same number in 20 studies of 50 activations with 10 seeds. Two in a
hundred diverged. Then `softknee report` and `softknee leaderboard` run on them in processes of their own; user and
system time and the largest resident memory are those of the process.

Usage: python benchmarks/leaderboard.py [--folder FOLDER] [--seeds 200] [--studies 20]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "bench"))

from fabricate import Plan, fabricate, invented  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

ACTIVATIONS = invented(50)
MIB = 2**20


def plan(first_seed: int, seeds: int, mark: str) -> Plan:
    """Return a study in which every forty-ninth run diverged."""
    asked = [(label, seed) for seed in range(first_seed, first_seed + seeds) for label in ACTIVATIONS]
    endings = tuple((label, seed, "diverged") for label, seed in asked[7::49])
    options = {"epochs": 15, "test_size": 10_000, "endings": endings, "mark": mark}
    return Plan(ACTIVATIONS, seeds, first_seed, specification=(("protocol", "fashion-mlp"),), **options)


def measure(command: Sequence[str]) -> str:
    """Run `softknee` and return its processor time and memory; fails where it fails."""
    process = subprocess.Popen([sys.executable, "-m", "softknee", *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"softknee {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return f"{used.ru_utime:5.1f} s user, {used.ru_stime:4.1f} s system, {used.ru_maxrss * 1024 / MIB:4.0f} MiB"


def sizes(folder: Path, names: Sequence[str]) -> str:
    """Return what the files measure."""
    return ", ".join(f"{name} {(folder / name).stat().st_size / MIB:.1f} MiB" for name in names)


def main() -> None:
    """Fabricate what is not there yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the studies lie or go; a temporary folder by default")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--studies", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        one, share = folder / "one", arguments.seeds // arguments.studies
        many = [folder / "many" / f"study-{n:02}" for n in range(arguments.studies)]
        wanted = {one: plan(0, arguments.seeds, "")} | {
            place: plan(n * share, share, f"{n:02x}") for n, place in enumerate(many)
        }
        for place, study in wanted.items():
            if not (place / "study.json").is_file():
                fabricate(place, study)
        print(f"report, one study:       {measure(['report', str(one)])}")
        print(f"                         {sizes(one, ('report.html', 'results.csv', 'results.md'))}")
        for name, studies in (("one study", [one]), ("many studies", many)):
            out = folder / "leaderboard"
            used = measure(["leaderboard", *map(str, studies), "--out", str(out)])
            print(f"leaderboard, {name + ':':<12}{used}")
            print(f"                         {sizes(out, ('index.html', 'leaderboard.csv', 'runs.csv'))}")


if __name__ == "__main__":
    main()
