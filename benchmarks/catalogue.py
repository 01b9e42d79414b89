"""What the catalogue costs before anything is computed: importing, first use, making a module.

Usage: python benchmarks/catalogue.py [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import timeit

STARTS = {
    "python": "pass",
    "import softknee": "import softknee",
    "import torch": "import torch",
    "first use of GELU": "import softknee, torch; softknee.create('gelu')(torch.ones(3))",
    "first use of Swish": "import softknee, torch; softknee.create('swish')(torch.ones(3))",
}
NAMES = ("relu", "gelu", "mish", "swish", "prelu", "srelu", "rational")
CALLS = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="how often each is timed")
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(repeats):  # interleaved, so that a change of the machine's speed meets all
        for name, code in STARTS.items():
            times[name].append(_run(code))
    bare = statistics.median(times["python"])
    torch = statistics.median(times["import torch"])
    print("| | seconds | / importing torch |\n|:---|---:|---:|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.3f} | {median / torch:.2f} |")
    print(f"\nimport softknee beyond python: {statistics.median(times['import softknee']) - bare:.3f} s\n")
    _print_creation()


def _run(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _print_creation() -> None:
    import softknee

    print("| `create`, after first use | microseconds |\n|:---|---:|")
    for name in NAMES:
        softknee.create(name)
        seconds = min(timeit.repeat(lambda name=name: softknee.create(name), number=CALLS, repeat=5)) / CALLS
        print(f"| {name} | {1e6 * seconds:.0f} |")


if __name__ == "__main__":
    main()
