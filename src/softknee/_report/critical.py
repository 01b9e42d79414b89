"""Critical-difference diagrams: average ranks on one axis, bars over those that are not told apart (Demsar 2006)."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import Scale, Svg, drawing, element, label, shorten, tick_text, ticks
from softknee._report.table import listed, number

if TYPE_CHECKING:
    from collections.abc import Sequence

RULER, AXIS, BARS = 22.0, 58.0, 68.0
ROW, LEVEL, THICK = 18.0, 8.0, 4.0
# Room for a letter of a label and for a tick, in pixels.
LETTER, TICK = 8.3, 40.0
# Bars reach this far beyond their ends, leaders this far beyond the axis.
BEYOND = 4.0


@dataclass(frozen=True)
class Ranked:
    """What is ranked.

    Attributes:
        label: Names it.
        rank: Average rank, 1 is best.
    """

    label: str
    rank: float


def critical_diagram(
    ranked: Sequence[Ranked],
    groups: Sequence[Sequence[int]],
    *,
    critical: float,
    title: str,
    description: str,
    width: float = 840.0,
    label_width: float = 230.0,
) -> Svg:
    """Draw average ranks on an axis, best at the left, with their names at both sides and bars over groups.

    Args:
        ranked: What is ranked, in any order.
        groups: Indices of those that are not told apart; each group becomes a bar from its best to its worst rank.
        critical: Difference from which on two are told apart; drawn to scale above the axis.
        title: Of the figure.
        description: What it shows, in a sentence.
        width: In pixels.
        label_width: Room for the labels at either side.

    Returns:
        The figure; its height grows with the labels and the bars.
    """
    x = Scale(1.0, float(max(len(ranked), 2)), label_width, width - label_width)
    spans = sorted(_span(ranked, group) for group in groups)
    levels = _levels([(x(low), x(high)) for low, high, _ in spans])
    top = BARS + LEVEL * (max(levels, default=-1) + 1) + ROW
    order = sorted(ranked, key=lambda item: item.rank)
    left, right = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    room = int((label_width - 2 * BEYOND) / LETTER) - 7
    # The outermost come first at both sides, so that no leader crosses another.
    leaders = [
        _leader(item, x, top + ROW * row, side, room)
        for side, items in ((-1, left), (1, right[::-1]))
        for row, item in enumerate(items)
    ]
    bars = [
        _bar(x(low), x(high), BARS + LEVEL * level, names)
        for (low, high, names), level in zip(spans, levels, strict=True)
    ]
    parts = [*_ruler(x, critical), *_axis(x), *leaders, *bars]
    return drawing(width, top + ROW * len(left), parts, title=title, description=description, class_="critical")


def _span(ranked: Sequence[Ranked], group: Sequence[int]) -> tuple[float, float, str]:
    members = sorted((ranked[index] for index in group), key=lambda item: item.rank)
    return members[0].rank, members[-1].rank, listed([item.label for item in members])


def _levels(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return for each bar, ordered by its start, the first level on which it meets no earlier one."""
    levels: list[int] = []
    ends: list[float] = []
    for start, end in spans:
        level = next((place for place, last in enumerate(ends) if last + 4 * BEYOND < start), len(ends))
        ends[level : level + 1] = [end]
        levels.append(level)
    return levels


def _ruler(x: Scale, critical: float) -> list[str]:
    end = x.edge(1 + critical)
    over = "" if x.holds(1 + critical) else ", more than the axis is long"
    return [
        label(x.start, RULER - 9, f"critical difference {number(critical)}{over}", longest=60),
        element("path", d=f"M{x.start:.1f} {RULER - 4:.1f}v8m0 -4H{end:.1f}m0 -4v8", class_="axis"),
    ]


def _axis(x: Scale) -> list[str]:
    about = max(int((x.end - x.start) / TICK), 1)
    whole = sorted({x.low, *(value for value in ticks(x.low, x.high, about=about) if value == int(value)), x.high})
    # A round number right beside an end would run into it.
    kept = [
        value for value in whole if value in {x.low, x.high} or min(x(value) - x.start, x.end - x(value)) >= TICK / 2
    ]
    line = element("path", d=f"M{x.start:.1f} {AXIS:.1f}H{x.end:.1f}", class_="axis")
    numbers = [
        part
        for value in kept
        for part in (
            element("path", d=f"M{x(value):.1f} {AXIS - 5:.1f}V{AXIS:.1f}", class_="axis"),
            label(x(value), AXIS - 9, tick_text(value), anchor="middle"),
        )
    ]
    return [line, *numbers, label(x.end + 12, AXIS + 4, "average rank", class_="name")]


def _leader(item: Ranked, x: Scale, y: float, side: int, room: int) -> str:
    place, edge = x(item.rank), (x.start if side < 0 else x.end) + side * BEYOND
    return element(
        "g",
        element("title", escape(f"{item.label}: average rank {number(item.rank)}")),
        element("path", d=f"M{place:.1f} {AXIS:.1f}V{y:.1f}H{edge:.1f}", class_="axis"),
        element("circle", cx=place, cy=AXIS, r=2.6, class_="dots hue-0"),
        label(
            edge + side * BEYOND,
            y + 4,
            f"{shorten(item.label, room)}  {number(item.rank)}",
            class_="strong",
            anchor="end" if side < 0 else "start",
        ),
    )


def _bar(start: float, end: float, y: float, names: str) -> str:
    hint = element("title", escape(f"not told apart: {names}"))
    place, long = start - BEYOND, end - start + 2 * BEYOND
    return element("rect", hint, x=place, y=y, width=long, height=THICK, rx=2, class_="segment hue-0")
