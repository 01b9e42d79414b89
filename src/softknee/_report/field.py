"""Fields of numbers as colours: landscapes from above with contour lines, rasters of units by time."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from softknee._report.colours import Palette, colour, colour_bar, parts
from softknee._report.svg import Kind, Scale, Svg, drawing, element, label, tick_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Rows = Sequence[Sequence[float | None]]

LEVELS = 16
LEFT, RIGHT, TOP, BOTTOM = 52.0, 74.0, 10.0, 36.0
# Width of a character beside a row, in pixels, and how many have room where numbers stand.
LETTER, FITTING = 6.6, 6


def field(
    rows: Rows,
    *,
    title: str,
    description: str,
    x: tuple[float, float],
    y: tuple[float, float],
    names: tuple[str, str] = ("", ""),
    palette: Palette = "size",
    log: bool = False,
    heights: tuple[float, float] | None = None,
    contours: int = 0,
    points: Sequence[tuple[float, float, str]] = (),
    row_names: Sequence[str] = (),
    size: tuple[float, float] = (420.0, 330.0),
) -> Svg:
    """Draw numbers on a grid as cells of sixteen colours with their key.

    Args:
        rows: From the lowest y; None and what is not finite stay empty.
        title: Of the figure.
        description: What it shows, in a sentence.
        x: Positions of the middles of the first and the last cell of a row.
        y: Of the first and the last row.
        names: Titles of the axes.
        palette: `"size"`, or `"sign"` with 0 in the middle.
        log: Whether colours and contours follow the logarithm; what is not positive stays empty.
        heights: The numbers of the first and the last colour, so that figures can be compared; by default the least and
            the greatest there are.
        contours: Lines of equal height to draw, about.
        points: Marked places: x, y, text beside.
        row_names: Stand beside the rows in place of numbers, one each.
        size: Width and height in pixels.

    Returns:
        The figure.
    """
    kind: Kind = "log" if log else "linear"
    values = [v for row in rows for v in row if v is not None and math.isfinite(v) and (not log or v > 0)]
    low, high = heights or (min(values, default=0.0), max(values, default=1.0))
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    height = Scale(low, high, 0.0, 1.0, kind)
    width, tall = size
    count, columns = len(rows), max(map(len, rows), default=0)
    left = LEFT + LETTER * max(max(map(len, row_names), default=0) - FITTING, 0)
    across = _axis(x, columns, left, width - RIGHT)
    up = _axis(y, count, tall - BOTTOM, TOP)
    ends = (0.0, 1.0) if log else parts(palette, low, high)
    cells = element(
        "g",
        *_cells(rows, height, palette, ends),
        transform=f"translate({left:g} {tall - BOTTOM:g}) "
        f"scale({(width - RIGHT - left) / max(columns, 1):.5f} {-(tall - BOTTOM - TOP) / max(count, 1):.5f})",
        class_="cells",
    )
    drawn = [
        cells,
        *(_contour(rows, level, x, y, across, up) for level in (height.ticks(contours) if contours else ())),
    ]
    drawn += [_point(across(a), up(b), text) for a, b, text in points]
    key = colour_bar(width - RIGHT + 12, TOP, tall - BOTTOM, palette, _short(low), _short(high), ends)
    return drawing(
        width,
        tall,
        [*drawn, *_frame(across, up, names, _row_ticks(up, y, row_names), tall), key],
        title=title,
        description=f"{description} From {_short(low)} to {_short(high)}.",
        class_="field",
    )


def _axis(ends: tuple[float, float], count: int, start: float, end: float) -> Scale:
    """Return the scale on which middles of cells stand half a cell inside."""
    half = (ends[1] - ends[0]) / (2 * (count - 1)) if count > 1 else 0.5
    return Scale(ends[0] - half, ends[1] + half, start, end)


def _cells(rows: Rows, height: Scale, palette: Palette, ends: tuple[float, float]) -> list[str]:
    """Draw all cells of a colour as one path of strokes, a cell wide; neighbours in a row are one stroke."""
    strokes: dict[int, list[str]] = {}
    for j, row in enumerate(rows):
        levels = [_level(height(v)) if v is not None and height.has(v) else -1 for v in row]
        start = 0
        for i in range(1, len(levels) + 1):
            if i == len(levels) or levels[i] != levels[start]:
                if levels[start] >= 0:
                    strokes.setdefault(levels[start], []).append(f"M{start} {j}.5h{i - start}")
                start = i
    step = (ends[1] - ends[0]) / LEVELS
    return [
        element("path", d="".join(moves), stroke=colour(palette, ends[0] + step * (level + 0.5)))
        for level, moves in sorted(strokes.items())
    ]


def _level(part: float) -> int:
    return min(max(int(part * LEVELS), 0), LEVELS - 1)


def _contour(rows: Rows, level: float, x: tuple[float, float], y: tuple[float, float], across: Scale, up: Scale) -> str:
    """Draw where the field, linear along the sides of triangles, has the height `level`."""
    steps = (x[1] - x[0]) / max(len(rows[0]) - 1, 1), (y[1] - y[0]) / max(len(rows) - 1, 1)
    segments = []
    for j, (lower, upper) in enumerate(pairwise(rows)):
        for i in range(len(lower) - 1):
            corners = [(i, j, lower[i]), (i + 1, j, lower[i + 1]), (i + 1, j + 1, upper[i + 1]), (i, j + 1, upper[i])]
            for triangle in (corners[:3], [corners[0], *corners[2:]]):
                crossed = list(_crossings(triangle, level))
                if len(crossed) == 2:
                    ends = [f"{across(x[0] + a * steps[0]):.1f} {up(y[0] + b * steps[1]):.1f}" for a, b in crossed]
                    segments.append("M" + "L".join(ends))
    return element("path", element("title", tick_text(level)), d="".join(segments), class_="contour")


def _crossings(triangle: Sequence[tuple[int, int, float | None]], level: float) -> Iterator[tuple[float, float]]:
    for (a, b, low), (c, d, high) in zip(triangle, [*triangle[1:], triangle[0]], strict=True):
        if low is not None and high is not None and (low < level) != (high < level) and math.isfinite(low + high):
            part = (level - low) / (high - low)
            yield a + part * (c - a), b + part * (d - b)


def _point(x: float, y: float, text: str) -> str:
    mark = element("circle", element("title", escape(text)), cx=x, cy=y, r=4, class_="place")
    return mark + (label(x + 8, y + 3.5, text, class_="place") if text else "")


def _row_ticks(up: Scale, y: tuple[float, float], names: Sequence[str]) -> list[tuple[float, str]]:
    """Return where a text stands beside the rows: their names, or round numbers."""
    if not names:
        return [(value, tick_text(value)) for value in up.ticks()]
    step = (y[1] - y[0]) / max(len(names) - 1, 1)
    return [(y[0] + step * index, name) for index, name in enumerate(names)]


def _frame(x: Scale, y: Scale, names: tuple[str, str], rows: Sequence[tuple[float, str]], tall: float) -> list[str]:
    frame = [label(x(value), tall - BOTTOM + 14, tick_text(value), anchor="middle") for value in x.ticks()]
    frame += [label(x.start - 6, y(value) + 3.5, text, anchor="end") for value, text in rows]
    frame.append(label(x.end, tall - 5, names[0], anchor="end", class_="name"))
    turned = element(
        "g", label(0, 0, names[1], anchor="end", class_="name"), transform=f"translate(9 {y.end:g}) rotate(-90)"
    )
    return [*frame, turned]


def _short(value: float) -> str:
    return tick_text(float(f"{value:.3g}"))
