"""The same flow stated once more, number by number, for checks to any number of digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def stated_flow(x: Any, velocities: Sequence[Any], low: Any, high: Any) -> Any:
    """Follow one point through the cells of the field until unit time has passed.

    Args:
        x: A number of mpmath.
        velocities: At evenly spaced knots.
        low: The first knot.
        high: The last knot.

    Returns:
        Where it arrives.
    """
    exact = x.context
    cells = len(velocities) - 1
    width = (high - low) / exact.mpf(cells)
    cell = min(max(int(exact.floor((x - low) / width)), 0), cells - 1)
    left = exact.mpf(1)
    while True:
        slope = (velocities[cell + 1] - velocities[cell]) / width
        velocity = velocities[cell] + slope * (x - low - cell * width)
        arrives = x + velocity * (left if slope == 0 else exact.expm1(slope * left) / slope)
        forward = velocity > 0
        exit_, following = (cell + 1, cell + 1) if forward else (cell, cell - 1)
        knot = low + exit_ * width
        outermost = not 0 <= following < cells
        if velocity == 0 or outermost or (arrives <= knot if forward else arrives >= knot):
            return arrives
        way = knot - x
        left -= way / velocity if slope == 0 else exact.log1p(slope * way / velocity) / slope
        x, cell = knot, following


def stated_within(x: Any, velocities: Sequence[Any], low: Any, high: Any) -> Any:
    """Return the same for a flow that stands still at both ends of an interval, and outside of it."""
    return stated_flow(x, (0, *velocities, 0), low, high) if low <= x <= high else x
