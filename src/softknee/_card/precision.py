"""Where an activation's gradient is exactly 0 because numbers are too small for a dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._card.function import Function

# Steps in which float32 is searched, in numbers, and how many to either side.
CLOSER, WIDTH = (256, 1), 2**15
LARGEST = 0x7F7FFFFF
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Threshold:
    """Beyond which inputs a unit gets no gradient in a dtype.

    Attributes:
        dtype: Its name, such as `"bfloat16"`.
        low: The gradient is exactly 0 for every finite input from here down; None where it never is.
        high: The same for inputs from here up.
    """

    dtype: str
    low: float | None
    high: float | None


def thresholds(function: Function) -> dict[str, Threshold]:
    """Return the thresholds of an activation in float32, bfloat16 and float16.

    Every finite number of the half-precision dtypes is tried; of float32, first those that bfloat16 has, then ever
    closer ones around the last with a gradient. Gradients are those of autograd in that dtype, of the function as torch
    evaluates it.

    Args:
        function: The activation; of several channels, all must be without a gradient.

    Returns:
        One entry for each dtype, by name.
    """
    return {name: _threshold(function, dtype, name) for dtype in DTYPES for name in [str(dtype).removeprefix("torch.")]}


def _threshold(function: Function, dtype: torch.dtype, name: str) -> Threshold:
    positive = _numbers(dtype)
    ends = [_last(function, positive, sign) for sign in (-1, 1)]
    return Threshold(name, *ends)


def _last(function: Function, positive: Tensor, sign: int) -> float | None:
    """Return the first input, seen from 0, from which on to one side there is no gradient.

    Zero itself comes first, and numbers beyond it on the other side are not looked at: one that has no gradient there
    either has none anywhere.
    """
    x = torch.cat([positive.new_zeros(1), sign * positive])
    dead = _dead(function, x)
    first = _start(dead)
    if first is None:
        return None
    if x.dtype == torch.float32 and first > 0:
        # A gradient that is nearly rounded away comes and goes.
        for step in CLOSER:
            x = _around(x[first], step)
            first = _start(_dead(function, x)) or 0
    return x[first].item() + 0.0


def _start(dead: Tensor) -> int | None:
    """Return from where on all are true; None where the last one is not."""
    if not len(dead) or not bool(dead[-1]):
        return None
    alive = (~dead).nonzero()
    return int(alive[-1]) + 1 if len(alive) else 0


def _dead(function: Function, x: Tensor) -> Tensor:
    """Return where there is no gradient; far out, where powers overflow and it is no number, entries are left out."""
    slope = function.derivatives(x, 1)[1]
    known = (~slope.isnan().any(1)).nonzero()
    return (slope == 0).all(1)[: int(known[-1]) + 1 if len(known) else 0]


def _numbers(dtype: torch.dtype) -> Tensor:
    """Return the positive finite numbers of a dtype, ascending; of float32, those that bfloat16 has."""
    half = torch.bfloat16 if dtype == torch.float32 else dtype
    every = torch.arange(1, 2**15, dtype=torch.int32).to(torch.int16).view(half)
    return every[every.isfinite()].to(dtype)


def _around(at: Tensor, step: int) -> Tensor:
    """Return float32 numbers around one, in steps of so many, away from 0."""
    middle = int(at.view(torch.int32).item())
    sign = -(2**31) if middle < 0 else 0
    size = middle - sign
    low, high = max(size - WIDTH * step, 1), min(size + WIDTH * step, LARGEST)
    steps = torch.arange(low, high + 1, step, dtype=torch.int64) + sign
    return steps.to(torch.int32).view(torch.float32)
