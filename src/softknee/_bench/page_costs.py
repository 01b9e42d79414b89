"""What each activation costs in a study: parameters, operations, time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench.page_tables import MATRIX_CORNER, name_cell
from softknee._report.table import ABSENT, Cell, Column, Table, number

if TYPE_CHECKING:
    from softknee._bench.study_files import StudyFiles
    from softknee._bench.tables import CellTable


def cost_table(files: StudyFiles, table: CellTable) -> Table:
    """Return parameters, operations for one example and, where any was measured, the time of a step; by rank."""
    timed = any(row.step_seconds is not None for row in table.rows)
    columns = [
        MATRIX_CORNER,
        Column("Parameters", hint="of the whole model"),
        Column("in activations", hint="parameters of the activations among them"),
        Column("Multiply-adds", hint="of layers, for one example, forward"),
        Column("Activation inputs", hint="elements that go through activations for one example"),
        Column(
            "Activation operations",
            hint="vector instructions for these elements, forward and backward, as the formula is written; tables and "
            "fused kernels take fewer",
        ),
        *(_time_columns(files) if timed else []),
    ]
    base = table.row(files.reference).step_seconds
    rows = [
        [
            name_cell(files, row.activation),
            *map(_count, (row.parameters, row.activation_parameters, row.multiply_adds, row.activation_inputs)),
            _count(row.activation_price),
            *(_times(row.step_seconds, base) if timed else []),
        ]
        for row in table.rows
    ]
    return Table("Cost", columns, rows)


def _time_columns(files: StudyFiles) -> list[Column]:
    return [
        Column(
            "ms / step",
            hint="wall time of a training step, forward, backward and update; the mean over runs trained alone",
        ),
        Column(f"against {files.reference}", hint="ratio of these times, measured as the runs came, not interleaved"),
    ]


def _times(seconds: float | None, base: float | None) -> list[Cell]:
    """Return the time of a step, and its ratio to that of the reference."""
    if seconds is None:
        return [Cell(ABSENT), Cell(ABSENT)]
    return [Cell(number(1e3 * seconds, 2)), Cell(number(seconds / base if base else None, 2))]


def _count(value: int | None) -> Cell:
    return Cell(ABSENT if value is None else f"{value:,}")
