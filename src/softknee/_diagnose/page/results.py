"""What representations and outputs are like: rank, Lipschitz interval, classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import name_cell, number_cell, short
from softknee._report.heatmap import heatmap
from softknee._report.page import Facts, Figure, Fold, Gallery, Key, Section
from softknee._report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from softknee._report.page import Block

_LEAD = (
    "How many dimensions the outputs of each site use, how far the model can stretch, and which classes it confuses."
)
# Classes above which a matrix has no room for its numbers.
_CLASSES = 30


def results_section(data: Mapping[str, Any]) -> Section | None:
    """Return the section of representations and outputs, None where nothing of it was measured.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    blocks: list[Block] = [*_rank(data), *_lipschitz(data), *_classes(data)]
    return Section("results", "Representations and outputs", _LEAD, blocks) if blocks else None


def _rank(data: Mapping[str, Any]) -> Iterator[Block]:
    if not data["rank"]:
        return
    columns = [
        Column("Site", numeric=False),
        Column("Width"),
        Column("Dimensions", hint="smallest number of principal directions with 99 % of the variance"),
        Column("Saturation %", hint="dimensions over width"),
        Column("Participation", hint="(tr C)² / tr C²"),
        Column("Effective rank", hint="exp of the entropy of the spectrum"),
    ]
    rows = [
        [
            name_cell(one["site"]),
            number_cell(one["width"]),
            number_cell(one["dims"]),
            number_cell(None if one["saturation"] is None else 100 * one["saturation"]),
            number_cell(one["participation"]),
            number_cell(one["effective"]),
        ]
        for one in data["rank"]
    ]
    yield Table("Rank of the outputs", columns, rows, sortable=len(rows) > 1)


def _lipschitz(data: Mapping[str, Any]) -> Iterator[Block]:
    found = data["lipschitz"]
    if not found:
        return
    high = "no bound" if found.get("high") is None else short(found["high"])
    note = f" ({found['note']})" if found.get("note") else ""
    yield Facts(
        [("Lipschitz constant", f"between {short(found['low'])}, seen at a sample, and {high}, by layers{note}")]
    )
    layers = found.get("layers") or ()
    if layers:
        columns = [Column("Layer", numeric=False), Column("Norm")]
        rows = [[name_cell(one["layer"]), number_cell(one["norm"])] for one in layers]
        yield Fold("Layer by layer", [Table("Norms", columns, rows)])


def _classes(data: Mapping[str, Any]) -> Iterator[Block]:
    found = data["classification"]
    if not found:
        return
    names = [str(one) for one in range(found["classes"])]
    accuracy = "" if found.get("accuracy") is None else f", {found['accuracy']:.1%} right"
    if found["classes"] <= _CLASSES:
        shares = [[count / (sum(row) or 1) for count in row] for row in found["confusion"]]
        title = "Right and wrong by class"
        picture = heatmap(names, shares, title=title, description="Rows are true classes, columns predicted ones.")
        legend = [Key("right", "swatch right"), Key("wrong, percent of the true class", "swatch wrong")]
        yield Gallery([Figure(picture, f"right and wrong{accuracy}", name=False)], legend)
    columns = [Column("Class", numeric=False), *map(Column, ("Precision", "Recall", "F1", "Samples"))]
    rows = [
        [Cell(name), *map(number_cell, numbers)]
        for name, *numbers in zip(
            names, found["precision"], found["recall"], found["f1"], found["support"], strict=True
        )
    ]
    yield Fold(f"Class by class{accuracy}", [Table("Scores by class", columns, rows, sortable=True)])
