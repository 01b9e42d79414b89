"""Trained activations: their parameters, and how they and their shapes moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import name_cell, number_cell, short
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Figure, Fold, Gallery, Key, Note, Section
from softknee._report.table import ABSENT, Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._report.lines import Weight
    from softknee._report.page import Block
    from softknee._report.svg import Svg

    Row = Mapping[str, Any]

_LEAD = (
    "Parameters that activations train, where they started and where they are, and what is known of how they are "
    "trained."
)
_NO_HISTORY = "Trajectories need a history: softknee.watch around the training loop, given as `history`."
_LARGE = (300.0, 190.0)
# What few numbers tell of many entries, by their count.
_SUMMARIES = {
    3: ("smallest", "mean", "largest"),
    5: ("smallest", "first quartile", "median", "third quartile", "largest"),
}
# Lines of one parameter with many entries.
_LINES = 12
_COLUMNS = (
    Column("Parameter", numeric=False),
    Column("Site", numeric=False),
    Column("Entries"),
    Column("Start"),
    Column("Now", hint="the value, or least, mean and largest"),
    Column("Gradient rms"),
    Column("Optimized", numeric=False),
    Column("Decay", numeric=False),
    Column("Remarks", numeric=False),
)


def trainable_section(data: Mapping[str, Any]) -> Section | None:
    """Return the section of trained activations, None where there are none.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    rows = data["trainable"]
    if not rows:
        return None
    blocks: list[Block] = [
        Table("Parameters of activations", _COLUMNS, [_row(one) for one in rows], sortable=len(rows) > 1)
    ]
    shapes = [Figure(_shapes(one), _name(one)) for one in rows if one.get("shapes")]
    moved = [Figure(_trajectory(one), _name(one)) for one in rows if one.get("trajectory")]
    if shapes:
        legend = [Key("first", "thin hue-6"), Key("last", "main hue-0")]
        blocks.append(Gallery(shapes, legend))
    if moved:
        blocks.append(Fold("Parameters over the steps", [Gallery(moved)], opened=True))
    if not shapes and not moved:
        blocks.append(Note(_NO_HISTORY))
    return Section("trainable", "Trained activations", _LEAD, blocks)


def _name(one: Row) -> str:
    return f"{one['path']}.{one['parameter']}".lstrip(".")


def _row(one: Row) -> list[Cell]:
    remarks = [
        word
        for word, holds in (
            ("shared", one.get("shared")),
            ("frozen", one.get("trained") is False),
            ("at a bound", one.get("at_bound")),
            ("not finite", one.get("nonfinite")),
        )
        if holds
    ]
    return [
        name_cell(_name(one)),
        Cell(one["site"] or "", kind="code"),
        number_cell(one["count"]),
        number_cell(one.get("start")),
        Cell(_now(one["value"])),
        number_cell(one.get("gradient")),
        _yes_no(one.get("optimised"), wrong=False),
        _yes_no(one.get("decayed"), wrong=True),
        Cell(", ".join(remarks), kind="warning" if remarks else ""),
    ]


def _now(value: Any) -> str:
    if value is None or isinstance(value, int | float):
        return short(value)
    return f"{short(value['min'])} · {short(value['mean'])} · {short(value['max'])}"


def _yes_no(value: bool | None, *, wrong: bool) -> Cell:
    if value is None:
        return Cell(ABSENT, kind="quiet", hint="no optimizer was given")
    return Cell("yes" if value else "no", kind="warning" if value == wrong else "")


def _trajectory(one: Row) -> Svg:
    found = one["trajectory"]
    columns: Sequence[Sequence[float | None]] = list(zip(*found["values"], strict=True))
    names = _SUMMARIES.get(len(columns), ()) if found.get("summary") else ()
    step = max(1, len(columns) // _LINES)
    weight: Weight = "main" if len(columns) == 1 else "thin"
    series = [
        Series(names[index] if names else f"entry {index}", found["steps"], columns[index], 0, weight)
        for index in range(0, len(columns), step)
    ]
    return line_chart(
        series,
        title=f"{_name(one)} over the steps",
        description=f"One line each: {', '.join(names)}." if names else "One line an entry.",
        axes=Axes(x="step"),
        size=_LARGE,
    )


def _shapes(one: Row) -> Svg:
    found = one["shapes"]
    curves = found["curves"]
    series = [
        Series(f"step {curve['step']}", found["x"], curve["y"], 0 if last else 6, "main" if last else "thin")
        for curve, last in ((curve, curve is curves[-1]) for curve in curves)
    ]
    steps = f"{curves[0]['step']} to {curves[-1]['step']}" if curves else ""
    return line_chart(
        series,
        title=f"Shape of {_name(one)}",
        description=f"The function at steps {steps}; the last one is thick.",
        axes=Axes(x="input", zero=True),
        size=_LARGE,
    )
