"""What a study's seeds can bear, as a table and in words."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from softknee._bench.page_tables import MATRIX_CORNER, name_cell
from softknee._bench.study_evidence import SPREAD_SEEDS, percent
from softknee._report.page import Note
from softknee._report.table import ABSENT, Cell, Column, Table, listed, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.study_evidence import CellEvidence, Evidence
    from softknee._bench.study_files import StudyFiles
    from softknee._report.page import Block
    from softknee._statistics.improvement import Improvement
    from softknee._statistics.intervals import Estimate
    from softknee._statistics.power import SeedsNeeded

RESAMPLED = (
    "95 % interval of the difference to {reference}, from resampling seeds{examples} (bootstrap-t): a second opinion, "
    "which takes nothing to be normal and covers less than it says at few seeds"
)
# Activations that a note names.
NAMED = 5


def evidence_blocks(files: StudyFiles, evidence: CellEvidence) -> list[Block]:
    """Return the table of one condition and what it rests on.

    Args:
        files: The study.
        evidence: Of the condition.

    Returns:
        A table and a note, or nothing under two seeds.
    """
    return [evidence_table(files, evidence), Note(" ".join(_notes(evidence)))] if evidence.known else []


def evidence_table(files: StudyFiles, evidence: CellEvidence) -> Table:
    """Return one row an activation."""
    margin, most = files.metric.amount(files.margin, exact=True), f", of the first {SPREAD_SEEDS} seeds"
    many = any(len(files.of(evidence.cell, row.activation)) > SPREAD_SEEDS for row in evidence.rows)
    examples = " and examples together" * files.metric.sampled
    columns = [
        MATRIX_CORNER,
        Column(
            f"Beats {files.reference}",
            hint=f"probability that a new run scores higher than a new run of {files.reference}, ties by half: how "
            "often, not by how much",
        ),
        Column("95 % interval", hint="of this probability, over new seeds"),
        *(
            [Column("Difference, resampled", hint=RESAMPLED.format(reference=files.reference, examples=examples))]
            if any(row.resampled for row in evidence.rows)
            else []
        ),
        Column(
            f"Seeds to find {margin}",
            hint="needed of each of the two, to find a true difference of this size with 80 % power at the level 0.05, "
            f"not adjusted: with the spread as measured{most * many}, and with its upper 80 % confidence limit",
        ),
        Column("First", hint="how often it is the first when seeds are drawn anew"),
        Column("Next above", hint="how often the next row's activation comes out above it when seeds are drawn anew"),
    ]
    resampled = any(row.resampled for row in evidence.rows)
    return Table("With other seeds", columns, [_row(files, row, resampled=resampled) for row in evidence.rows])


def _row(files: StudyFiles, row: Evidence, *, resampled: bool) -> list[Cell]:
    chances = (ABSENT if chance is None else percent(chance) for chance in (row.first, row.overtaken))
    return [
        name_cell(files, row.activation),
        *_improved(row.improvement),
        *([_resampled(row.resampled, files.metric)] if resampled else []),
        _needed(files, row.needed),
        *map(Cell, chances),
    ]


def _improved(found: Improvement | None) -> list[Cell]:
    if found is None:
        return [Cell(ABSENT), Cell(ABSENT, "quiet")]
    low, value, high = (f"{100 * share:.0f}" for share in (found.low, found.probability, found.high))
    return [Cell(f"{value} %", "strong"), Cell(f"{low} to {high} %", "quiet")]


def _resampled(found: Estimate | None, metric: Metric) -> Cell:
    if found is None:
        return Cell(ABSENT, "quiet")
    if not isfinite(found.low) or not isfinite(found.high):
        return Cell("no ends", "quiet", hint="so few seeds set no limits")
    return Cell(f"{metric.change(found.low)} to {metric.change(found.high)}", "quiet")


def _needed(files: StudyFiles, found: SeedsNeeded | None) -> Cell:
    if found is None:
        return Cell(ABSENT)
    if found.seeds is None and found.smallest >= files.margin:
        hint = f"on these test examples no number of seeds finds less than {files.metric.amount(found.smallest)}"
        return Cell("too few test examples", "warning", hint=hint)
    if found.seeds is None:
        return Cell("over a million", "warning")
    more = "or more" if found.cautious is None else f"to {found.cautious:,}"
    return Cell(f"{found.seeds:,}" if found.seeds == found.cautious else f"{found.seeds:,} {more}")


def _notes(evidence: CellEvidence) -> list[str]:
    """Return what the table rests on."""
    if evidence.halves is None:
        return ["No ranking is drawn anew: fewer than two activations have finished two seeds and diverged in none."]
    tau = number(evidence.halves, 2)
    notes = [
        f"The ranking is drawn anew from {evidence.seeds} seeds.",
        f"Rankings by two halves of them agree with Kendall's tau {tau} on average (1: same order, 0: unrelated).",
    ]
    if evidence.diverged:
        notes.append(f"Last in it, because a run that diverged loses against every other: {_named(evidence.diverged)}.")
    if evidence.left_out:
        notes.append(f"Not in it, because runs failed or are missing: {_named(evidence.left_out)}.")
    return notes


def _named(labels: Sequence[str]) -> str:
    """Return the first labels and the number of the others."""
    more = len(labels) - NAMED
    return f"{', '.join(labels[:NAMED])} and {more} more" if more > 0 else listed(labels)
