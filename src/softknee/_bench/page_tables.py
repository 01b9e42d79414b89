"""A study's tables, ready to be shown."""

from __future__ import annotations

import statistics
from itertools import islice
from typing import TYPE_CHECKING, Any

from softknee._report.lines import spark
from softknee._report.table import ABSENT, Cell, Column, Table, number, plural, probability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.study_files import Run, StudyFiles
    from softknee._bench.tables import CellTable, Row, Spread
    from softknee._report.svg import Svg

SIGNS = {"better": "▲", "worse": "▼", "equivalent": "■", "undecided": "○", "too few seeds": "·", "reference": "◆"}
MATRIX_CORNER = Column("Activation", numeric=False)
# Lines of single seeds in a figure: hundreds hide one another, and say no more.
LINES = 20


def kind_of(verdict: str) -> str:
    """Return the class of a verdict."""
    return verdict.replace(" ", "-")


def pairing(files: StudyFiles) -> str:
    """Return whether runs of one seed make pairs, in a word."""
    return "paired" if files.paired else "unpaired"


def cell_table(files: StudyFiles, table: CellTable) -> Table:
    """Return the ranked table of one condition."""
    tuned, metric = table.cell.rate == "tuned", files.metric
    lost = any(row.diverged or row.failed for row in table.rows)
    columns = [
        Column("#"),
        Column("Activation", numeric=False),
        Column("Verdict", numeric=False),
        Column(metric.head, hint=f"on {files.evaluated_on} after the last epoch, mean over seeds"),
        Column("±", hint=f"half its 95 % interval, over new seeds{' and new test examples' * metric.sampled}"),
        Column("sd", hint="standard deviation over seeds"),
        Column("Difference", hint=f"mean {pairing(files)} difference to {files.reference}, {metric.unit}"),
        Column("±", hint="half its 95 % interval, not adjusted"),
        Column("p", hint="against no difference, Holm-adjusted"),
        Column(
            "p equiv.", hint=f"against a difference of {metric.amount(files.margin, exact=True)} or more, Holm-adjusted"
        ),
        # Narrow terminals go without "Runs", never without what diverged or failed.
        Column("Runs done" if lost else "Runs", hint="done of those asked for"),
        Column(
            f"Best epoch {metric.sign}".strip(),
            hint=f"mean of the best {files.part} {metric.title} over epochs: optimistic, never ranked",
        ),
        *([Column("Rate", hint="learning rate chosen on held-out training data")] if tuned else []),
        Column("s / run", hint="wall time; of runs trained side by side, their share of it"),
        Column("Parameters", hint="of the whole model"),
    ]
    rows = [_row_cells(files, row, tuned=tuned) for row in table.rows]
    caption = f"Ranking: {table.cell.title}" if table.cell.title else "Ranking"
    return Table(caption, columns, rows)


def spread_table(files: StudyFiles, tables: Sequence[CellTable]) -> Table:
    """Return the means of all conditions side by side, and how far they spread."""
    metric = files.metric
    columns = [MATRIX_CORNER, *(Column(table.cell.title, hint=f"{files.part} {metric.axis}") for table in tables)]
    rows = []
    for first in tables[0].rows:
        cells = [name_cell(files, first.activation)]
        for table in tables:
            row = table.row(first.activation)
            reach = "" if row.low is None or row.high is None else f" ± {metric.value((row.high - row.low) / 2)}"
            lost = ", ".join(_counted(diverged=row.diverged, failed=row.failed))
            text = f"{SIGNS[row.verdict]} {metric.value(row.mean)}{reach}{f' ({lost})' if lost else ''}"
            cells.append(Cell(text, kind_of(row.verdict), hint=f"{row.verdict}; {_runs_text(row)}"))
        rows.append(cells)
    foot = [
        [Cell("spread of all activations", "quiet"), *(_spread_cell(table.spread, metric) for table in tables)],
        [Cell("spread where a match is valid"), *(_spread_cell(table.spread_matched, metric) for table in tables)],
    ]
    sign = f", {metric.sign}" if metric.sign else ""
    return Table(f"{metric.capital} under every condition{sign}", columns, rows, foot)


def gains_table(files: StudyFiles) -> Table:
    """Return each activation's gains at its initial parameters, over all sites and seeds."""
    columns = [
        MATRIX_CORNER,
        Column("Forward gain", hint="weight scale that keeps the signal's size"),
        Column("Backward gain", hint="weight scale that keeps the gradient's size"),
        Column("chi", hint="change of the gradient's size a layer when the forward gain is used"),
        Column("Match", numeric=False, hint="whether one weight scale keeps both within a factor of two"),
    ]
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in files.activations}
    for run in files.runs:
        found[run.activation] += run.get("gain") or ()
    rows = []
    for label, gains in found.items():
        if gains:
            values = [_range([gain[field] for gain in gains]) for field in ("forward", "backward", "chi")]
            rows.append([name_cell(files, label), *map(Cell, values), _match_cell([gain["valid"] for gain in gains])])
    return Table("Gains before training", columns, rows)


def tuning_table(files: StudyFiles) -> Table:
    """Return the learning rates that were chosen."""
    columns = [
        MATRIX_CORNER,
        Column("Initialization", numeric=False),
        Column("Chosen rate"),
        Column(f"Validation {files.metric.title} {files.metric.sign}".strip()),
        Column("Rates tried"),
        Column("Remark", numeric=False),
    ]
    rows = []
    for search in files.manifest["tuning"]:
        best = next((t[files.metric.name] for t in search["trials"] if t["learning_rate"] == search["chosen"]), None)
        remark = "at the edge of the rates tried" if search["at_edge"] else ""
        if search["chosen"] is None:
            remark = "no rate trained, or not finished"
        rows.append(
            [
                name_cell(files, search["activation"]),
                Cell(search["initialization"]),
                Cell(ABSENT if search["chosen"] is None else f"{search['chosen']:g}"),
                Cell(files.metric.value(best)),
                Cell(str(len(search["trials"]))),
                Cell(remark, "warning" if remark else ""),
            ]
        )
    return Table("Learning rates chosen on held-out training data", columns, rows)


def class_tables(files: StudyFiles, table: CellTable) -> list[Table]:
    """Return precision, recall and F1 of every class, mean over the runs done in one condition, in percent."""
    runs = {label: done_runs(files, table.cell.name, label) for label in table.order}
    names: list[str] = next((run.get("classes") for found in runs.values() for run in found), [])
    columns = [MATRIX_CORNER, *(Column(name) for name in names)]
    return [
        Table(
            title,
            columns,
            [[name_cell(files, label), *_class_cells(found, field)] for label, found in runs.items() if found],
        )
        for field, title in (("precision", "Precision, %"), ("recall", "Recall, %"), ("f1", "F1, %"))
    ]


def troubles_table(files: StudyFiles) -> Table:
    """Return the runs that diverged, failed or were lost, tuning runs included."""
    titles = {cell.name: cell.title for cell in files.cells}
    columns = [
        MATRIX_CORNER,
        Column("Condition", numeric=False),
        Column("Seed"),
        Column("Learning rate"),
        Column("Outcome", numeric=False),
        Column("Epochs finished"),
        Column("Message", numeric=False),
        Column("Run", numeric=False),
    ]
    rows = []
    for run in (*files.runs, *files.tuning_runs):
        if run.status in {"done", "missing"}:
            continue
        error = run.get("error")
        rows.append(
            [
                name_cell(files, run.activation, picture=False),
                Cell(titles.get(run.cell, "tuning")),
                Cell(str(run.seed)),
                Cell(f"{run.learning_rate:g}"),
                Cell(run.status, "worse"),
                Cell(str(len(run.get("test_loss") or ()))),
                Cell(f"{error['type']}: {error['message']}" if error else "", "words"),
                Cell(run.key, "code"),
            ]
        )
    return Table("Runs that did not count", columns, rows)


def name_cell(files: StudyFiles, label: str, *, picture: bool = True) -> Cell:
    """Return a cell with the activation's name behind a sketch of its curve."""
    return Cell(label, "name", curve_sketch(files, label) if picture else None)


def curve_sketch(files: StudyFiles, label: str) -> Svg | None:
    """Return a sketch of the activation before training, if the study has its curve."""
    curve = files.manifest["curves"].get(label)
    return spark(curve["x"], curve["y"], title=label) if curve else None


def done_runs(files: StudyFiles, cell: str, label: str) -> list[Run]:
    """Return the runs of an activation that count in a condition."""
    return [run for run in files.of(cell, label) if run.done]


def drawn_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that get a line of their own: the first `LINES` that are done, and as many of the others."""
    drawn = [run.key for done in (True, False) for run in islice((r for r in runs if r.done is done), LINES)]
    return [run for run in runs if run.key in drawn]


def drawn_note(tables: Sequence[CellTable]) -> str:
    """Return the sentence that says so, where there are more."""
    more = any(row.done > LINES or row.diverged > LINES for table in tables for row in table.rows)
    return f" Of more than {LINES} seeds the first {LINES} are drawn; the mean is over all." if more else ""


def _row_cells(files: StudyFiles, row: Row, *, tuned: bool) -> list[Cell]:
    metric = files.metric
    partial = row.done < row.done + row.diverged + row.failed + row.missing
    rates = ", ".join(f"{rate:g}" for rate in row.learning_rates)
    return [
        Cell(ABSENT if row.rank is None else str(row.rank), "quiet"),
        name_cell(files, row.activation),
        Cell(f"{SIGNS[row.verdict]} {row.verdict}", f"verdict {kind_of(row.verdict)}"),
        Cell(metric.value(row.mean), "strong"),
        _half_cell(row.low, row.high, metric),
        Cell(metric.value(row.sd)),
        Cell(metric.change(row.difference), "strong"),
        _half_cell(row.difference_low, row.difference_high, metric),
        Cell(probability(row.p)),
        Cell(probability(row.p_equivalence)),
        Cell(_runs_text(row), "warning" if partial else ""),
        Cell(metric.value(row.best_mean), "quiet"),
        *([Cell(rates)] if tuned else []),
        Cell(number(row.seconds, 1)),
        Cell(ABSENT if row.parameters is None else f"{row.parameters:,}"),
    ]


def _half_cell(low: float | None, high: float | None, metric: Metric) -> Cell:
    """Return half the width of an interval, its ends as the tooltip."""
    if low is None or high is None:
        return Cell(ABSENT, "quiet")
    return Cell(metric.value((high - low) / 2), "quiet", hint=f"{metric.value(low)} to {metric.value(high)}")


def _runs_text(row: Row) -> str:
    total = row.done + row.diverged + row.failed + row.missing
    return ", ".join(
        [f"{row.done} of {total}", *_counted(diverged=row.diverged, failed=row.failed, missing=row.missing)]
    )


def _counted(**outcomes: int) -> list[str]:
    """Return each outcome that there is with its number."""
    return [f"{count} {outcome}" for outcome, count in outcomes.items() if count]


def _spread_cell(spread: Spread | None, metric: Metric) -> Cell:
    if spread is None:
        return Cell(ABSENT)
    hint = f"{spread.highest} to {spread.lowest}, {plural(spread.count, 'activation')}"
    return Cell(metric.value(spread.points), "strong", hint=hint)


def _match_cell(valid: Sequence[bool]) -> Cell:
    if all(valid):
        return Cell("valid")
    return Cell(
        "no valid match" if not any(valid) else f"no valid match at {valid.count(False)} of {len(valid)}", "warning"
    )


def _range(values: Sequence[float | None]) -> str:
    """Return one number, or the smallest and largest where sites or seeds differ."""
    known = [value for value in values if value is not None]
    if not known:
        return ABSENT
    low, high = f"{min(known):.4f}", f"{max(known):.4f}"
    return low if low == high else f"{low} to {high}"


def _class_cells(runs: Sequence[Run], field: str) -> list[Cell]:
    columns = zip(*(run.get("per_class")[field] for run in runs), strict=True)
    return [Cell(f"{100 * statistics.fmean(values):.1f}") for values in columns]
