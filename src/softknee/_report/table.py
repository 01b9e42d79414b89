"""A table as data, and as Markdown; pages render the same data as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from softknee._report.svg import Svg

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        title: Shown.
        numeric: Whether its cells are aligned at the right.
        hint: Longer explanation, a tooltip.
    """

    title: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: Shown.
        kind: Class that a page may colour: a verdict, `"name"`, `"code"`, `"quiet"`; empty for plain.
        picture: Drawn before the text; left out in Markdown.
        hint: Longer explanation, a tooltip.
        value: By which a sortable table orders it; None takes the number or the words of `text`.
    """

    text: str
    kind: str = ""
    picture: Svg | None = None
    hint: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under column heads.

    Attributes:
        caption: One line above it.
        columns: The heads.
        rows: Each with one cell a column.
        foot: Rows below the others, such as totals.
        sortable: Whether a reader can sort it by its heads, where scripts run; the foot stays.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Sequence[Cell]] = ()
    sortable: bool = False


def markdown_table(table: Table) -> str:
    """Return the table in GitHub's Markdown, without its caption; names of kind `"name"` or `"code"` as code.

    Args:
        table: Any table.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    heads = [_escaped(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    rows = [[_cell_text(cell) for cell in row] for row in (*table.rows, *table.foot)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))


def code(text: str) -> str:
    """Return `text` as a Markdown code span, which shows any text as it is."""
    return f"`{text.replace('`', chr(0x2BB))}`".replace("|", "\\|").replace("\n", " ")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a true minus sign, or a dash for None."""
    return ABSENT if value is None else _negative_zero(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign, or a dash for None."""
    return ABSENT if value is None else _negative_zero(f"{value:+.{digits}f}")


def probability(value: float | None) -> str:
    """Return a p value with three digits, `"< 0.001"` below that, or a dash for None."""
    if value is None:
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_value(value: float) -> str:
    """Return a p value as it stands in a sentence."""
    text = probability(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def choices(names: Iterable[str]) -> str:
    """Return the names that an option takes, the first of which is its default."""
    first, *others = names
    return ", ".join([f"{first} (default)", *others]) if others else first


def listed(names: Sequence[str]) -> str:
    """Return `"a"`, `"a and b"` or `"a, b and c"`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(count: int, one: str, many: str = "") -> str:
    """Return `"1 run"` or `"3 runs"`; `many` is the plural where it is not formed with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _cell_text(cell: Cell) -> str:
    return code(cell.text) if cell.kind in {"name", "code"} else _escaped(cell.text)


def _escaped(text: str) -> str:
    for character in "\\|<>*_`":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _negative_zero(text: str) -> str:
    """Write a true minus, but none before a number that was rounded to zero."""
    rounded_to_zero = not text.strip("+-0.")
    return text.replace("-", "" if rounded_to_zero else "−").replace("+", "" if rounded_to_zero else "+")
