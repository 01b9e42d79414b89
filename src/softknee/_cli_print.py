"""How the command line prints facts and tables."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import JustifyMethod

    from softknee._report.table import Table as PlainTable

# A pipe or a log file has no width of its own.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 132)
# Characters between columns.
GAP = 2
# Least width of the headings of facts.
LEAST = 12
# Columns of a table that a narrow terminal goes without, the first one first; the page has all.
DISPENSABLE = (
    *("Parameters", "Best epoch %", "Best epoch", "p equiv.", "s / run", "sd", "Runs", "p", "Rate", "±", "#"),
    *("Activation inputs", "Multiply-adds", "built late"),
    *("dead ≥ bf16", "dead ≤ bf16", "dead ≥ fp32", "dead ≤ fp32", "linear R²"),
)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print facts under each other, their headings at the left."""
    width = max([LEAST, *map(len, facts)])
    for name, text in facts.items():
        console.print(f"[bold]{name:>{width}}[/]  ", end="")
        console.print(text.replace("\n", "\n" + " " * (width + 2)), markup=False, highlight=False)


def print_path(what: str, path: object) -> None:
    """Print where something was written, in one line whatever the width."""
    console.print(f"{what}: {path}", soft_wrap=True, highlight=False, markup=False)


def terminal_table(table: PlainTable) -> Table:
    """Return a table for the terminal, without the columns it has no room for."""
    widths = {i: _least_width(table, i) for i in range(len(table.columns))}
    for title in DISPENSABLE:
        if sum(widths.values()) + GAP * len(widths) > console.width:
            widths = {i: width for i, width in widths.items() if table.columns[i].title != title}
    room = console.width - sum(widths.values()) - GAP * len(widths)
    result = Table(title=Text(table.caption), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, width in widths.items():
        column = table.columns[i]
        whole = max(len(column.title), *(len(row[i].text) for row in (*table.rows, *table.foot)))
        more = min(whole - width, max(room, 0))
        room -= more
        justify: JustifyMethod = "right" if column.numeric else "left"
        result.add_column(Text(column.title), justify=justify, width=width + more, overflow="fold")
    for row in (*table.rows, *table.foot):
        result.add_row(*[Text(row[i].text) for i in widths])
    return result


def _least_width(table: PlainTable, i: int) -> int:
    """Return the width column `i` needs: its cells whole, its head and its foot broken between words."""
    words = [*table.columns[i].title.split(), *(word for row in table.foot for word in row[i].text.split())]
    return max(map(len, [*words, *(row[i].text for row in table.rows)]))
