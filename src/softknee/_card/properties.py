"""What an activation looks like: bounds, slopes, symmetry, monotonicity, by dense evaluation in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._card.function import HUGE, function_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softknee._card.function import Function

# Evaluated densely where functions bend, and far out, where they have settled; at the ends, so have those that settle
# like 1/x.
NEAR, FAR, ENDS = 20.0, 1e4, (-1e8, 1e8)
POINTS = 40_001
# Differences below this, relatively, are rounding.
ROUNDING = 1e-9
# Values count as settled where the rest of the way is shorter, relatively.
SETTLED = 1e-2
# The slope counts as vanished where it is smaller.
VANISHED = 1e-3


@dataclass(frozen=True)
class Properties:
    """Properties as seen on [-1e4, 1e4], by evaluation and not by proof.

    Attributes:
        minimum: Smallest value, minus infinity where values still fall at the ends.
        maximum: Largest value, infinity where values still rise at the ends.
        at_zero: `f(0)`.
        monotonic: Whether it never decreases.
        odd: Whether `f(-x) = -f(x)`.
        even: Whether `f(-x) = f(x)`.
        lipschitz: Steepest slope on [-20, 20].
        left_slope: Slope at the left end.
        right_slope: Slope at the right end.
        flat: Share of standard normal inputs where the slope is below 1e-3 in size.
    """

    minimum: float
    maximum: float
    at_zero: float
    monotonic: bool
    odd: bool
    even: bool
    lipschitz: float
    left_slope: float
    right_slope: float
    flat: float

    @property
    def sentence(self) -> str:
        """The properties in words."""
        parts = [f"values in [{_number(self.minimum)}, {_number(self.maximum)}]", f"f(0) = {_number(self.at_zero)}"]
        parts += ["never decreases" if self.monotonic else "not monotonic"]
        parts += [name for name in ("odd", "even") if getattr(self, name)]
        parts += [f"steepest slope {_number(self.lipschitz)} for |x| up to {NEAR:g}"]
        parts += [f"slope {_number(self.left_slope)} at the far left and {_number(self.right_slope)} at the far right"]
        parts += [f"flat for {100 * self.flat:.1f} % of standard normal inputs"]
        return "; ".join(parts)


def properties(activation: Callable[[Tensor], Tensor]) -> Properties:
    """Look at an activation of single elements.

    Args:
        activation: As in `softknee.card`; of several channels, the first is looked at.

    Returns:
        What was seen.
    """
    function = function_of(activation)
    near = torch.linspace(-NEAR, NEAR, POINTS, dtype=torch.float64)
    far = torch.logspace(math.log10(NEAR), math.log10(FAR), 400, dtype=torch.float64)
    x = torch.cat([-far.flip(0)[:-1], near, far[1:]])
    y, slope = _with_slope(function, x)
    mirrored, _ = _with_slope(function, -x)
    at_zero = _with_slope(function, torch.zeros(1, dtype=torch.float64))[0].item()
    slack = ROUNDING * (1 + y.abs())
    # Where both are infinite, there is no difference to see.
    rises, sums, differences = (one.nan_to_num(0.0) for one in (y[1:] - y[:-1], mirrored + y, mirrored - y))
    ends = (y[0].item(), y[-1].item())
    numbers = y[~y.isnan()]
    low, high = (numbers.min().item(), numbers.max().item()) if len(numbers) else (math.nan, math.nan)
    settled = _with_slope(function, torch.tensor(ENDS, dtype=torch.float64))[0].nan_to_num(nan=at_zero)
    density = torch.exp(-near.square() / 2)
    near_slopes = slope[len(far) - 1 : len(far) - 1 + POINTS]
    return Properties(
        minimum=-math.inf if low in ends and _leaves(slope, y, low) else min(low, *settled.tolist()),
        maximum=math.inf if high in ends and _leaves(slope, y, high) else max(high, *settled.tolist()),
        at_zero=at_zero,
        monotonic=bool((rises >= -slack[1:]).all()),
        odd=bool((sums.abs() <= slack).all()),
        even=bool((differences.abs() <= slack).all()),
        lipschitz=near_slopes.abs().max().item(),
        left_slope=slope[0].item(),
        right_slope=slope[-1].item(),
        flat=(density * (near_slopes.abs() < VANISHED)).sum().item() / density.sum().item(),
    )


def _leaves(slope: Tensor, y: Tensor, extreme: float) -> bool:
    """Whether an extreme value at an end of the range is passed further out: the function has not settled there."""
    at = 0 if y[0].item() == extreme else -1
    # A tail that settles like 1/x has about this far to go.
    return not abs(slope[at].item() * FAR) <= SETTLED * (1 + abs(extreme))


def _with_slope(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return value and slope, infinite where numbers end."""
    value, slope = (one[:, 0] for one in function.derivatives(x, 1))
    over = value.abs() >= HUGE
    value = torch.where(over, value.sign() * math.inf, value)
    return value, torch.where(over, value * x.sign(), slope)


def _number(value: float) -> str:
    return f"{0.0 if abs(value) < ROUNDING else value:.4g}"
