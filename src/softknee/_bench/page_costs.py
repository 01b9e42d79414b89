"""What each activation costs in a study: parameters, operations, time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench.page_tables import MATRIX_CORNER, name_cell
from softknee._report.table import ABSENT, Cell, Column, Table, number

if TYPE_CHECKING:
    from softknee._bench.study_files import StudyFiles
    from softknee._bench.tables import CellTable


def cost_table(files: StudyFiles, table: CellTable) -> Table:
    """Return parameters, operations for one example and the time of a step, by rank in one condition."""
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
        Column("ms / step", hint="wall time of a training step, forward, backward and update; the mean over runs"),
        Column(f"against {files.reference}", hint="ratio of these times, measured as the runs came, not interleaved"),
    ]
    base = table.row(files.reference).step_seconds
    rows = [
        [
            name_cell(files, row.activation),
            *map(_count, (row.parameters, row.activation_parameters, row.multiply_adds, row.activation_inputs)),
            _count(row.activation_price),
            Cell(number(None if row.step_seconds is None else 1e3 * row.step_seconds, 2)),
            Cell(number(None if row.step_seconds is None or not base else row.step_seconds / base, 2)),
        ]
        for row in table.rows
    ]
    return Table("Cost", columns, rows)


def _count(value: int | None) -> Cell:
    return Cell(ABSENT if value is None else f"{value:,}")
