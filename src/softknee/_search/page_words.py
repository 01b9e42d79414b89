"""Numbers and names as the page of a search writes them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import short
from softknee._report.lines import spark
from softknee._report.table import ABSENT, Cell, number, signed
from softknee._statistics.decisions import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[str, Any]

# Phases of a search: those in the finals are chosen in the first, by runs from seeds of its own.
SELECT, VERIFY = "select", "verify"
# Losses beyond are written with a power of ten.
HUGE = 1e6
_LONG_NUMBER = re.compile(r"(?<![\w.])\d+\.\d{5,}(e[+-]?\d+)?")
# Positions of the curves in the size of a word.
SPARK_REACH = 3.0


def rows_by_key(data: Mapping[str, Any]) -> dict[str, Row]:
    """Return the candidates of a result by their keys."""
    return {row["key"]: row for row in data["table"]}


def digits_for(*widths: float | None) -> int:
    """Return with how many decimals numbers are written whose intervals have these half-widths: two of the least."""
    known = [width for width in widths if width is not None and math.isfinite(width) and width > 0]
    return min(max(1 - math.floor(math.log10(min(known))), 2), 8) if known else 4


def loss_digits(losses: Iterable[float | None]) -> int:
    """Return with how many decimals losses are written: four digits of the middle one."""
    sizes = sorted(abs(loss) for loss in losses if loss)
    return min(max(3 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 8) if sizes else 4


def final_digits(data: Mapping[str, Any]) -> int:
    """Return with how many decimals the losses of finalists are written."""
    finals = [row["final"] for row in data["table"] if row["final"]]
    ends = [(one[f"{kind}_low"], one[f"{kind}_high"]) for one in finals for kind in ("validation", "test")]
    widths = [(high - low) / 2 for low, high in ends if low is not None and high is not None]
    return digits_for(*widths) if widths else loss_digits(one["validation_mean"] for one in finals)


def estimate(mean: float | None, low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """Return a number with its interval, as `0.0123 (0.0040 to 0.0206)`."""
    if mean is None:
        return ABSENT
    text = signed(mean, digits) if sign else number(mean, digits)
    return text if low is None or high is None else f"{text} ({number(low, digits)} to {number(high, digits)})"


def loss_cell(value: float | None, digits: int, *, failure: str | None = None) -> Cell:
    """Return a cell with a loss; of one that failed, with that word."""
    if value is None:
        return Cell("failed", "warning", hint=failure) if failure else Cell(ABSENT, "quiet")
    return Cell(number(value, digits) if abs(value) < HUGE else short(value), value=value)


def part_text(part: float) -> str:
    """Return which part of a full run was trained."""
    if part >= 1:
        return "full"
    inverse = 1 / part if part > 0 else math.inf
    return f"1/{round(inverse)}" if abs(inverse - round(inverse)) < 1e-6 else f"{100 * part:.0f} %"


def brief(name: str) -> str:
    """Return a function's text with no more digits than can be read."""
    return _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.5g}", name)


def name_cell(row: Row) -> Cell:
    """Return a cell with a candidate's name and the curve of its first function."""
    name = brief(row["name"])
    hint = "" if name == row["name"] else row["name"]
    shown = next((curve for curve in row.get("curve") or [] if curve), None)
    if shown is None:
        return Cell(name, "name", hint=hint)
    step = 2 * SPARK_REACH / (len(shown) - 1)
    x: Sequence[float] = [-SPARK_REACH + step * index for index in range(len(shown))]
    return Cell(name, "name", picture=spark(x, shown, title=name), hint=hint)


def kind_of(difference: Mapping[str, Any]) -> str:
    """Return what a paired difference says, as the class of its mark."""
    gain, p = difference["gain"], difference["p"]
    if gain is None or p is None:
        return "too-few-seeds"
    if p >= LEVEL or gain == 0:
        return "undecided"
    return "better" if gain > 0 else "worse"
