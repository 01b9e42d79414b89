"""Figures for papers, by matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._card.card_figures import curves
from softknee._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.card import Card


def plot(card: Card, ax: Any = None) -> Any:
    """Draw value, slope and second derivative of an activation.

    Args:
        card: Of the activation.
        ax: A matplotlib `Axes` to draw into; those of a new figure by default.

    Returns:
        The axes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    if ax is None:
        # A figure of its own, which pyplot does not keep alive.
        ax = require("matplotlib.figure", extra="plot").Figure(layout="constrained").subplots()
    drawn = curves(card)
    for line, label, style in ((drawn.value, "φ", "-"), (drawn.slope, "φ′", "--"), (drawn.bend, "φ″", ":")):
        ax.plot(drawn.x, _gapped(line), style, label=label)
    # What grows is cut off where the pages cut it.
    low, high = min(drawn.values[0], drawn.slopes[0]), max(drawn.values[1], drawn.slopes[1])
    ax.set(title=card.name, xlabel="x", xlim=(-drawn.reach, drawn.reach), ylim=(low, high))
    ax.legend()
    return ax


def _gapped(line: Sequence[float | None]) -> list[float]:
    return [math.nan if y is None else y for y in line]
