"""Continuous colour scales, even to the eye: one for sizes, one for signed values."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from softknee._report.svg import element, label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Palette = Literal["size", "sign"]

# Stops at equal distances: viridis, and blue through near white to red.
PALETTES: Mapping[Palette, Sequence[str]] = MappingProxyType(
    {
        "size": ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"),
        "sign": ("2166ac", "4393c3", "92c5de", "d1e5f0", "f0eeea", "fddbc7", "f4a582", "d6604d", "b2182b"),
    }
)


def colour(palette: Palette, part: float) -> str:
    """Return the colour at `part` of a scale, from 0 to 1, as `#rrggbb`."""
    stops = PALETTES[palette]
    place = min(max(part, 0.0), 1.0) * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    mix = place - first
    channels = [
        round(int(stops[first][i : i + 2], 16) * (1 - mix) + int(stops[first + 1][i : i + 2], 16) * mix)
        for i in (0, 2, 4)
    ]
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def parts(palette: Palette, low: float, high: float) -> tuple[float, float]:
    """Return which parts of the scale the values `low` and `high` take: a signed scale has 0 in its middle."""
    if palette == "size":
        return 0.0, 1.0
    largest = max(abs(low), abs(high)) or 1.0
    return 0.5 + 0.5 * low / largest, 0.5 + 0.5 * high / largest


def colour_bar(
    x: float, top: float, bottom: float, palette: Palette, low: str, high: str, ends: Sequence[float]
) -> str:
    """Draw the key of a scale as an upright bar with the numbers at its ends.

    Args:
        x: Left edge, in pixels.
        top: Upper edge.
        bottom: Lower edge.
        palette: Which scale.
        low: Number at the foot.
        high: Number at the head.
        ends: Parts of the scale at foot and head, as `parts` returns them.

    Returns:
        The markup.
    """
    steps = 16
    tall = (bottom - top) / steps
    cells = [
        element(
            "rect",
            x=x,
            y=bottom - tall * (index + 1),
            width=10,
            height=tall + 0.5,
            fill=colour(palette, ends[0] + (ends[1] - ends[0]) * (index + 0.5) / steps),
        )
        for index in range(steps)
    ]
    return element("g", *cells, label(x + 14, top + 9, high), label(x + 14, bottom, low), class_="key")
