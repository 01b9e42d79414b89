"""Plots for terminals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

from softknee._errors import UsageError

BRAILLE = 0x2800
# Bit of each dot of a braille character, by its column and its row from the top.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def braille_plot(x: Sequence[float], y: Sequence[float], *, width: int = 60, height: int = 15) -> str:
    """Draw a curve in braille characters, with its zero lines dotted and the ranges written at the edges.

    Args:
        x: Positions, ascending, at least two.
        y: Values, same length; gaps where they are not finite.
        width: Characters across, without the numbers; at least 8.
        height: Lines, without the numbers; at least 2.

    Returns:
        `height + 1` lines joined by newlines.

    Raises:
        UsageError: There are fewer than two positions, the lengths differ, or the plot is too small.
    """
    if len(x) < 2 or len(x) != len(y):
        raise UsageError(f"x has {len(x)} and y {len(y)} values; they must be as many, at least two")
    if width < 8 or height < 2:
        raise UsageError(f"a plot of {width} x {height} characters is too small; at least 8 x 2 are needed")
    finite = [value for value in y if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 1, high + 1
    canvas = _Canvas(width, height)
    _draw_zeros(canvas, x, low, high)
    _draw_curve(canvas, x, y, low, high)
    return _with_numbers(canvas.lines(), low, high, x[0], x[-1])


class _Canvas:
    """A grid of dots, two by four in every character."""

    def __init__(self, width: int, height: int) -> None:
        self.across, self.down = 2 * width, 4 * height
        self._cells = [[0] * width for _ in range(height)]

    def dot(self, column: int, row: int) -> None:
        self._cells[row // 4][column // 2] |= DOTS[column % 2][row % 4]

    def lines(self) -> list[str]:
        return ["".join(chr(BRAILLE + bits) for bits in row) for row in self._cells]


def _draw_zeros(canvas: _Canvas, x: Sequence[float], low: float, high: float) -> None:
    if low <= 0 <= high:
        row = _place(0.0, high, low, canvas.down)
        for column in range(0, canvas.across, 4):
            canvas.dot(column, row)
    if x[0] <= 0 <= x[-1]:
        column = _place(0.0, x[0], x[-1], canvas.across)
        for row in range(0, canvas.down, 4):
            canvas.dot(column, row)


def _draw_curve(canvas: _Canvas, x: Sequence[float], y: Sequence[float], low: float, high: float) -> None:
    """Fill, column by column, the rows between one value and the next, so that steep parts stay connected."""
    before: int | None = None
    for column in range(canvas.across):
        value = _interpolated(x, y, x[0] + (x[-1] - x[0]) * column / (canvas.across - 1))
        if not math.isfinite(value):
            before = None
            continue
        row = _place(value, high, low, canvas.down)
        start = row if before is None else before + (row > before) - (row < before)
        for filled in range(min(start, row), max(start, row) + 1):
            canvas.dot(column, filled)
        before = row


def _interpolated(x: Sequence[float], y: Sequence[float], position: float) -> float:
    right = next((index for index, value in enumerate(x) if value >= position), len(x) - 1)
    if right == 0 or x[right] == x[right - 1]:
        return y[right]
    part = min((position - x[right - 1]) / (x[right] - x[right - 1]), 1.0)
    return y[right - 1] * (1 - part) + y[right] * part


def _place(value: float, first: float, last: float, count: int) -> int:
    return round((value - first) / (last - first) * (count - 1))


def _with_numbers(lines: list[str], low: float, high: float, left: float, right: float) -> str:
    numbers = {0: f"{high:.3g}", len(lines) - 1: f"{low:.3g}"}
    room = max(map(len, numbers.values()))
    body = [f"{numbers.get(index, ''):>{room}} {line}" for index, line in enumerate(lines)]
    ends = f"{left:.3g}", f"{right:.3g}"
    foot = " " * (room + 1) + ends[0] + ends[1].rjust(len(lines[0]) - len(ends[0]))
    return "\n".join([*body, foot])
