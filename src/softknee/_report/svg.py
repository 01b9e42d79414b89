"""SVG as text: escaped elements, scales and ticks. Colours and fonts come from the style sheet of the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HUES = 14


class Svg(str):
    """A finished drawing; templates insert it as it is, everything else they escape."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself, the convention by which template engines know markup."""
        return str(self)


@dataclass(frozen=True)
class Scale:
    """A linear map from data to drawing coordinates.

    Attributes:
        low: Data value at `start`.
        high: Data value at `end`; differs from `low`.
        start: Coordinate of `low`, in pixels.
        end: Coordinate of `high`; may be smaller than `start`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of `value`; far outside it stops at ten lengths, which no browser chokes on."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + min(max(part, -10.0), 11.0) * (self.end - self.start)

    def edge(self, value: float) -> float:
        """Return the coordinate of `value`, or of the nearer end if it lies outside."""
        return self(min(max(value, self.low), self.high))

    def holds(self, value: float) -> bool:
        """Return whether `value` lies inside."""
        return self.low <= value <= self.high


def element(name: str, *children: str, **attributes: object) -> str:
    """Return an element; attribute values are escaped, children are markup already.

    Args:
        name: Tag.
        *children: Markup inside it.
        **attributes: `class_` stands for `class`, other underscores for hyphens; None leaves one out.

    Returns:
        The markup.
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    listed = "".join(f' {key}="{escape(_plain(value))}"' for key, value in pairs)
    return f"<{name}{listed}>{''.join(children)}</{name}>" if children else f"<{name}{listed}/>"


def label(x: float, y: float, content: str, *, class_: str = "", anchor: str = "start", longest: int = 40) -> str:
    """Return a text element; longer content is cut in the middle and given in full as its tooltip."""
    shown = shorten(content, longest)
    hint = () if shown == content else (element("title", escape(content)),)
    return element("text", *hint, escape(shown), x=x, y=y, class_=class_ or None, text_anchor=anchor)


def drawing(width: float, height: float, parts: Iterable[str], *, title: str, description: str, class_: str) -> Svg:
    """Wrap drawn parts into a figure with a title and a description for those who cannot see it."""
    head = element("title", escape(title)), element("desc", escape(description))
    view = f"0 0 {_plain(width)} {_plain(height)}"
    return Svg(
        element("svg", *head, *parts, viewBox=view, width=width, height=height, class_=f"chart {class_}", role="img")
    )


def hue_class(index: int) -> str:
    """Return the classes of the series `index`: one of seven colours, dashed from the eighth series on."""
    return f"hue-{index % HUES % 7}" + (" dashed" if index % HUES >= 7 else "")


def path_data(points: Sequence[tuple[float, float] | None]) -> str:
    """Return a path's `d` through the points, interrupted at every None."""
    commands, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        commands.append(f"{pen}{_plain(point[0])} {_plain(point[1])}")
        pen = "L"
    return "".join(commands)


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Return round numbers inside `[low, high]`, about `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda size: abs(size - rough))
    return [step * index for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def padded(values: Iterable[float], *, share: float = 0.06, least: float = 1e-3) -> tuple[float, float]:
    """Return a range that holds the finite `values` with some air; (0, 1) if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = max((high - low) * share, least, 1e-6 * max(abs(low), abs(high)))
    return low - air, high + air


def focus(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of values without far outliers (beyond three quartile distances): they flatten the rest."""
    ordered = sorted(values)
    if not ordered:
        return 0.0, 1.0
    first, third = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    reach = 3 * (third - first)
    kept = [value for value in ordered if first - reach <= value <= third + reach]
    return kept[0], kept[-1]


def tick_text(value: float) -> str:
    """Return a tick's number with a true minus."""
    return f"{value:g}".replace("-", "−")


def shorten(text: str, longest: int) -> str:
    """Cut `text` in the middle to at most `longest` characters."""
    if len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _plain(value: object) -> str:
    """Return a number with at most one decimal, half a pixel is enough; anything else as text."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
