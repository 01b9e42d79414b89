"""Ridges: one histogram a row over a common axis, to compare many distributions at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import Kind, Scale, Svg, drawing, element, hue_class, label, steps_data, tick_text

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW, TALL = 26.0, 34.0


@dataclass(frozen=True)
class Ridge:
    """A row.

    Attributes:
        label: Names it.
        edges: Of the bins, ascending.
        counts: In the bins, or with one more at either end for what lies below and above them.
        note: Text at the right.
        hue: Index of its colour.
    """

    label: str
    edges: Sequence[float]
    counts: Sequence[float]
    note: str = ""
    hue: int = 0


def ridges(
    rows: Sequence[Ridge],
    *,
    title: str,
    description: str,
    x: str = "",
    kind: Kind = "linear",
    unit: float = 1.0,
    width: float = 640.0,
    label_width: float = 150.0,
    note_width: float = 90.0,
) -> Svg:
    """Draw the densities along the drawn axis, each to its own height; what lies beyond the bins stands at the edge.

    Args:
        rows: Top to bottom.
        title: Of the figure.
        description: What it shows, in a sentence.
        x: Title of the axis.
        kind: Of the axis.
        unit: Where a symlog turns from linear to logarithmic.
        width: In pixels.
        label_width: Room for the labels.
        note_width: Room for the notes.

    Returns:
        The figure.
    """
    edges = [edge for row in rows for edge in row.edges if kind != "log" or edge > 0] or [0.1, 1.0]
    scale = Scale(min(edges), max(edges), label_width, width - note_width, kind, unit)
    foot = TALL + ROW * max(len(rows) - 1, 0) + 4
    parts = [
        part
        for value in scale.ticks(6)
        for part in (
            element("path", d=f"M{scale(value):.1f} 4V{foot}", class_="grid"),
            label(scale(value), foot + 14, tick_text(value), anchor="middle"),
        )
    ]
    parts += [_row(row, TALL + ROW * index, scale, width, int(label_width / 7.2)) for index, row in enumerate(rows)]
    if x:
        parts.append(label(scale.end, foot + 28, x, anchor="end", class_="name"))
    return drawing(width, foot + 34, parts, title=title, description=description, class_="ridges")


def _row(row: Ridge, base: float, scale: Scale, width: float, longest: int) -> str:
    """Draw one density as steps from its base line."""
    inner, (below, above) = _split(row)
    bins = [
        (scale(low), scale(high), count)
        for low, high, count in zip(row.edges, row.edges[1:], inner, strict=False)
        if scale.has(low) and scale.has(high) and scale(high) > scale(low)
    ]
    tops = [count / (end - start) for start, end, count in bins]
    tallest = max(tops, default=0.0) or 1.0
    steps = [(end, base - (TALL - 6) * top / tallest) for (_, end, _), top in zip(bins, tops, strict=True)]
    outline = steps_data(bins[0][0] if bins else scale.start, base, steps)
    total = sum(row.counts) or 1.0
    beyond = [
        label(place, base - 3, f"{sign}{share:.1%}", anchor=anchor, class_="figure")
        for place, anchor, sign, share in (
            (scale.start + 2, "start", "◀ ", below / total),
            (scale.end - 2, "end", "▶ ", above / total),
        )
        if share >= 5e-4
    ]
    hint = element("title", escape(f"{row.label}: {row.note}" if row.note else row.label))
    area = element("path", d=outline, class_=f"ridge {hue_class(row.hue)}")
    return element(
        "g",
        hint,
        area,
        *beyond,
        label(0, base - 3, row.label, class_="strong", longest=longest),
        label(width, base - 3, row.note, anchor="end"),
    )


def _split(row: Ridge) -> tuple[Sequence[float], tuple[float, float]]:
    """Return the counts inside the bins, and those below and above them."""
    if len(row.counts) == len(row.edges) + 1:
        return row.counts[1:-1], (row.counts[0], row.counts[-1])
    return row.counts, (0.0, 0.0)
