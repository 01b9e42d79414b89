"""Charts that compare things on one scale: forest plots of intervals, and slopes through conditions."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import (
    Scale,
    Svg,
    drawing,
    element,
    focus,
    hue_class,
    label,
    padded,
    path_data,
    tick_text,
    ticks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW = 24.0
LABEL_GAP = 16.0
# Room for a letter of a label and for a tick, in pixels.
LETTER, TICK = 8.3, 60.0


@dataclass(frozen=True)
class Span:
    """A row of a forest plot.

    Attributes:
        label: Names the row.
        middle: Estimate, or None where there is none.
        low: Lower end of its interval, or None.
        high: Upper end, or None.
        note: Text at the right.
        kind: Class that decides colour and mark: a verdict, spaces as hyphens.
    """

    label: str
    middle: float | None
    low: float | None
    high: float | None
    note: str
    kind: str


@dataclass(frozen=True)
class Slope:
    """A line through all conditions.

    Attributes:
        label: Stands at its end.
        values: One a condition, None where there is none.
        hue: Index of its colour and dash.
        quiet: Whether it steps into the background.
    """

    label: str
    values: Sequence[float | None]
    hue: int
    quiet: bool = False


def forest(
    spans: Sequence[Span],
    *,
    margin: float,
    title: str,
    description: str,
    unit: str,
    width: float = 760.0,
    note_width: float = 150.0,
    label_width: float = 150.0,
) -> Svg:
    """Draw estimates with their intervals, one row each, around a zero line with its band of equivalence.

    Args:
        spans: The rows, top to bottom.
        margin: Half-width of the band, in the unit of the spans.
        title: Of the figure.
        description: What it shows, in a sentence.
        unit: Title of the axis.
        width: In pixels.
        note_width: Room for the notes, in pixels.
        label_width: Room for the labels, in pixels.

    Returns:
        The figure. Rows far from all others end in an arrow at the edge; their note still has the number.
    """
    ends = [end for span in spans for end in (span.low, span.middle, span.high) if end is not None]
    low, high = focus(ends)
    x = Scale(*padded((low, high, -1.5 * margin, 1.5 * margin)), label_width, width - note_width)
    bottom = 12 + ROW * len(spans)
    band = element("rect", x=x(-margin), y=6, width=x(margin) - x(-margin), height=bottom - 6, class_="margin")
    grid = [
        part
        for value in ticks(x.low, x.high, about=int((x.end - x.start) / TICK))
        for part in (
            element("path", d=f"M{x(value):.1f} 6V{bottom}", class_="grid"),
            label(x(value), bottom + 14, tick_text(value), anchor="middle"),
        )
    ]
    zero = element("path", d=f"M{x(0):.1f} 6V{bottom}", class_="axis")
    longest = int(label_width / LETTER)
    rows = [_row(span, x, 12 + ROW * (index + 0.5), width, longest) for index, span in enumerate(spans)]
    name = label(x.end, bottom + 28, unit, anchor="end", class_="name")
    return drawing(
        width, bottom + 36, [band, *grid, zero, *rows, name], title=title, description=description, class_="forest"
    )


def slopes(
    columns: Sequence[str], paths: Sequence[Slope], *, title: str, description: str, width: float = 900.0
) -> Svg:
    """Draw one line for each path through the conditions, named directly at its right end.

    Args:
        columns: Names of the conditions; a line break splits one into two lines.
        paths: The lines.
        title: Of the figure.
        description: What it shows, in a sentence.
        width: In pixels.

    Returns:
        The figure. Values far below or above all others lie on the edge with their number beside them.
    """
    height = max(320.0, LABEL_GAP * len(paths) + 110)
    top, bottom, left, right = 46.0, height - 24, 56.0, width - 215
    values = [value for path in paths for value in path.values if value is not None]
    y = Scale(*padded(focus(values)), bottom, top)
    step = (right - left) / max(len(columns) - 1, 1)
    places = [left + step * index for index in range(len(columns))]
    parts = [
        part
        for value in ticks(y.low, y.high, about=6)
        for part in (
            element("path", d=f"M{left} {y(value):.1f}H{right}", class_="grid"),
            label(left - 10, y(value) + 3.5, tick_text(value), anchor="end"),
        )
    ]
    for place, column in zip(places, columns, strict=True):
        parts.append(element("path", d=f"M{place:.1f} {top}V{bottom}", class_="pillar"))
        anchor = "start" if place == left else "end" if place == right else "middle"
        for line, text in enumerate(column.split("\n")):
            parts.append(label(place, 14 + 14 * line, text, anchor=anchor, class_="" if line else "strong"))
    parts += [_slope(path, places, y) for path in paths]
    parts += _end_labels(paths, right, y)
    return drawing(width, height, parts, title=title, description=description, class_="slopes")


def _row(span: Span, x: Scale, y: float, width: float, longest: int) -> str:
    parts = [
        label(0, y + 4, span.label, class_="strong", longest=longest),
        label(width, y + 4, span.note, anchor="end", class_="figure"),
    ]
    if span.low is not None and span.high is not None and span.low < x.high and span.high > x.low:
        start, end = x.edge(span.low), x.edge(span.high)
        caps = "".join(f"M{x(value):.1f} {y - 4:.1f}v8" for value in (span.low, span.high) if x.holds(value))
        parts.append(element("path", d=f"M{start:.1f} {y:.1f}H{end:.1f}{caps}", class_="whisker"))
    if span.middle is not None:
        parts.append(element("path", d=_mark(span.kind, x, span.middle, y), class_="mark"))
    hint = element("title", escape(f"{span.label}: {span.note}"))
    return element("g", hint, *parts, class_=f"row {span.kind}")


def _mark(kind: str, x: Scale, value: float, y: float) -> str:
    """Return the path of a row's mark: its shape alone tells the verdict, and an arrow that it lies outside."""
    place = x.edge(value)
    if not x.holds(value):
        sign = 1 if value > x.high else -1
        return f"M{place:.1f} {y:.1f}l{-9 * sign} -5.5v11Z"
    shapes = {
        "better": "m0 -6l5.5 10h-11Z",
        "worse": "m0 6l5.5 -10h-11Z",
        "equivalent": "m-5 -5h10v10h-10Z",
        "reference": "m0 -6l6 6l-6 6l-6 -6Z",
    }
    return f"M{place:.1f} {y:.1f}" + shapes.get(kind, "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z")


def _slope(path: Slope, places: Sequence[float], y: Scale) -> str:
    """Draw a path; a value outside the scale breaks the line and becomes an arrow with its number."""
    points = [
        (place, y(value)) if value is not None and y.holds(value) else None
        for place, value in zip(places, path.values, strict=True)
    ]
    drawn = [element("path", d=path_data(points), class_="line main")]
    drawn += [element("circle", cx=point[0], cy=point[1], r=3.2) for point in points if point is not None]
    for place, value in zip(places, path.values, strict=True):
        if value is not None and not y.holds(value):
            down = value < y.low
            edge = y.edge(value) + (6 if down else -6)
            drawn += [
                element("path", d=f"M{place:.1f} {edge:.1f}l-5 {-9 if down else 9}h10Z", class_="arrow"),
                label(place + 9, edge, f"{value:.1f}", class_="figure"),
            ]
    numbers = ", ".join("none" if value is None else f"{value:.2f}" for value in path.values)
    hint = element("title", escape(f"{path.label}: {numbers}"))
    return element("g", hint, *drawn, class_=f"slope {hue_class(path.hue)}" + (" quiet" if path.quiet else ""))


def _end_labels(paths: Sequence[Slope], right: float, y: Scale) -> list[str]:
    """Place the names beside the last values and push them apart where they would overlap."""
    ended = [(y.edge(path.values[-1]), path) for path in paths if path.values[-1] is not None]
    ended.sort(key=lambda item: item[0])
    heights = [height for height, _ in ended]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + LABEL_GAP)
    # The last names may have been pushed below the chart: push back upward from its foot.
    limit = y.start + 6
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], limit)
        limit = heights[index] - LABEL_GAP
    parts = []
    for height, (place, path) in zip(heights, ended, strict=True):
        leader = f"M{right + 5} {place:.1f}L{right + 20} {height:.1f}"
        parts += [
            element("path", d=leader, class_=f"leader {hue_class(path.hue)}"),
            label(
                right + 24,
                height + 3.5,
                f"{path.label}  {path.values[-1]:.2f}",
                class_=f"end {hue_class(path.hue)}",
                longest=30,
            ),
        ]
    return parts
