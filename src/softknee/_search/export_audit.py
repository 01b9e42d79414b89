"""How a function behaves far out and in few bits: where its numbers end, how steep it is, what it approaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softknee._card.precision import DTYPES

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._card.card import Card
    from softknee._card.function import Function

FAR = 1e4
# Of float32, the numbers that bfloat16 has too, and an even grid where functions turn.
NEAR, POINTS = 20.0, 20_001


def audited(card: Card) -> dict[str, Any]:
    """Return how a function behaves on [-1e4, 1e4].

    Args:
        card: Of the function.

    Returns:
        `formats`: for each dtype whether value and slope are finite everywhere, the input nearest 0 where they are not,
        the largest value and slope, the largest error against float64 (relative where values are large), and beyond
        which inputs the gradient is exactly 0. `asymptotes`, `lipschitz` and `lipschitz_at`: in float64.
    """
    left, right = card.asymptotes
    return {
        "reach": FAR,
        "formats": [_in_format(card, dtype) for dtype in DTYPES],
        "asymptotes": {"left": left, "right": right},
        "lipschitz": card.lipschitz,
        "lipschitz_at": card.lipschitz_at,
    }


def _in_format(card: Card, dtype: torch.dtype) -> dict[str, Any]:
    name = str(dtype).removeprefix("torch.")
    x = _inputs(dtype)
    value, slope = (one.double() for one in _derivatives(card.function, x))
    finite = value.isfinite() & slope.isfinite()
    bad = x[~finite].double()
    exact = card.function(x.double())[:, 0]
    error = torch.where(finite, (value - exact).abs() / (1 + exact.abs()), 0.0)
    dead = card.thresholds[name]
    return {
        "format": name,
        "inputs": len(x),
        "finite": not len(bad),
        "first_not_finite": bad[bad.abs().argmin()].item() if len(bad) else None,
        "largest": torch.where(finite, value.abs(), 0.0).max().item(),
        "steepest": torch.where(finite, slope.abs(), 0.0).max().item(),
        "error": error.max().item(),
        "dead_low": dead.low,
        "dead_high": dead.high,
    }


def _derivatives(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = function.derivatives(x, 1)
    return value[:, 0], slope[:, 0]


def _inputs(dtype: torch.dtype) -> Tensor:
    """Return all numbers of a half-precision dtype in reach; of float32 those of bfloat16 and an even grid."""
    half = torch.bfloat16 if dtype == torch.float32 else dtype
    positive = torch.arange(0x7FFF, dtype=torch.int16).view(half).to(dtype)
    positive = positive[positive <= FAR]
    if dtype != torch.float32:
        return torch.cat([-positive.flip(0), positive])
    return torch.cat([-positive.flip(0), positive, torch.linspace(-NEAR, NEAR, POINTS)])
