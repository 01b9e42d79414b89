"""What a search cost: runs and seconds by phase, and how the best loss fell as they were spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.bars import Bar, stacked_bars
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Block, Figure, Gallery, Key, Section
from softknee._report.svg import focus, padded
from softknee._report.table import Cell, Column, Table, plural
from softknee._search.page_words import SELECT, VERIFY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softknee._report.lines import Weight
    from softknee._report.svg import Svg

    Score = tuple[Mapping[str, Any], Mapping[str, Any]]

SIZE = (340.0, 236.0)
BEST, TRIED, BASELINE, FINAL, HEAT, PARTIAL = 0, 0, 1, 2, 3, 6


def cost_section(data: Mapping[str, Any]) -> Section:
    """Return the cost of a search.

    Args:
        data: A result.

    Returns:
        The section.
    """
    cost = data["cost"]
    failed = (
        f"{cost['failed_runs']:.2g} runs went into trainings that failed" if cost["failed"] else "no training failed"
    )
    lead = (
        f"One run is a full training: {plural(cost['epochs'], 'epoch')}, {plural(cost['steps'], 'step')} in all. A "
        "forward pass without a backward one, as in validation, counts a third of a step. Verification and failed runs "
        f"are included; {failed}."
    )
    blocks: list[Block] = [Gallery([Figure(_bars(cost))], _phase_keys(cost), wide=True), _phase_table(cost)]
    progress = _progress(data)
    return Section("cost", "What the search cost", lead, [*blocks, progress] if progress else blocks)


def _bars(cost: Mapping[str, Any]) -> Svg:
    phases = cost["phases"]
    seconds = cost["seconds"] or 1.0
    whole = max(cost["budget"], cost["spent"]) or 1.0
    bars = [
        Bar("runs of the budget", [phase["runs"] / whole for phase in phases], f"{cost['spent']:.1f} of {whole:g}"),
        Bar("seconds", [phase["seconds"] / seconds for phase in phases], _time(cost["seconds"])),
    ]
    told = ", ".join(f"{phase['name']} {phase['runs']:.2f} runs" for phase in phases)
    return stacked_bars(
        bars,
        [phase["name"] for phase in phases],
        title="Cost by phase",
        description=f"Shares of the budget and of the time: {told}.",
        width=820,
        label_width=150,
        note_width=110,
    )


def _phase_keys(cost: Mapping[str, Any]) -> list[Key]:
    return [Key(phase["name"], f"swatch hue-{index % 7}") for index, phase in enumerate(cost["phases"])]


def _phase_table(cost: Mapping[str, Any]) -> Table:
    columns = [Column("Phase", numeric=False), Column("Runs"), Column("Share"), Column("Time")]
    spent = cost["spent"] or 1.0
    rows = [
        [
            Cell(phase["name"]),
            Cell(f"{phase['runs']:.2f}"),
            Cell(f"{100 * phase['runs'] / spent:.0f} %"),
            Cell(_time(phase["seconds"])),
        ]
        for phase in cost["phases"]
    ]
    foot = [[Cell("all"), Cell(f"{cost['spent']:.2f}"), Cell(""), Cell(_time(cost["seconds"]))]]
    return Table("By phase", columns, rows, foot)


def _progress(data: Mapping[str, Any]) -> Gallery | None:
    """Draw each score when it was charged, and the best of the full runs so far."""
    scores = sorted(_scores(data), key=lambda one: one[1]["charged"])
    full = [one for one in scores if one[1]["part"] >= 1]
    if not full:
        return None
    steps = best_so_far(full, data["cost"]["spent"])
    groups: tuple[tuple[str, list[Score], int, Weight], ...] = (
        ("baselines", [one for one in full if one[0]["is_baseline"]], BASELINE, "dots"),
        ("candidates", [one for one in full if not one[0]["is_baseline"]], TRIED, "dots"),
        ("selection, from other seeds", [*_scores(data, SELECT)], HEAT, "dots"),
        ("final runs, from fresh seeds", [*_scores(data, VERIFY)], FINAL, "dots"),
        ("parts of a run", [one for one in scores if one[1]["part"] < 1], PARTIAL, "cross"),
    )
    series = [
        Series("best so far", [x for x, _ in steps], [y for _, y in steps], hue=BEST),
        *(
            Series(name, [one[1]["charged"] for one in found], [one[1]["loss"] for one in found], hue=hue, weight=mark)
            for name, found, hue, mark in groups
        ),
    ]
    picture = line_chart(
        series,
        title="Best so far",
        description=f"Validation loss against the runs spent: {len(full)} full runs with seed 0; "
        f"the best falls from {steps[0][1]:.4g} to {steps[-1][1]:.4g}.",
        axes=Axes(
            x="runs spent",
            y=padded(focus(one[1]["loss"] for _, found, _, _ in groups for one in found)),
            y_name="validation loss",
        ),
        size=SIZE,
    )
    keys = [Key("best full run with seed 0 so far", f"main hue-{BEST}")]
    keys += [
        Key(f"{'×' if mark == 'cross' else '●'} {name}", f"swatch hue-{hue}")
        for name, found, hue, mark in groups
        if found
    ]
    return Gallery([Figure(picture, "The best validation loss as the budget was spent", name=False)], keys)


def _scores(data: Mapping[str, Any], phase: str = "") -> Iterator[Score]:
    """Yield what was scored in a phase, or with seed 0 in any, and did not fail, with its candidate."""
    for row in data["table"]:
        for score in row["scores"]:
            if (score["phase"] == phase if phase else score["run"] == 0) and score["loss"] is not None:
                yield row, score


def best_so_far(full: Sequence[Score], end: float) -> list[tuple[float, float]]:
    """Return the corners of the stairs."""
    corners: list[tuple[float, float]] = []
    for _, score in full:
        if not corners or score["loss"] < corners[-1][1]:
            corners += [(score["charged"], corners[-1][1])] if corners else []
            corners.append((score["charged"], score["loss"]))
    return [*corners, (max(end, corners[-1][0]), corners[-1][1])]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
