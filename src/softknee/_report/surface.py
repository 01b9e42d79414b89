"""Surfaces over a rectangle, drawn by the page's own script: to turn by hand, or flat as a map of colours."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from softknee._report.colours import Palette, parts
from softknee._report.svg import tick_text

if TYPE_CHECKING:
    from collections.abc import Sequence

# Heights are sent as whole numbers up to this.
FINEST = 999
WITHOUT_SCRIPT = "It takes JavaScript to be drawn."


@dataclass(frozen=True)
class Surface:
    """A surface z over a rectangle; a figure of a page may hold one as its picture.

    Attributes:
        title: Names it.
        description: What it shows, in a sentence, for those who cannot see it.
        values: Of `kind` `"sum"` and `"norm"` one a position, the same along both axes; of `"grid"` one a point, row by
            row from the lowest y. Gaps at None or values that are not finite.
        kind: `"sum"`: z = f(x) + f(y); `"norm"`: z = sqrt(f(x)^2 + f(y)^2); `"grid"`: any z.
        x: Range of the horizontal axis: from the first value to the last; where `flat`, over the cells around them.
        y: Range of the other axis; of `"sum"` and `"norm"` the same.
        columns: Points in a row of a grid.
        names: Of the axes.
        flat: Whether it is a map seen from above, one cell a value.
        palette: `"size"`, or `"sign"` with 0 in the middle.
    """

    title: str
    description: str
    values: Sequence[float | None]
    kind: Literal["sum", "norm", "grid"] = "sum"
    x: tuple[float, float] = (-1.0, 1.0)
    y: tuple[float, float] | None = None
    columns: int | None = None
    names: tuple[str, str] = ("x", "y")
    flat: bool = False
    palette: Palette = "size"

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest z; (0, 0) where there is none."""
        low, high = self._extremes()
        if self.kind == "sum":
            return 2 * low, 2 * high
        return (low, high) if self.kind == "grid" else (low, math.sqrt(2) * high)

    def __html__(self) -> str:
        """Return the markup: the data for the script, and a sentence for those without one."""
        low, high = map(_short, self.range)
        text = escape(f"{self.title}. {self.description} From {low} to {high}.")
        data = escape(json.dumps(self._data(), separators=(",", ":"), ensure_ascii=False))
        # The script takes the words for the label of what it draws in their place.
        return (
            f'<div class="surface" data-surface="{data}"><p class="note"><span>{text}</span> {WITHOUT_SCRIPT}</p></div>'
        )

    def _extremes(self) -> tuple[float, float]:
        """Return smallest and largest value; of a norm 0 and the largest size."""
        finite = [value for value in self.values if value is not None and math.isfinite(value)]
        if self.kind == "norm":
            return 0.0, max(map(abs, finite), default=0.0)
        return min(finite, default=0.0), max(finite, default=0.0)

    def _data(self) -> dict[str, object]:
        low, high = self._extremes()
        size = (high - low) or 1.0
        heights = [
            None
            if value is None or not math.isfinite(value)
            else round(((abs(value) if self.kind == "norm" else value) - low) / size * FINEST)
            for value in self.values
        ]
        across = self.columns if self.kind == "grid" and self.columns else len(heights)
        return {
            "k": self.kind,
            "v": heights,
            "n": across,
            "m": len(heights) // across if self.kind == "grid" and across else across,
            "x": _axis(self.names[0], self.x),
            "y": _axis(self.names[1], self.y or self.x),
            "z": [*map(_short, self.range)],
            "p": self.palette,
            "c": [round(part, 3) for part in parts(self.palette, *self.range)],
            "f": int(self.flat),
        }


def _axis(name: str, ends: tuple[float, float]) -> list[str]:
    """Return what stands along an axis, from its low to its high end."""
    return [_short(ends[0]), name, _short(ends[1])]


def _short(value: float) -> str:
    return tick_text(float(f"{value:.3g}"))
