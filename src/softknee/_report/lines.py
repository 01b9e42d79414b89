"""Line charts: one small panel of series over a common axis, meant to stand in a gallery of its like."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from softknee._report.svg import (
    Kind,
    Scale,
    Svg,
    drawing,
    element,
    hue_class,
    label,
    padded,
    padded_log,
    path_data,
    simplified,
    tick_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Weight = Literal["main", "thin", "dots", "ring", "cross"]

DRAWING_ORDER: tuple[Weight, ...] = ("thin", "main", "dots", "cross", "ring")
# Paths of the markers, from their centre.
MARKERS = {
    "dots": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0Z",
    "ring": "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0Z",
    "cross": "m-4 -4l8 8m0 -8l-8 8",
}

LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 32.0
# Width of a character of the numbers, in pixels.
LETTER = 6.6
# Wider panels take two columns of a gallery.
COLUMN = 320.0
# How far beyond the frame marks and strokes may reach, in pixels.
OVERHANG = 8.0


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        label: Names it in its tooltip.
        x: Positions.
        y: Values, same length; gaps at None or values that are not finite.
        hue: Index of its colour and dash.
        weight: `"main"` for means, `"thin"` for single seeds; `"dots"`, `"ring"` and `"cross"` mark points.
        dashed: Whether it is dashed whatever its hue.
        texts: Stand beside its points, one each, empty for none.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    hue: int = 0
    weight: Weight = "main"
    dashed: bool = False
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Band:
    """A shaded area between two lines.

    Attributes:
        label: Names it in its tooltip.
        x: Positions.
        low: Lower line.
        high: Upper line.
        hue: Index of its colour.
    """

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    hue: int = 0


@dataclass(frozen=True)
class Axes:
    """What a panel's axes say.

    Attributes:
        x: Title of the horizontal axis.
        y: Range of the vertical axis; None takes what the series need. Lines are cut off outside.
        x_ticks: Positions and texts of the horizontal ticks; None chooses round numbers.
        whole: Whether only whole numbers are chosen.
        zero: Whether to draw the lines x = 0 and y = 0.
        x_kind: Of the horizontal axis; what has no place on a logarithmic one, 0 or negative, leaves a gap.
        y_kind: Of the vertical axis.
        x_unit: Where a horizontal symlog turns from linear to logarithmic.
        y_name: Title of the vertical axis.
    """

    x: str = ""
    y: tuple[float, float] | None = None
    x_ticks: tuple[tuple[float, str], ...] | None = None
    whole: bool = False
    zero: bool = False
    x_kind: Kind = "linear"
    y_kind: Kind = "linear"
    x_unit: float = 1.0
    y_name: str = ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    axes: Axes,
    bands: Sequence[Band] = (),
    size: tuple[float, float] = (238.0, 158.0),
) -> Svg:
    """Draw series in one panel, thin ones first.

    Args:
        series: The lines.
        title: Of the figure.
        description: What it shows, in a sentence.
        axes: What the axes say.
        bands: Shaded areas under the lines.
        size: Width and height in pixels.

    Returns:
        The figure.
    """
    width, height = size
    xs = [value for positions in (*(item.x for item in series), *(band.x for band in bands)) for value in positions]
    reach = padded_log(xs, share=0.0, least=1e-3) if axes.x_kind == "log" else padded(xs, share=0.0)
    x = Scale(*reach, LEFT, width - RIGHT, axes.x_kind, axes.x_unit)
    top = TOP + (14 if axes.y_name else 0)
    y = Scale(*(axes.y or _value_range(series, bands, axes.y_kind)), height - BOTTOM, top, axes.y_kind)
    ordered = sorted(series, key=lambda item: DRAWING_ORDER.index(item.weight))
    inside = [*(_band(band, x, y) for band in bands), *(_line(item, x, y) for item in ordered)]
    parts = [*_frame(x, y, axes), _window(inside, x, y)]
    class_ = "lines large" if width > COLUMN else "lines"
    return drawing(width, height, parts, title=title, description=description, class_=class_)


def spark(x: Sequence[float], y: Sequence[float | None], *, title: str) -> Svg:
    """Draw one curve with its axes in the size of a word, equal units on both axes.

    Args:
        x: Positions, ascending.
        y: Values, same length; gaps at None.
        title: Of the figure.

    Returns:
        The figure.
    """
    width, height = 48.0, 28.0
    across = Scale(-3.0, 3.0, 1.0, width - 1.0)
    up = Scale(-1.25, 2.25, height - 1.0, 1.0)
    inside = [
        (across(a), up(b)) if b is not None and across.holds(a) and up.holds(b) else None
        for a, b in zip(x, y, strict=True)
    ]
    parts = (
        element("path", d=f"M1 {up(0):.1f}H{width - 1:.0f}M{across(0):.1f} 1V{height - 1:.0f}", class_="zero"),
        element("path", d=path_data(inside), class_="line main hue-0"),
    )
    return drawing(width, height, parts, title=title, description="The function from -3 to 3.", class_="spark")


def _value_range(series: Sequence[Series], bands: Sequence[Band], kind: Kind) -> tuple[float, float]:
    values = [value for item in series for value in item.y if value is not None]
    air = padded_log if kind == "log" else padded
    return air([*values, *(value for band in bands for value in (*band.low, *band.high))])


def _frame(x: Scale, y: Scale, axes: Axes) -> list[str]:
    """Draw horizontal grid lines with their numbers, and the numbers and title of the horizontal axis."""
    parts = []
    for value in y.ticks():
        parts += [
            element("path", d=f"M{x.start} {y(value):.1f}H{x.end}", class_="grid"),
            label(x.start - 6, y(value) + 3.5, tick_text(value), anchor="end"),
        ]
    below = y.start + 14
    chosen = [value for value in x.ticks() if not axes.whole or value == round(value)]
    shown = axes.x_ticks if axes.x_ticks is not None else [(value, tick_text(value)) for value in chosen]
    # The last number must not leave the drawing.
    middles = [min(x(position), x.end + RIGHT - LETTER * len(text) / 2) for position, text in shown]
    parts += [label(place, below, text, anchor="middle") for place, (_, text) in zip(middles, shown, strict=True)]
    parts.append(element("path", d=f"M{x.start} {y.start}H{x.end}", class_="axis"))
    if axes.zero and x.holds(0):
        parts.append(element("path", d=f"M{x(0):.1f} {y.start}V{y.end}", class_="zero"))
    if axes.zero and y.holds(0):
        parts.append(element("path", d=f"M{x.start} {y(0):.1f}H{x.end}", class_="zero"))
    if axes.x:
        parts.append(label(x.end, below + 13, axes.x, anchor="end", class_="name"))
    if axes.y_name:
        parts.append(label(x.start, 10, axes.y_name, class_="name"))
    return parts


def _window(parts: Sequence[str], x: Scale, y: Scale) -> str:
    """Cut the parts off outside the frame: an inner drawing hides what leaves it, without ids that could collide."""
    left, top = x.start - OVERHANG, y.end - OVERHANG
    width, height = x.end - x.start + 2 * OVERHANG, y.start - y.end + OVERHANG + 1
    view = f"{left:.1f} {top:.1f} {width:.1f} {height:.1f}"
    return element("svg", *parts, x=left, y=top, width=width, height=height, viewBox=view)


def _line(item: Series, x: Scale, y: Scale) -> str:
    points = [
        (x(position), y(value)) if value is not None and x.has(position) and y.has(value) else None
        for position, value in zip(item.x, item.y, strict=True)
    ]
    hint = element("title", escape(item.label))
    classes = f"{item.weight} {hue_class(item.hue)}" + (" dashed" if item.dashed else "")
    marker = MARKERS.get(item.weight)
    if marker is None:
        return element("path", hint, d=path_data(simplified(points)), class_=f"line {classes}")
    marks = "".join(f"M{point[0]:.1f} {point[1]:.1f}{marker}" for point in points if point is not None)
    texts = [
        label(point[0] + 8, point[1] + 3.5, text)
        for point, text in zip(points, item.texts, strict=False)
        if point is not None and text
    ]
    return element("path", hint, d=marks, class_=classes) + "".join(texts)


def _band(band: Band, x: Scale, y: Scale) -> str:
    there = [(x(position), y(value)) for position, value in zip(band.x, band.high, strict=True)]
    back = [(x(position), y(value)) for position, value in zip(band.x, band.low, strict=True)]
    outline = path_data([*there, *reversed(back)]) + "Z"
    return element("path", element("title", escape(band.label)), d=outline, class_=f"band {hue_class(band.hue)}")
