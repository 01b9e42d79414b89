"""SVG as text: escaped elements, scales and ticks. Colours and fonts come from the style sheet of the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HUES = 14
# Ticks of a logarithmic axis, at most.
DECADES = 6
# Room for its numbers, in pixels.
ROOM = 26.0

Kind = Literal["linear", "log", "symlog"]


class Svg(str):
    """A finished drawing; templates insert it as it is, everything else they escape."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself, the convention by which template engines know markup."""
        return str(self)


@dataclass(frozen=True)
class Scale:
    """A map from data to drawing coordinates.

    Attributes:
        low: Data value at `start`.
        high: Data value at `end`; differs from `low`.
        start: Coordinate of `low`, in pixels.
        end: Coordinate of `high`; may be smaller than `start`.
        kind: `"linear"`; `"log"`, of positive values; `"symlog"`, asinh(value / unit), of either sign.
        unit: Where a symlog turns from linear to logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    kind: Kind = "linear"
    unit: float = 1.0

    def __call__(self, value: float) -> float:
        """Return the coordinate of `value`; far outside it stops at ten lengths, which no browser chokes on."""
        low = self._bent(self.low)
        part = (self._bent(value) - low) / (self._bent(self.high) - low)
        return self.start + min(max(part, -10.0), 11.0) * (self.end - self.start)

    def has(self, value: float | None) -> bool:
        """Return whether `value` has a place, inside or out: it is finite, and positive on a logarithmic scale."""
        return value is not None and math.isfinite(value) and (self.kind != "log" or value > 0)

    def ticks(self, about: int = 4) -> list[float]:
        """Return round numbers inside, about `about` of them or the powers of ten."""
        if self.kind == "linear":
            return ticks(self.low, self.high, about=about)
        if self.kind == "log":
            return _decades(self.low, self.high)
        # From zero outwards, where there is room for the number.
        kept = [0.0]
        for power in _decades(self.unit, max(self.high, -self.low, self.unit), DECADES // 2):
            if abs(self(power) - self(kept[-1])) >= ROOM:
                kept.append(power)
        around = [*(-value for value in reversed(kept[1:])), *kept]
        return [value for value in around if self.holds(value)]

    def _bent(self, value: float) -> float:
        if self.kind == "linear":
            return value
        if self.kind == "log":
            return math.log10(value) if value > 0 else -math.inf
        return math.asinh(value / self.unit)

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


def simplified(points: Sequence[tuple[float, float] | None], *, slack: float = 0.1) -> list[tuple[float, float] | None]:
    """Leave out points that a line through their neighbours passes within `slack` pixels; the gaps at None stay."""
    kept: list[tuple[float, float] | None] = []
    run: list[tuple[float, float]] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
            continue
        kept += [run[index] for index in _bends(run, slack)]
        kept.append(None)
        run = []
    return kept[:-1]


def steps_data(start: float, base: float, steps: Sequence[tuple[float, float]]) -> str:
    """Return a path's `d` of the closed outline of bars side by side, from a base line.

    Args:
        start: Left edge of the first bar.
        base: Height of the base line.
        steps: Right edge and top of each bar.

    Returns:
        The path, closed along the base line.
    """
    bars = "".join(f"V{_plain(float(top))}H{_plain(float(right))}" for right, top in steps)
    return f"M{_plain(float(start))} {_plain(float(base))}{bars}V{_plain(float(base))}Z"


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


def padded_log(values: Iterable[float], *, share: float = 0.06, least: float = 0.05) -> tuple[float, float]:
    """Return a range that holds the positive `values` with some air in logarithms; (0.1, 1) if there are none."""
    logs = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    low, high = padded(logs, share=share, least=least) if logs else (-1.0, 0.0)
    return 10.0**low, 10.0**high


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
    mantissa, _, exponent = f"{value:g}".partition("e")
    return (mantissa + (f"e{int(exponent)}" if exponent else "")).replace("-", "−")


def shorten(text: str, longest: int) -> str:
    """Cut `text` in the middle to at most `longest` characters."""
    if len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _bends(run: Sequence[tuple[float, float]], slack: float) -> list[int]:
    """Return the places of the points that a line must keep (Ramer 1972; Douglas and Peucker 1973)."""
    kept = {0, len(run) - 1} if run else set()
    open_ = [(0, len(run) - 1)]
    while open_:
        first, last = open_.pop()
        (a, b), (c, d) = (run[first], run[last]) if last - first > 1 else ((0.0, 0.0), (0.0, 0.0))
        long = math.hypot(c - a, d - b)
        far, at = slack, 0
        for index in range(first + 1, last):
            x, y = run[index]
            apart = abs((c - a) * (b - y) - (a - x) * (d - b)) / long if long else math.hypot(x - a, y - b)
            if apart > far:
                far, at = apart, index
        if at:
            kept.add(at)
            open_ += [(first, at), (at, last)]
    return sorted(kept)


def _decades(low: float, high: float, most: int = DECADES) -> list[float]:
    """Return powers of ten inside `[low, high]`, both positive, or their halves and fifths where those are too few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 1:
        step = math.ceil((last - first + 1) / most)
        return [10.0**power for power in range(first, last + 1, step)]
    finer = [factor * 10.0**power for power in range(first - 1, last + 2) for factor in (1, 2, 5)]
    return [value for value in finer if low <= value <= high]


def _plain(value: object) -> str:
    """Return a number with at most one decimal, half a pixel is enough; anything else as text."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
