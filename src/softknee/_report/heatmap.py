"""Confusion matrices: how often each true class was taken for each other."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from softknee._report.svg import Svg, drawing, element, label

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL = 23.0
LEFT, TOP = 74.0, 62.0
SMALLEST_SHOWN = 0.005


def heatmap(names: Sequence[str], shares: Sequence[Sequence[float]], *, title: str, description: str) -> Svg:
    """Draw a square matrix of shares; the diagonal (right answers) in one colour, the rest (errors) in another.

    Args:
        names: Of the classes, rows and columns.
        shares: `[true][predicted]`, each row summing to at most 1; shares under half a percent stay empty.
        title: Of the figure.
        description: What it shows, in a sentence.

    Returns:
        The figure, with whole percents written into the cells.
    """
    size = CELL * len(names)
    parts = [element("rect", x=LEFT, y=TOP, width=size, height=size, class_="ground")]
    for index, name in enumerate(names):
        middle = CELL * (index + 0.5)
        parts.append(label(LEFT - 6, TOP + middle + 3.5, name, anchor="end", longest=11))
        turned = f"translate({LEFT + middle + 3.5:.1f} {TOP - 6:.1f}) rotate(-60)"
        parts.append(element("g", label(0, 0, name, longest=11), transform=turned))
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            if share >= SMALLEST_SHOWN:
                parts.append(_cell(row, column, share, f"{names[row]} taken for {names[column]}: {share:.1%}"))
    return drawing(LEFT + size + 2, TOP + size + 2, parts, title=title, description=description, class_="heatmap")


def _cell(row: int, column: int, share: float, hint: str) -> str:
    x, y = LEFT + CELL * column, TOP + CELL * row
    # The square root keeps errors of a few percent visible beside diagonal shares near one.
    strength = share**0.5
    right = row == column
    square = element(
        "rect", x=x + 0.5, y=y + 0.5, width=CELL - 1, height=CELL - 1, fill_opacity=f"{strength:.2f}", rx=2
    )
    number = label(x + CELL / 2, y + CELL / 2 + 3, f"{100 * share:.0f}", anchor="middle")
    classes = ("right" if right else "wrong") + (" deep" if strength > 0.6 else "")
    return element("g", element("title", escape(hint)), square, number, class_=classes)
