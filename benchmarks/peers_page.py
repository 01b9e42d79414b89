"""The page of a comparison, in Markdown."""

from __future__ import annotations

import math
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from peers_checks import CLEAN
from peers_compare import AGREEMENT, ANOTHER, DIFFERENT, EQUAL, GRID, OPEN, OWN, TOLERANCE, names
from peers_time import SHAPE

from softknee.functional import SPECS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Results = Sequence[Mapping[str, Any]]

COLUMNS = {
    "gradients": "gradients",
    "finite": "finite",
    "bfloat16": "bfloat16",
    "float64": "float64",
    "gradcheck": "gradcheck",
    "noncontiguous": "strides",
    "device_move": "device",
    "state_dict": "state",
    "vmap": "vmap",
    "captured": "compile",
}
ALL = {**COLUMNS, "exported": "export"}
# Of one library, at most this many reasons are listed.
REASONS = 4

HEAD = """# Other activation libraries, measured in one run

Written by `python benchmarks/peers.py`; every number below is from that run. These libraries are the work of
colleagues, and we learned from them. The page is to show what a reader can rely on where, and to keep us honest:
softknee goes through the same checks, by the same code, in the same run. Where we misread a library, we would like to
be told.
"""

METHOD = """## What the columns mean

A class is made with its default arguments (the number of channels, and a few others, are filled in) and gets the first
of the inputs (4, 8, 6, 6), (4, 8), (4, 6, 8), (8,) that it takes; it "runs" if a tensor comes out. All but the first
column is done in evaluation mode, one class at a time, exceptions caught, each library in a process of its own.

- gradients: in training mode, the input and every trained parameter get a finite gradient, no parameter gets none.
- finite: no NaN and no needless infinity in the output, the input gradient and the parameter gradients, in float32 on
  [-1e4, 1e4] with 0. An infinity is needless where the same module in float64 gives a number that float32 can hold.
- bfloat16, float64: the output has the dtype of the module and its input.
- gradcheck: the input gradient agrees with differences in float64. Functions whose published gradient is a surrogate
  (straight-through, spikes) fail this by design.
- strides: an input that is not contiguous gives the same values.
- device: after `.to(device)` nothing is left on the CPU (seen with the meta device).
- state: a second module that loads the state dict gives the same values.
- vmap: `torch.func.vmap` gives the same values.
- compile: `torch.compile(fullgraph=True, backend="aot_eager")`, forward and backward. No code was generated.
- export: `torch.export.export`, {exported}.
- clean: all of these but export.
- bytes: what is kept for the backward pass, for each element of the input, as it comes (eager); the median over the
  classes.
"""

FORMULAS = """## Against the formulas of the papers

Classes whose names match one of the {entries} entries of softknee's catalogue (names, titles, aliases: {names} names,
without case and punctuation, and a few synonyms) are compared with the formula text of that entry, evaluated to a
hundred digits, at {points} points of [-6, 6] off the round numbers, to {tolerance:g} of 1 + |f|. Gates get two
different halves, functions of several entries one row of numbers.

- own parameters: the formula, with other parameter values, found among the numbers that the class holds, their
  reciprocals, and 1/2, 1, 2 and pi. Another default or a random start, not an error.
- another entry: the class computes another function of our catalogue.
- different: **not the same as wrong**. Functions share names, papers are read differently, and ours may be another
  variant.
- not trained: the class trains nothing as it comes, although the source of our entry trains parameters (a Swish with a
  fixed factor counts).

"The survey" is that of Kunc and Kléma (arXiv 2402.09092), which several libraries follow.
"""

# What is known about differences from entries of ours.
REMARKS = {
    "rrelu": "the paper divides by the mean slope in tests; we multiply, as torch.nn does",
    "hexpo": "the survey prints exp(-x/d) for x < 0, which is not bounded",
    "cloglog": "the survey prints exp(-x)",
    "sinc": "sin(pi x) / (pi x), as torch.sinc",
}

LIMITS = """## Not run

- No GPU, no bfloat16 or float16 arithmetic beyond the dtype check, no multi-threaded timing.
- No code generation by Inductor; no ONNX export.
- Formulas of classes that our catalogue does not name. A class that is clean may still compute the wrong function.
- Matching is by name: a class under a name that we do not know is not compared.
- Constructor arguments are guessed by name. Classes that need others count as not run by default; that is no fault.
- Libraries with other dependencies or purposes: Keras, JAX, Liger and xFormers (kernels for GPUs), the KAN family,
  deepsplines, TensorFlow and Keras parts of the packages above.
"""


def page(run: Mapping[str, Any]) -> str:
    """Return the page."""
    libraries = {label: found for label, found in run["libraries"].items() if found["results"]}
    parts = [HEAD, _where(run), _versions(run), "## What holds\n", _checks(libraries), _reasons(libraries)]
    tried = [sum("exported" in r.get("checks", {}) for r in found["results"]) for found in libraries.values()]
    running = [sum(not r["runs"] for r in found["results"]) for found in libraries.values()]
    exported = (
        "of all that run" if tried == running else "of a random sample where the column has a smaller number below"
    )
    parts += [METHOD.format(exported=exported)]
    parts += [FORMULAS.format(entries=len(SPECS), names=len(names()), points=len(GRID), tolerance=TOLERANCE)]
    parts += [
        _formulas(libraries),
        _differences(libraries),
        _own(libraries),
        _agreement(run),
        _times(run, libraries),
        LIMITS,
    ]
    return "\n".join(part for part in parts if part).rstrip()


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _where(run: Mapping[str, Any]) -> str:
    cpu = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    software = f"Python {platform.python_version()}, torch {version('torch')}"
    before, after = run["load"]
    load = f" Other programs ran as well: load average {before:.1f} before, {after:.1f} after." if before > 1.5 else ""
    return f"{run['started']}; {cpu}, one thread, {platform.system()}; {software}.{load}\n"


def _versions(run: Mapping[str, Any]) -> str:
    rows = []
    for label, found in run["libraries"].items():
        missing = found.get("missing") or {}
        remarks = [found["failed"] and f"**not looked at**: {found['failed']}", found.get("remark", "")]
        remarks += [f"`{name}` does not import: {reason}" for name, reason in missing.items()]
        rows.append((label, found["version"] or "-", len(found["results"]) or "-", "; ".join(filter(None, remarks))))
    return table(("library", "version", "classes", "remarks"), rows)


def _checks(libraries: Mapping[str, Any]) -> str:
    rows = []
    for label, found in libraries.items():
        ran = [result for result in found["results"] if not result["runs"]]
        passed = [sum(not result["checks"][check] for result in ran) for check in COLUMNS]
        tried = [result["checks"]["exported"] for result in ran if "exported" in result["checks"]]
        clean = sum(all(not result["checks"][check.__name__] for check in CLEAN) for result in ran)
        kept = [result["saved"] for result in ran if result["saved"] is not None]
        total = len(found["results"])
        exported = f"{tried.count('')}/{len(tried)}" if tried else "-"
        share = f"{clean} ({100 * clean / total:.0f} %)"
        rows.append((label, total, len(ran), *passed, exported, f"{median(kept):g}" if kept else "-", share))
    return table(("library", "classes", "run", *COLUMNS.values(), "export", "bytes", "clean"), rows)


def _reasons(libraries: Mapping[str, Any]) -> str:
    lines = ["The most frequent reasons, each with one class as an example:\n"]
    for label, found in libraries.items():
        counted: Counter[str] = Counter()
        example: dict[str, str] = {}
        for result in found["results"]:
            failed = [("run", result["runs"])] if result["runs"] else [*result["checks"].items()]
            for check, reason in failed:
                if reason:
                    kind = f"{ALL.get(check, check)}: {_kind(reason)}"
                    counted[kind] += 1
                    example.setdefault(kind, f"`{result['name']}`")
        most = [f"{kind} ({count}, {example[kind]})" for kind, count in counted.most_common(REASONS)]
        lines.append(f"- {label}: {'; '.join(most) or 'none'}.")
    return "\n".join(lines) + "\n"


def _kind(reason: str) -> str:
    return reason.partition(" at x =")[0].partition(":")[0]


def _formulas(libraries: Mapping[str, Any]) -> str:
    rows = []
    for label, found in libraries.items():
        verdicts = [result["verdict"] for result in found["results"] if result["verdict"]]
        kinds = Counter(verdict["kind"] for verdict in verdicts)
        counts = [kinds[kind] for kind in (EQUAL, OWN, ANOTHER, DIFFERENT, OPEN)]
        rows.append((label, len(verdicts), *counts, sum(verdict["untrained"] for verdict in verdicts)))
    return table(("library", "named alike", EQUAL, OWN, ANOTHER, DIFFERENT, OPEN, "not trained"), rows)


def _differences(libraries: Mapping[str, Any]) -> str:
    rows = []
    for label, found in libraries.items():
        named = Counter(result["name"] for result in found["results"])
        for result in found["results"]:
            verdict = result["verdict"]
            if verdict and verdict["kind"] in {DIFFERENT, ANOTHER}:
                twice = f" of {result['place']}" if named[result["name"]] > 1 else ""
                place = verdict["detail"] if math.isnan(verdict["x"]) else f"{verdict['x']:.3g}"
                remark = (
                    f"is `{verdict['detail']}`" if verdict["kind"] == ANOTHER else REMARKS.get(verdict["entry"], "")
                )
                numbers = (f"{verdict['theirs']:.4g}", f"{verdict['formula']:.4g}")
                rows.append((label, f"`{result['name']}`{twice}", f"`{verdict['entry']}`", place, *numbers, remark))
    if not rows:
        return ""
    head = ("library", "class", "compared with", "x", "theirs", "the formula", "remark")
    return "Every class that differs, and where it differs most:\n\n" + table(head, rows)


def _own(libraries: Mapping[str, Any]) -> str:
    """List what has other parameters, or was not compared."""
    lines = []
    for label, found in libraries.items():
        for kind, what in ((OWN, "own parameters"), (OPEN, "not compared")):
            named = [
                f"`{result['name']}` ({result['verdict']['detail']})"
                for result in found["results"]
                if result["verdict"] and result["verdict"]["kind"] == kind
            ]
            lines += [f"- {label}, {what}: {', '.join(named)}."] if named else []
    return "\n".join(lines) + "\n" if lines else ""


def _agreement(run: Mapping[str, Any]) -> str:
    agreed = run["agreement"]
    if not agreed:
        return ""
    equal = sum(agreed.values())
    return (
        f"## Among each other\n\nOf {len(agreed)} names that two or more of the other libraries have, {equal} "
        f"({100 * equal / len(agreed):.0f} %) mean\nthe same values in all of them as they come, {len(agreed) - equal} "
        f"do not (to {AGREEMENT:g} of 1 + |f| on [-4, 4]; where a library has a\nname twice, what its front page gives "
        "out). Other default parameters, shared names and other readings of a paper all count.\n"
    )


def _times(run: Mapping[str, Any], libraries: Mapping[str, Any]) -> str:
    if not run["timed"]:
        return ""
    labels = [label for label in libraries if any(label in row for row in run["timed"].values())]
    rows = [(f"`{name}`", *(_time(row.get(label)) for label in labels)) for name, row in run["timed"].items()]
    shape = " x ".join(map(str, SHAPE))
    text = (
        "## Time and memory\n\nForward and backward with the gradients of all parameters, over that of "
        "`torch.nn.GELU`; in brackets the bytes kept for\neach element. float32, "
        f"{shape}, eager, one thread; all of a row in turn in one process, medians of the\nratios within each of "
        f"{run['rounds']} rounds. Only classes that give the formula's values, with parameters as each library\nsets "
        "them up (shared or for each channel).\n\n"
    )
    return text + table(("function", *labels), rows)


def _time(cell: Any) -> str:
    if cell is None:
        return ""
    return cell.partition(":")[0] if isinstance(cell, str) else f"{cell[0]:.2f} ({cell[1]:.0f})"
