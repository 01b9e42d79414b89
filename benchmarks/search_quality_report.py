"""Tables and curves of what `search_quality.py` has trained.

Usage: python benchmarks/search_quality_report.py --out DIR [--figure FILE]
Prints Markdown. Regret is how much more the held-out loss is than that of what the full enumeration returns, in
percent; all intervals are of 95 %, from resampling teachers. The figure needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from search_quality import METHODS, Teacher, qualified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RESAMPLES = 4000
SEARCHES = {
    "one": "planted functions",
    "grafs": 'planted functions, `space="grafs"`',
    "relu": "ReLU teachers",
    "shuffled": "shuffled targets",
}
TICKS = {"training runs": (2, 5, 10, 20, 40, 80), "seconds": (0.5, 1, 2, 5, 10)}
COLORS = {"random": "#888888", "halving": "#c26a00", "evolve": "#0a7d4f", "auto": "#b0123b", "grafs": "#2457c5"}


@dataclass(frozen=True)
class Statistic:
    """A number over teachers, with its interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Return it in words."""
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"


@dataclass(frozen=True)
class Summary:
    """How a method did with one budget."""

    method: str
    space: str
    runs: float
    seconds: float
    below: Statistic
    regret: Statistic
    against_random: Statistic | None
    distinct: float

    def cells(self, seeds: int) -> tuple[str, ...]:
        """Return its row of the table."""
        against = "" if self.against_random is None else self.against_random.percent()
        numbers = (f"{self.runs:.1f}", f"{self.seconds:.1f}", self.below.percent(), self.regret.percent(), against)
        return (f"`{self.method}`", self.space, *numbers, f"{self.distinct:.1f} of {seeds}")


class Study:
    """All that was trained, by teacher.

    Args:
        out: Its folder.
    """

    def __init__(self, out: Path) -> None:
        self.drawn = len(list((out / "teachers").glob("*.json")))
        found = list(qualified(out))
        paths = [out / "methods" / f"{one.number:03}.json" for one in found]
        self.qualified = len(found)
        self.teachers = [one for one, path in zip(found, paths, strict=True) if path.exists()]
        self.rows = [json.loads(path.read_text()) for path in paths if path.exists()]
        self.enumerated = [enumerated(one) for one in self.teachers]
        self.best_baseline = [float(baseline_losses(one).min()) for one in self.teachers]

    def summaries(self) -> list[Summary]:
        """Return one for each method and budget."""
        return [self._summary(name, space, budget) for name, space, budgets in METHODS for budget in budgets]

    def _summary(self, name: str, space: str, budget: float) -> Summary:
        mine = [_of(rows, name, space, budget) for rows in self.rows]
        losses = [_losses(rows) for rows in mine]
        drawn = [_losses(_of(rows, "random", space, budget)) for rows in self.rows]
        wins = [] if name == "random" else [np.mean(a[:, None] < b) for a, b in zip(losses, drawn, strict=True)]
        below = [np.mean(one < best) for one, best in zip(losses, self.best_baseline, strict=True)]
        regret = [np.median(one) / best - 1 for one, best in zip(losses, self.enumerated, strict=True)]
        rows = [row for one in mine for row in one]
        return Summary(
            method=name,
            space=space,
            runs=float(np.mean([row["runs"] for row in rows])),
            seconds=float(np.mean([row["seconds"] for row in rows])),
            below=over_teachers(below, np.mean),
            regret=over_teachers(regret, np.median),
            against_random=over_teachers(wins, np.mean) if wins else None,
            distinct=float(np.mean([len({row["found"] for row in one}) for one in mine])),
        )

    def references(self) -> list[tuple[str, ...]]:
        """Return the rows of the enumeration, and of the baseline that one run finds best."""
        seconds = np.median([one.record["enumeration seconds"] for one in self.teachers])
        below = [one < other for one, other in zip(self.enumerated, self.best_baseline, strict=True)]
        chosen = [
            baseline_losses(one)[np.array(one.record["baseline validation"])[:, 0, -1].argmin()]
            for one in self.teachers
        ]
        regret = [one / other - 1 for one, other in zip(chosen, self.enumerated, strict=True)]
        share = over_teachers(below, np.mean).percent()
        return [
            ("enumerate, 1,251 in 2 runs", "one-core", "-", f"{seconds:.0f}", share, "0", "", ""),
            ("best of 6 baselines", "", "6.0", "", "", over_teachers(regret, np.median).percent(), "", ""),
        ]


def enumerated(teacher: Teacher) -> float:
    """Return the held-out loss of what the full enumeration returns."""
    validation = np.array(teacher.record["validation"])[:, :, -1].mean(1)
    return float(np.mean(teacher.record["test"][int(validation.argmin())]))


def baseline_losses(teacher: Teacher) -> np.ndarray:
    """Return held-out losses of the baselines."""
    return np.mean(teacher.record["baseline test"], axis=1)


def over_teachers(values: Sequence[Any], what: Callable[..., Any]) -> Statistic:
    """Return a statistic with its 95 % interval by resampling teachers."""
    array, rng = np.array(values, dtype=float), np.random.default_rng(0)
    draws = what(array[rng.integers(len(array), size=(RESAMPLES, len(array)))], axis=1)
    return Statistic(float(what(array)), *map(float, np.quantile(draws, [0.025, 0.975])))


def searches(out: Path, stage: str) -> list[tuple[str, ...]]:
    """Return the rows of whole searches: how many claim a winner, and for how many of these twenty new runs agree."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((out / stage).glob("*.json")):
        kinds.setdefault(path.stem.partition("-")[0], []).append(json.loads(path.read_text()))
    rows = []
    for kind in [one for one in SEARCHES if one in kinds]:
        found = kinds[kind]
        claims = [row for row in found if row["outcome"] == "better"]
        true = sum(row["gain over the best baseline"] > 0 for row in claims)
        below = [row["loss"] < min(row["baseline losses"]) for row in found if "loss" in row]
        runs, wall = (float(np.mean([row[name] for row in found])) for name in ("runs", "wall"))
        counts = (len(found), len(claims), true, len(claims) - true)
        share = f"{100 * np.mean(below):.0f} %" if len(below) == len(found) else ""
        rows.append((SEARCHES[kind], *map(str, counts), share, f"{runs:.1f}", f"{wall:.0f}"))
    return rows


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Draw quality against cost: above, how often every baseline is beaten; below, regret; by runs and by seconds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex="col", sharey="row", layout="constrained")
    lines = dict.fromkeys((one.method, one.space) for one in summaries)
    for name, space in lines:
        mine = [one for one in summaries if (one.method, one.space) == (name, space)]
        kind, full = name.partition("[")[0], space != "one-core"
        style = {"color": COLORS[kind], "linestyle": "--" if full else "-", "marker": "s" if full else "o"}
        if "[" in name:
            style |= {"marker": "x" if "joint" in name else "+"}
        for column, cost in enumerate(([one.runs for one in mine], [one.seconds for one in mine])):
            label = f"{name}, {'two cores' if full else 'one core'}"
            axes[0, column].plot(cost, [100 * one.below.value for one in mine], label=label, **style)
            axes[1, column].plot(cost, [100 * one.regret.value for one in mine], label=label, **style)
    for column, (title, ticks) in enumerate(TICKS.items()):
        axes[1, column].set(xlabel=title, xscale="log")
        axes[1, column].set_xticks(ticks, list(map(str, ticks)))
        axes[1, column].set_xticks([], minor=True)
    axes[0, 0].set(ylabel="teachers with loss below\nevery baseline, %", ylim=(0, 102))
    axes[1, 0].set(ylabel="median regret, %", ylim=(0, None))
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    for one in axes.flat:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _of(rows: Iterable[dict[str, Any]], name: str, space: str, budget: float) -> list[dict[str, Any]]:
    return [row for row in rows if (row["method"], row["space"], row["budget"]) == (name, space, budget)]


def _losses(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([np.inf if row["loss"] is None else row["loss"] for row in rows])


def _print(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print the tables, and draw the figure if a file is given for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    study = Study(options.out)
    print(f"{study.drawn} teachers drawn, {study.drawn - study.qualified} not qualified.")
    summaries = study.summaries()
    seeds = max(len(_of(rows, *METHODS[0][:2], METHODS[0][2][0])) for rows in study.rows)
    head = ("method", "space", "runs", "seconds", "below every baseline", "median regret", "better than random")
    _print((*head, "distinct answers"), [*study.references(), *(one.cells(seeds) for one in summaries)])
    head = ("whole search", "searches", "claims a winner", "which is one", "which is none", "below every baseline")
    rows = [row for stage in ("searches", "nulls") for row in searches(options.out, stage)]
    _print((*head, "runs", "seconds"), rows)
    if options.figure is not None:
        draw(summaries, options.figure)


if __name__ == "__main__":
    main()
