"""Searches on real data, and what becomes of the functions they find in larger models and on other data.

Three tasks of the bench: a small residual network and a small vision transformer on Fashion-MNIST, 10,000 images that
ship with softknee, and a small GPT on bytes of Python's own library. Each is searched once by `softknee.search`; the
best that was found and the best baselines are trained anew with six paired seeds, and their test losses are compared.
Schedules are short: a run takes 10 to 20 seconds on one core, a search with its verification less than an hour.

The function found, whether it was proven better or not, is then frozen with its constants and put unchanged into a
deeper and wider model of the same kind, and into the same model on other data (digits; headers of C++): six paired
seeds, against the same baselines that were in the finals. Nothing is selected or tuned there. A function is better if
it is better than each of those baselines; p values are those of the least clear of these comparisons, and are adjusted
over all rows of the table (Holm).

Everything that was trained lies in the folder, and the same command goes on after an interruption.

Usage: python benchmarks/search_real.py [resnet] [vit] [text] [--out FOLDER] [--budget 100] [--seeds 6]
`--quick` takes a few minutes and only shows that it runs. Tasks may run at the same time, each on its own core, in one
folder; the last call, with all of them, writes the table.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from softknee._bench.protocols import get_protocol
from softknee._report.files import write_atomic
from softknee._report.table import number, probability
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import Meter
from softknee._search.page_words import brief
from softknee._search.protocol import arguments
from softknee._search.search import search
from softknee._search.task import Task
from softknee._search.verdict import decide
from softknee._search.verify import finals, test_losses
from softknee._statistics.decisions import LEVEL, holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.protocol import Protocol
    from softknee._search.candidate import Candidate
    from softknee._search.result import Result
    from softknee._search.verdict import Against

HEADERS = Path(torch.__file__).parent / "include" / "c10"
QUICK = {"budget": 15.0, "seeds": 2, "epochs": 1}


@dataclass(frozen=True)
class Setting:
    """A model and data that a function is tried in.

    Attributes:
        about: For the table.
        recipe: What of the recipe is other than in the search.
        epochs: Of a run, None for as many.
        data: Where the data lie, None for the task's own.
    """

    about: str
    recipe: Mapping[str, Any]
    epochs: int | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Real:
    """A search, and where its function goes.

    Attributes:
        protocol: That is searched on.
        about: For the table.
        transfers: By name.
    """

    protocol: str
    about: str
    transfers: Mapping[str, Setting]


TASKS = {
    "resnet": Real(
        "fashion-resnet8",
        "residual network of 8 layers, Fashion-MNIST",
        {
            "larger": Setting(
                "10 layers and 1.5 times the channels, Fashion-MNIST", {"widths": (784, 24, 48, 96, 96, 10)}
            ),
            "data": Setting(
                "8 layers, digits", {"task": "digits", "widths": (64, 16, 32, 64, 10), "batch_size": 64}, epochs=40
            ),
        },
    ),
    "vit": Real(
        "fashion-vit",
        "vision transformer of 2 blocks, Fashion-MNIST",
        {
            "larger": Setting(
                "3 blocks and 1.5 times the features, Fashion-MNIST", {"widths": (784, 192, 192, 192, 10)}
            ),
            "data": Setting(
                "2 blocks, digits", {"task": "digits", "widths": (64, 128, 128, 10), "batch_size": 64}, epochs=60
            ),
        },
    ),
    "text": Real(
        "text-char",
        "GPT of 2 blocks, Python's library",
        {
            "larger": Setting(
                "3 blocks and 1.5 times the features, Python's library", {"widths": (64, 384, 384, 384, 256)}
            ),
            "data": Setting("2 blocks, headers of C++", {}, data=HEADERS),
        },
    ),
}


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        where: Model and data.
        verdict: In a sentence.
        gain: Least difference of test losses from a baseline of the finals, None if nothing was compared.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Of the least clear comparison, 1 if the function is worse than some baseline; None if nothing was compared.
        seconds: Of training and evaluation.
        losses: Mean test losses by name.
    """

    where: str
    verdict: str
    gain: float | None
    low: float | None
    high: float | None
    p: float | None
    seconds: float
    losses: Mapping[str, float]


def searched(name: str, out: Path, options: Mapping[str, Any]) -> Result:
    """Search, or return what was found before."""
    task = arguments(TASKS[name].protocol, epochs=options["epochs"])
    return search(
        **task,
        budget=options["budget"],
        seeds=options["seeds"],
        method=options["method"],
        seed=options["seed"],
        out=out / name / "search",
        progress=lambda text: told(name, text),
    )


def changed(protocol: Protocol, setting: Setting) -> Protocol:
    """Return a protocol with another model or other data."""
    return protocol.model_copy(update={"recipe": protocol.recipe.model_copy(update=dict(setting.recipe))})


def transferred(name: str, to: str, found: Candidate, baselines: Sequence[Candidate], out: Path, options: Any) -> Line:
    """Train a function and baselines in another setting, paired, and compare their test losses.

    Args:
        name: Of the task that it was found on.
        to: Of the transfer.
        found: The function, frozen.
        baselines: To be compared with.
        out: Folder of everything.
        options: Of the command.

    Returns:
        What came of it.
    """
    setting = TASKS[name].transfers[to]
    epochs = options["epochs"] or setting.epochs
    protocol = changed(get_protocol(TASKS[name].protocol), setting)
    task = Task(**arguments(protocol, data=setting.data, epochs=epochs), seed=options["seed"])
    ledger = Ledger(out / name / to)
    judge = Judge(task, Meter(task.run_steps), ledger)
    with ledger.held():
        ledger.settle({**task.facts(), "found": found.to_json(), "seeds": options["seeds"]})
        ended = finals(judge, [found], baselines, options["seeds"], lambda text: told(f"{name} {to}", text))
        verdict = decide(ended, baselines[0], lambda one: test_losses(judge, one, options["seeds"]))
    names = {one.key: one.name for one in (found, *baselines)}
    losses = {names[key]: float(values.mean()) for key, values in verdict.test.items()}
    seconds = sum(cost.seconds for cost in judge.meter.phases.values())
    return line(setting.about, verdict.sentence, verdict.differences, seconds, losses)


def line(where: str, verdict: str, differences: Sequence[Against], seconds: float, losses: Mapping[str, float]) -> Line:
    """Return a row of the table."""
    if not differences:
        return Line(where, verdict, None, None, None, None, seconds, losses)
    least = differences[0]
    p = max(one.p if one.gain > 0 else 1.0 for one in differences)
    return Line(where, verdict, least.gain, least.low, least.high, p, seconds, losses)


def all_of(name: str, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Search on a task and transfer what was found; return it all as plain data."""
    result = searched(name, out, options)
    finalists = [row for row in result.table if row.final is not None]
    baselines = [row.candidate for row in finalists if row.is_baseline]
    losses = {row.name: row.final.test_mean for row in finalists if row.final and row.final.test_mean is not None}
    lines = [line(TASKS[name].about, result.verdict, result.differences, result.cost.seconds, losses)]
    found = next((row.candidate for row in finalists if row.candidate.key == result.candidate), None)
    if found is not None:
        lines += [transferred(name, to, found, baselines, out, options) for to in TASKS[name].transfers]
    record = {
        "task": name,
        "found": None if found is None else found.name,
        "baselines": [one.name for one in baselines],
        "spent": result.cost.spent,
        "lines": [asdict(one) for one in lines],
    }
    write_atomic(out / name / "outcome.json", json.dumps(record, indent=1) + "\n")
    return record


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return everything as a table in Markdown."""
    rows = [(record, one) for record in records for one in record["lines"]]
    compared = [index for index, (_, one) in enumerate(rows) if one["p"] is not None]
    adjusted = dict(zip(compared, holm([rows[index][1]["p"] for index in compared]).tolist(), strict=True))
    lines = [
        "| model and data | function | test loss less than that of the closest baseline by | p | verdict | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for index, (record, one) in enumerate(rows):
        p = adjusted.get(index)
        better = p is not None and p < LEVEL
        gain = "-" if one["gain"] is None else f"{one['gain']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
        lines.append(
            f"| {one['where']} | `{brief(record['found'] or 'none')}` | {gain} | {probability(p)} | "
            f"{'better' if better else 'not better'} | {number(one['seconds'] / 60, 1)} |"
        )
    lines += ["", "Mean test losses of the finalists:", ""]
    for _, one in rows:
        losses = ", ".join(
            f"`{brief(name)}` {loss:.4f}" for name, loss in sorted(one["losses"].items(), key=lambda at: at[1])
        )
        lines.append(f"- {one['where']}: {losses or 'none'}")
    return "\n".join(lines) + "\n"


def told(name: str, text: str) -> None:
    """Print what goes on, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {name}: {text}", flush=True)


def main() -> None:
    """Search, transfer, and write both the numbers and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", choices=[[], *TASKS], help="all by default")
    parser.add_argument("--out", type=Path, default=Path("results", "search-real"))
    parser.add_argument("--budget", type=float, default=100.0, help="of each search, in training runs")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the searches")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    options = {"epochs": None, **vars(given), **(QUICK if given.quick else {})}
    torch.set_num_threads(1)
    records = [all_of(name, given.out, options) for name in given.tasks or TASKS]
    printed = table(records)
    if len(records) == len(TASKS):
        write_atomic(given.out / "search-real.json", json.dumps(records, indent=1) + "\n")
        write_atomic(given.out / "search-real.md", printed)
    print(printed)


if __name__ == "__main__":
    main()
