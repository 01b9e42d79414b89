"""Line charts: one small panel of series over a common axis, meant to stand in a gallery of its like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from softknee._report.svg import (
    Scale,
    Svg,
    drawing,
    element,
    hue_class,
    label,
    padded,
    path_data,
    tick_text,
    ticks,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Weight = Literal["main", "thin", "muted", "dots"]

LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 32.0


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        label: Names it in its tooltip.
        x: Positions.
        y: Values, same length; gaps at None or values that are not finite.
        hue: Index of its colour and dash.
        weight: `"main"` for means, `"thin"` for single seeds, `"muted"` for a background, `"dots"` for points.
        dashed: Whether it is dashed whatever its hue.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    hue: int = 0
    weight: Weight = "main"
    dashed: bool = False


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
        y: Range of the vertical axis; None takes what the series need. Values outside lie on the edge.
        x_ticks: Positions and texts of the horizontal ticks; None chooses round numbers.
        zero: Whether to draw the lines x = 0 and y = 0.
    """

    x: str = ""
    y: tuple[float, float] | None = None
    x_ticks: tuple[tuple[float, str], ...] | None = None
    zero: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    axes: Axes,
    bands: Sequence[Band] = (),
    size: tuple[float, float] = (250.0, 165.0),
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
    x = Scale(*padded(xs, share=0.0), LEFT, width - RIGHT)
    y = Scale(*(axes.y or _value_range(series, bands)), height - BOTTOM, TOP)
    order = {"muted": 0, "thin": 1, "main": 2, "dots": 3}
    parts = [
        *_frame(x, y, axes),
        *(_band(band, x, y) for band in bands),
        *(_line(item, x, y) for item in sorted(series, key=lambda item: order[item.weight])),
    ]
    return drawing(width, height, parts, title=title, description=description, class_="lines")


def spark(x: Sequence[float], y: Sequence[float], *, title: str) -> Svg:
    """Draw one curve with its axes in the size of a word, equal units on both axes.

    Args:
        x: Positions, ascending.
        y: Values, same length.
        title: Of the figure.

    Returns:
        The figure.
    """
    width, height = 48.0, 28.0
    across = Scale(-3.0, 3.0, 1.0, width - 1.0)
    up = Scale(-1.25, 2.25, height - 1.0, 1.0)
    inside = [(across(a), up(b)) if across.holds(a) and up.holds(b) else None for a, b in zip(x, y, strict=True)]
    parts = (
        element("path", d=f"M1 {up(0)}H{width - 1}M{across(0)} 1V{height - 1}", class_="zero"),
        element("path", d=path_data(inside), class_="line main hue-0"),
    )
    return drawing(width, height, parts, title=title, description="The function from -3 to 3.", class_="spark")


def _value_range(series: Sequence[Series], bands: Sequence[Band]) -> tuple[float, float]:
    values = [value for item in series for value in item.y if value is not None]
    return padded([*values, *(value for band in bands for value in (*band.low, *band.high))])


def _frame(x: Scale, y: Scale, axes: Axes) -> list[str]:
    """Draw horizontal grid lines with their numbers, and the numbers and title of the horizontal axis."""
    parts = []
    for value in ticks(y.low, y.high):
        parts += [
            element("path", d=f"M{x.start} {y(value):.1f}H{x.end}", class_="grid"),
            label(x.start - 6, y(value) + 3.5, tick_text(value), anchor="end"),
        ]
    below = y.start + 14
    shown = axes.x_ticks if axes.x_ticks is not None else [(v, tick_text(v)) for v in ticks(x.low, x.high)]
    parts += [label(x(position), below, text, anchor="middle") for position, text in shown]
    parts.append(element("path", d=f"M{x.start} {y.start}H{x.end}", class_="axis"))
    if axes.zero and x.holds(0):
        parts.append(element("path", d=f"M{x(0):.1f} {y.start}V{y.end}", class_="zero"))
    if axes.zero and y.holds(0):
        parts.append(element("path", d=f"M{x.start} {y(0):.1f}H{x.end}", class_="zero"))
    if axes.x:
        parts.append(label(x.end, below + 13, axes.x, anchor="end", class_="name"))
    return parts


def _line(item: Series, x: Scale, y: Scale) -> str:
    points = [
        None if value is None or not math.isfinite(value) else (x(position), y(value))
        for position, value in zip(item.x, item.y, strict=True)
    ]
    hint = element("title", escape(item.label))
    classes = f"{item.weight} {hue_class(item.hue)}" + (" dashed" if item.dashed else "")
    if item.weight == "dots":
        return element(
            "g",
            hint,
            *(element("circle", cx=point[0], cy=point[1], r=3) for point in points if point is not None),
            class_=classes,
        )
    return element("path", hint, d=path_data(points), class_=f"line {classes}")


def _band(band: Band, x: Scale, y: Scale) -> str:
    there = [(x(position), y(value)) for position, value in zip(band.x, band.high, strict=True)]
    back = [(x(position), y(value)) for position, value in zip(band.x, band.low, strict=True)]
    outline = path_data([*there, *reversed(back)]) + "Z"
    return element("path", element("title", escape(band.label)), d=outline, class_=f"band {hue_class(band.hue)}")
