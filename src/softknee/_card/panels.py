"""Charts of one function: its value, and its first and second derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._report.lines import Axes, Band, Series, line_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.curves import Curves
    from softknee._report.svg import Svg

SIZE = (460.0, 304.0)


def value_panel(
    curves: Curves,
    name: str,
    *,
    band: Band | None = None,
    kinks: Sequence[float] = (),
    size: tuple[float, float] = SIZE,
) -> Svg:
    """Draw a function.

    Args:
        curves: Its curves.
        name: Of the activation.
        band: Where it strays in training.
        kinks: Places to mark with rings.
        size: Width and height in pixels.

    Returns:
        The panel.
    """
    series = [Series("value", curves.x, curves.value)]
    if curves.backward is not None:
        series.insert(0, Series("what is differentiated", curves.x, curves.backward, hue=1, dashed=True))
    low, high = curves.values
    if band is not None:
        low, high = min([low, *band.low]), max([high, *band.high])
    shown = [place for place in kinks if abs(place) <= curves.reach]
    if shown:
        series.append(Series("kinks", shown, [_at(curves, place) for place in shown], hue=1, weight="ring"))
    return line_chart(
        series,
        title=f"{name}: value",
        description=f"The function from {-curves.reach:g} to {curves.reach:g}.",
        axes=Axes(x="x", y=(low, high), zero=True),
        bands=[band] if band is not None else [],
        size=size,
    )


def slope_panel(curves: Curves, name: str, *, size: tuple[float, float] = SIZE) -> Svg:
    """Draw both derivatives of a function."""
    return line_chart(
        [
            Series("second derivative", curves.x, curves.bend, hue=2),
            Series("derivative", curves.x, curves.slope, hue=1),
        ],
        title=f"{name}: first and second derivative",
        description=f"Both derivatives from {-curves.reach:g} to {curves.reach:g}.",
        axes=Axes(x="x", y=curves.slopes, zero=True),
        size=size,
    )


def _at(curves: Curves, place: float) -> float | None:
    """Return the value at the point next to `place` that has one."""
    near = min(
        (index for index, value in enumerate(curves.value) if value is not None),
        key=lambda index: abs(curves.x[index] - place),
        default=None,
    )
    return None if near is None else curves.value[near]
