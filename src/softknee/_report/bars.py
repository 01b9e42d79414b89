"""Stacked bars: shares of a whole, one bar a row."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import Svg, drawing, element, hue_class, label

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW, THICK = 22.0, 14.0
# Width of a character, in pixels: a segment shows its percentage where that has room.
LETTER = 7.0


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        label: Names it.
        shares: Of each part, from 0 to 1; together at most 1, the rest stays empty. None: not known.
        note: Text at the right.
    """

    label: str
    shares: Sequence[float | None]
    note: str = ""


def stacked_bars(
    bars: Sequence[Bar],
    names: Sequence[str],
    *,
    title: str,
    description: str,
    hues: Sequence[int] | None = None,
    width: float = 640.0,
    label_width: float = 150.0,
    note_width: float = 90.0,
) -> Svg:
    """Draw bars of shares, one below the other; a segment that has room says its percentage.

    Args:
        bars: Top to bottom.
        names: Of the parts, in the order of the shares; a page's legend gives them with `"swatch hue-N"`.
        title: Of the figure.
        description: What it shows, in a sentence.
        hues: Of the parts; counted from 0 by default.
        width: In pixels.
        label_width: Room for the labels.
        note_width: Room for the notes.

    Returns:
        The figure.
    """
    colours = hues if hues is not None else range(len(names))
    left, room = label_width, width - label_width - note_width
    parts = []
    for index, bar in enumerate(bars):
        top = 4 + ROW * index
        hint = ", ".join(
            f"{name} {'not known' if share is None else f'{share:.1%}'}"
            for name, share in zip(names, bar.shares, strict=True)
        )
        segments, place = [], left
        for hue, share in zip(colours, bar.shares, strict=True):
            long = room * (share or 0.0)
            if long > 0:
                segments.append(_segment(place, top, long, share or 0.0, hue))
            place += long
        parts.append(
            element(
                "g",
                element("title", escape(f"{bar.label}: {hint}")),
                element("rect", x=left, y=top, width=room, height=THICK, class_="ground"),
                *segments,
                label(0, top + 11, bar.label, class_="strong", longest=int(label_width / 7.2)),
                label(width, top + 11, bar.note, anchor="end"),
            )
        )
    foot = 4 + ROW * len(bars)
    parts += [label(left + room * part, foot + 10, f"{part:.0%}", anchor="middle") for part in (0.0, 0.5, 1.0)]
    return drawing(width, foot + 16, parts, title=title, description=description, class_="bars")


def _segment(left: float, top: float, long: float, share: float, hue: int) -> str:
    # A gap of a pixel keeps neighbours apart without their colours.
    wide = max(long - 1, 0.5)
    bar = element("rect", x=left, y=top, width=wide, height=THICK, class_=f"segment {hue_class(hue)}")
    text = f"{100 * share:.0f}"
    if long < LETTER * (len(text) + 1):
        return bar
    return bar + label(left + wide / 2, top + 11, text, anchor="middle", class_="inside")
