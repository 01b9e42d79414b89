"""Drawings of the atlas: thumbnails and bars."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import Scale, Svg, drawing, element, label, path_data, tick_text, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.curves import Curves

THUMB = (132.0, 84.0)
# Thumbnails of ordinary functions share these axes, so that they can be compared.
USUAL_X, USUAL_Y = (-4.5, 4.5), (-2.0, 4.0)
THUMB_POINTS = 72
BAR, GAP = 30.0, 9.0
MANY = 16
BARS_HEIGHT = 190.0


def thumbnail(curves: Curves, name: str, *, usual: float = 5.0) -> Svg:
    """Draw a function small; ordinary ones on common axes."""
    width, height = THUMB
    common = curves.reach == usual
    x = Scale(*(USUAL_X if common else (-curves.reach, curves.reach)), 1.0, width - 1.0)
    y = Scale(*(USUAL_Y if common else curves.values), height - 2.0, 2.0)
    kept = _thinned(curves.x, curves.value)
    points = [None if b is None else (x(a), y(b)) for a, b in kept if b is None or x.holds(a)]
    axes = f"M1 {y(0):.1f}H{width - 1:.0f}" * y.holds(0) + f"M{x(0):.1f} 1V{height - 1:.0f}"
    window = element(
        "svg",
        element("path", d=path_data(points), class_="line main hue-0"),
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
    )
    parts = (element("path", d=axes, class_="zero"), window)
    return drawing(width, height, parts, title=name, description="Its curve.", class_="thumb")


def _thinned(x: Sequence[float], y: Sequence[float | None]) -> list[tuple[float, float | None]]:
    """Return every so many points, and all those beside gaps and kinks."""
    every = max(1, len(x) // THUMB_POINTS)
    kept = []
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        near = any(y[j] is None or abs(x[j] - a) < 1e-5 * x[-1] for j in (i - 1, i + 1) if 0 <= j < len(x))
        if b is None or near or i % every == 0 or i == len(x) - 1:
            kept.append((a, b))
    return kept


def bars(values: Sequence[float], *, title: str, hue: int, groups: int = 0, span: tuple[float, float]) -> Svg:
    """Draw numbers as bars side by side.

    Args:
        values: The numbers.
        title: Of the figure.
        hue: Index of its colour.
        groups: Bars of a group, after which there is more room; 0 for none.
        span: Range of the axis.

    Returns:
        The figure.
    """
    left, top = 40.0, 8.0
    bar, gap = (BAR, GAP) if len(values) <= MANY else (BAR / 3, GAP / 4)
    extra = gap * 1.6
    place = left + gap
    y = Scale(*span, top + BARS_HEIGHT, top)
    parts, blocks = [], []
    for i, value in enumerate(values):
        place += extra if groups and i and i % groups == 0 else 0.0
        edge = sorted((y(0), y(value)))
        hint = element("title", escape(f"{value:.4g}"))
        height = max(edge[1] - edge[0], 1.0)
        blocks.append(
            element(
                "rect", hint, x=place, y=f"{edge[0]:.1f}", width=bar, height=f"{height:.1f}", class_=f"bar hue-{hue}"
            )
        )
        place += bar + gap
    for value in ticks(*span):
        parts += [
            element("path", d=f"M{left} {y(value):.1f}H{place:.1f}", class_="grid"),
            label(left - 6, y(value) + 3.5, tick_text(value), anchor="end"),
        ]
    parts += [element("path", d=f"M{left} {y(0):.1f}H{place:.1f}", class_="axis"), *blocks]
    listed = ", ".join(f"{value:.3g}" for value in values)
    return drawing(place, BARS_HEIGHT + 2 * top, parts, title=title, description=listed, class_="bars")


def bar_thumbnail(values: Sequence[float], name: str) -> Svg:
    """Draw numbers as small bars."""
    width, height = THUMB
    shown = values[:24]
    low, high = min([0.0, *shown]), max([0.0, *shown])
    y = Scale(low, high if high > low else 1.0, height - 8.0, 8.0)
    step = (width - 16) / len(shown)
    parts = [element("path", d=f"M8 {y(0):.1f}H{width - 8:.0f}", class_="zero")]
    for i, value in enumerate(shown):
        edge = sorted((y(0), y(value)))
        box = {"x": f"{8 + step * (i + 0.14):.1f}", "width": f"{step * 0.72:.1f}"}
        parts.append(
            element("rect", y=f"{edge[0]:.1f}", height=f"{max(edge[1] - edge[0], 1.0):.1f}", class_="bar hue-0", **box)
        )
    return drawing(width, height, parts, title=name, description="Its values at an example.", class_="thumb")
