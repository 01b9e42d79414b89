r"""The other activation libraries beside softknee: what runs, what agrees with the formulas, what it costs.

Compares whatever is installed beside softknee, and installs nothing. Each library is looked at in a child process: a
class that ends or hangs its process is recorded, and the rest goes on. An environment of its own is best, for some want
an old torch:

    python -m venv ENV
    ENV/bin/pip install torch sympy mpmath scipy plotly matplotlib seaborn transformers -e .
    ENV/bin/pip install --no-deps torchlab-pytorch torch-activation nonlinear actix echoAI rational-activations \
        timm torchact activations-plus torchortho

Usage: python benchmarks/peers.py [LIBRARY ...] [--out docs/peers.md] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from peers_compare import agreement, judge
from peers_libraries import LIBRARIES
from peers_page import page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
# Functions that are timed, by our names; those that the catalogue lacks are left out.
TIMED = ("mish", "swish", "prelu", "telu", "elish", "snake", "pelu", "srelu", "serf", "xielu", "rational")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> None:
    """Measure, compare, write."""
    parser, options = read_options()
    for module in ("sympy", "mpmath"):
        if find_spec(module) is None:
            parser.error(f"{module} is not installed in this environment; the formulas need it")
    unknown = [name for name in options.libraries if name not in LIBRARIES]
    if unknown:
        parser.error(f"no library named {unknown[0]!r}; there are {', '.join(LIBRARIES)}")
    for path in filter(None, (options.out, options.json)):
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            parser.error(f"cannot write {path}")
    run = measure(options.libraries or [*LIBRARIES], options)
    if options.json:
        options.json.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    text = page(run)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def read_options() -> tuple[Parser, argparse.Namespace]:
    """Return the parser, for further errors, and the options."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help="all that are installed, if none is named")
    parser.add_argument("--out", type=Path, help="Markdown file to write as well")
    parser.add_argument("--json", type=Path, help="file for every single result")
    parser.add_argument("--export", type=natural, default=10_000, help="export only so many of a library, at random")
    parser.add_argument("--rounds", type=natural, default=9, help="rounds of timing, 9 if not given; 0 for none")
    parser.add_argument(
        "--timeout", type=natural, default=240, help="seconds for one class before its process is ended"
    )
    parser.add_argument("--seed", type=natural, default=0, help="of the drawing")
    return parser, parser.parse_args()


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def measure(labels: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Return all results of all libraries as plain data."""
    before = os.getloadavg()[0]
    run: dict[str, Any] = {"started": time.strftime("%Y-%m-%d"), "rounds": options.rounds, "libraries": {}}
    for label in labels:
        started, version = time.perf_counter(), LIBRARIES[label].version
        found = look(label, options) if version else {"failed": "not installed", "results": []}
        for result in found["results"]:
            verdict = judge(result)
            result["verdict"] = verdict and asdict(verdict)
        seconds = round(time.perf_counter() - started)
        run["libraries"][label] = {"version": version, **found, "seconds": seconds}
        print(f"{label}: {len(found['results'])} classes, {seconds} s", file=sys.stderr)
    peers = {label: found["results"] for label, found in run["libraries"].items() if label != "softknee"}
    run["agreement"] = agreement(peers)
    run["timed"] = timed(run, options) if options.rounds else {}
    run["load"] = [round(load, 1) for load in (before, os.getloadavg()[0])]
    return run


def look(label: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one library's child processes tell; a new one goes on behind a class that ended the last."""
    results: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {"failed": "its process ended while importing"}
    while True:
        command = [str(HERE / "peers_probe.py"), label, str(len(results)), str(options.export), str(options.seed)]
        current, done, late = None, False, False
        for line in said(command, options.timeout):
            if "start" in line:
                current = line["start"]
            elif "result" in line:
                results[line["result"]], current = line, None
            elif "late" in line and current is not None:
                late = True
            elif "classes" in line or "failed" in line:
                about = {"failed": "", **line}
            done = done or "end" in line or "failed" in line
        if current is not None:
            results[current] = ended(current, late=late)
        elif done or about["failed"] or len(results) == len(about["classes"]):
            break
        else:
            about["failed"] = "its process ended between two classes"
            break
    return {**about, "results": [*results.values()]}


def ended(key: str, *, late: bool) -> dict[str, Any]:
    """Return the result of a class that ended or hung its process."""
    place, _, name = key.rpartition(".") if "[" not in key else (key, "", key)
    reason = "Hangs: its process had to be ended" if late else "Ends its process"
    return {"result": key, "name": name, "place": place, "exported": False, "aliases": [], "runs": reason, "pair": None}


def said(command: list[str], timeout: int) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of a child process; end it when none comes for too long."""
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=HERE,
    ) as child:
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for line in child.stdout or ():
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        try:
            while line := lines.get(timeout=timeout):
                yield json.loads(line)
        except queue.Empty:
            yield {"late": timeout}
        finally:
            child.kill()


def timed(run: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return time and memory of the functions in TIMED, of each class that gives the formula's values."""
    subjects: dict[str, dict[str, str]] = {}
    for label, found in run["libraries"].items():
        for result in sorted(found["results"], key=lambda result: not result["exported"]):
            verdict = result["verdict"] or {}
            if verdict.get("entry") in TIMED and verdict["kind"] in {"equal", "own parameters"}:
                subjects.setdefault(verdict["entry"], {}).setdefault(label, result["result"])
    given = json.dumps({name: [*subjects[name].items()] for name in TIMED if name in subjects})
    lines = said([str(HERE / "peers_time.py"), str(options.rounds), given], 4 * options.timeout)
    return {name: row for line in lines for name, row in line.items()}


if __name__ == "__main__":
    main()
