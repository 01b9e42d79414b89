"""Uniform grids, and which entries of a vector count in the interval an element is in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def positions(count: int, spacing: float) -> tuple[float, ...]:
    """Return evenly spaced numbers around 0."""
    return tuple((k - (count - 1) / 2) * spacing for k in range(count))


def entries_of(vector: Sequence[Tensor | float], like: Tensor) -> list[Tensor]:
    """Return a vector's entries in the dtype of another tensor."""
    return [as_tensor(vector[k], like) for k in range(len(vector))]


def as_tensor(value: Tensor | float, like: Tensor) -> Tensor:
    """Return a number or tensor in the dtype of another tensor."""
    return value.to(like.dtype) if isinstance(value, Tensor) else like.new_full((), value)


def interval(place: Tensor, entries: list[Tensor], width: int, *, start: float) -> tuple[list[Tensor], Tensor]:
    """Return for each element the entries that count in its interval, and how far into the interval it is.

    One comparison at each end of an interval chooses them all, so no element gets the entries of one interval and the
    place in another, as it may in a sum of hats. An entry's gradient comes from its own intervals only, without the
    cancellation in a sum of hinges.

    Args:
        place: In units of the intervals.
        entries: The first `width` of them count in the first interval, the next but for one in the second, and so on.
        width: How many count.
        start: Where the first interval starts. It goes on to the left, as the last does to the right.

    Returns:
        The entries, in order, and the place in the interval, from 0 to 1 inside the grid.
    """
    chosen, begin = entries[:width], place.new_full((), start)
    for k in range(1, len(entries) - width + 1):
        past = place > start + k
        begin = torch.where(past, start + k, begin)
        chosen = [torch.where(past, entries[k + i], chosen[i]) for i in range(width)]
    return chosen, place - begin
