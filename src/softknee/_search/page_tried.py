"""Everything that a search tried, ranked; what failed is not hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.page import Block, Fold, Section
from softknee._report.table import Cell, Column, Table, plural
from softknee._search.page_words import SELECT, estimate, final_digits, loss_cell, loss_digits, name_cell, part_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Rows that stand open; more are folded.
SHOWN = 40
_ENUMERATED = "Of the functions that were trained side by side, it has the best, trained again each by itself. "


def tried_section(data: Mapping[str, Any]) -> Section:
    """Return the ranked table of all that was tried.

    Args:
        data: A result.

    Returns:
        The section; of many candidates, all but the first are folded, and those that failed have a table of their own.
    """
    table = data["table"]
    failed = [row for row in table if row["failure"]]
    enumerated = any(phase["name"] == "enumerate" for phase in data["cost"]["phases"])
    lead = (
        f"{plural(len(table), 'function')}, baselines among them. Finalists come first, by their final validation "
        "loss; the others by the validation loss of their longest run with seed 0. Losses after a part of a run and "
        f"after a full one do not compare. {_ENUMERATED * enumerated}Click on a head to sort."
    )
    numbered = list(enumerate(table, 1))
    blocks: list[Block] = [_table(data, numbered[:SHOWN], "Ranking")]
    if numbered[SHOWN:]:
        title = f"{plural(len(numbered) - SHOWN, 'more function')}"
        blocks.append(Fold(title, [_table(data, numbered[SHOWN:], title)]))
    if failed:
        blocks.append(Fold(f"{plural(len(failed), 'function')} with a training that failed", [failures_table(failed)]))
    return Section("tried", "Everything tried", lead, blocks)


def failures_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return which trainings failed, and why.

    Args:
        rows: Candidates.

    Returns:
        One row a failed training.
    """
    columns = [
        Column("Function", numeric=False),
        Column("Phase", numeric=False),
        Column("Run"),
        Column("Part"),
        Column("Why", numeric=False),
    ]
    failed = [(row, score) for row in rows for score in row["scores"] if score["failure"]]
    cells = [
        [
            name_cell(row),
            Cell(score["phase"]),
            Cell(str(score["run"])),
            Cell(part_text(score["part"])),
            Cell(score["failure"], "words"),
        ]
        for row, score in failed
    ]
    return Table("Failed trainings, charged for what they ran", columns, cells)


def _table(data: Mapping[str, Any], numbered: Sequence[tuple[int, Mapping[str, Any]]], caption: str) -> Table:
    tested = any(row["final"] and row["final"]["test_mean"] is not None for row in data["table"])
    selected = any(score["phase"] == SELECT for row in data["table"] for score in row["scores"])
    columns = [
        Column("#"),
        Column("Function", numeric=False),
        Column("Origin", numeric=False),
        Column("Trained", numeric=False, hint="which part of a full run, with seed 0, before the finals"),
        Column("Validation", hint="loss after it"),
        *(
            [Column("Selection", hint="mean loss after the trainings by which the candidate for the finals was chosen")]
            * selected
        ),
        Column("Final validation", hint="mean loss over the paired runs of the finals, with its 95 % interval"),
        *([Column("Final test", hint="likewise; read once, behind all choices")] if tested else []),
        Column("Scores", hint="how often it was looked at: after parts of runs, full runs and final ones"),
        Column("Remark", numeric=False),
    ]
    digits = loss_digits(row["loss"] for row in data["table"]), final_digits(data)
    rows = [_row(data, place, row, digits, tested=tested, selected=selected) for place, row in numbered]
    return Table(caption, columns, rows, sortable=True)


def _row(
    data: Mapping[str, Any],
    place: int,
    row: Mapping[str, Any],
    digits: tuple[int, int],
    *,
    tested: bool,
    selected: bool,
) -> list[Cell]:
    finals = [_final(row["final"], kind, digits[1]) for kind in ("validation", "test")[: 1 + tested]]
    return [
        Cell(str(place), value=place),
        name_cell(row),
        Cell("baseline" if row["is_baseline"] else row["origin"]),
        *_before(row, digits[0]),
        *([_selection(row, digits[0])] if selected else []),
        *finals,
        Cell(str(len(row["scores"]))),
        _remark(data, row),
    ]


def _before(row: Mapping[str, Any], digits: int) -> list[Cell]:
    """Return how far it was trained with seed 0 and with which loss; nothing where it went straight to the finals."""
    if not any(score["run"] == 0 for score in row["scores"]):
        return [Cell(""), Cell("")]
    return [
        Cell(part_text(row["part"]), value=row["part"]),
        loss_cell(row["loss"], digits, failure=row["failure"]),
    ]


def _selection(row: Mapping[str, Any], digits: int) -> Cell:
    """Return the mean loss of the trainings by which finalists were chosen; nothing where there were none."""
    scores = [score for score in row["scores"] if score["phase"] == SELECT]
    losses = [score["loss"] for score in scores if score["loss"] is not None]
    if len(losses) < len(scores):
        return loss_cell(None, digits, failure=row["failure"])
    return loss_cell(sum(losses) / len(losses), digits) if losses else Cell("")


def _final(final: Mapping[str, Any] | None, kind: str, digits: int) -> Cell:
    if not final:
        return Cell("")
    mean = final[f"{kind}_mean"]
    return Cell(estimate(mean, final[f"{kind}_low"], final[f"{kind}_high"], digits), value=mean)


def _remark(data: Mapping[str, Any], row: Mapping[str, Any]) -> Cell:
    if row["key"] == data["best"]:
        return Cell("◆ returned", "strong")
    if row["failure"]:
        return Cell("! failed", "warning", hint=row["failure"])
    if row["same_as"] and row["name"] not in {row["same_as"], f"{row['same_as']}(x)"}:
        return Cell(f"this is {row['same_as']}")
    return Cell("finalist" if row["final"] else "")
