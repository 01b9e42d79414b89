"""Piecewise linear functions made of hinges and hats at fixed places."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._intervals import as_tensor, entries_of
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

# Half the width of the widest hat, which begins at 0.
HAT = 2.0
# The hinges of a SPLASH unit for standardized inputs; any more follow at distance 0.5.
HINGES = (0.0, 1.0, 2.0, 2.5)
NEXT_HINGE = 0.5
# Half widths of the hats by their index; the places follow from them.
_HALF = "where(index < 1, 2, where(index < 3, 1, where(index < 7, 1 / 2, where(index < 15, 1 / 4, 1 / 8))))"


def plu(x: Tensor, alpha: Tensor | float = 0.1, corner: Tensor | float = 1.0) -> Tensor:
    r"""Piecewise linear unit, $\max(\alpha (x + c) - c, \min(\alpha (x - c) + c, x))$: slope 1 inside $[-c, c]$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, the slope outside, from 0 to 1, broadcastable to `x`.
        corner: $c \ge 0$.

    Returns:
        Same shape and dtype as `x`; the derivative at $\pm c$ is $\alpha$.
    """
    right, left = alpha * (x - corner) + corner, alpha * (x + corner) - corner
    return torch.where(x >= corner, right, torch.where(x <= -corner, left, x))


def melu(x: Tensor, coefficients: Sequence[Tensor | float], slope: Tensor | float = 0.0) -> Tensor:
    r"""Mexican ReLU, a parametric ReLU with hats: $\mathrm{PReLU}(x) + \sum_j c_j \max(\lambda_j - |x - a_j|, 0)$.

    The hats are the dyadic ones on $[0, 4]$: one as wide as that, two of half its width side by side, and so on; each
    is as high as half its width. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c_j$: `(hats, ...)`, or a tuple, each entry broadcastable to `x`.
        slope: That of the parametric ReLU.

    Returns:
        Same shape and dtype as `x`; the derivative where pieces meet is the slope left of it.
    """
    wide = widened(x)
    total = torch.where(wide > 0, wide, as_tensor(slope, wide) * wide)
    for (centre, half), coefficient in zip(_hats(len(coefficients)), entries_of(coefficients, wide), strict=True):
        begin, end = centre - half, centre + half
        # All comparisons of one place are the same one, lest the hats disagree there on which side of it they are.
        falling = torch.where(wide > end, 0.0, end - wide)
        total = total + coefficient * torch.where(wide > centre, falling, torch.where(wide > begin, wide - begin, 0.0))
    return total.to(x.dtype)


def splash(
    x: Tensor,
    right_slopes: Sequence[Tensor | float],
    left_slopes: Sequence[Tensor | float],
    hinges: Sequence[Tensor | float],
) -> Tensor:
    r"""SPLASH unit, with symmetric hinges: $\sum_s p_s \max(0, x - b_s) + \sum_s n_s \max(0, -x - b_s)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        right_slopes: $p_s$: `(hinges, ...)`, or a tuple, each entry broadcastable to `x`.
        left_slopes: $n_s$, likewise.
        hinges: $b_s \ge 0$, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative at a hinge is the slope left of it.
    """
    wide = widened(x)
    total = wide.new_zeros(())
    vectors = [entries_of(vector, wide) for vector in (right_slopes, left_slopes, hinges)]
    for right, left, hinge in zip(*vectors, strict=True):
        total = total + torch.where(wide > hinge, right * (wide - hinge), 0.0)
        total = total + torch.where(wide > -hinge, 0.0, -left * (wide + hinge))
    return total.to(x.dtype)


def _hats(count: int) -> list[tuple[float, float]]:
    """Return centre and half width of the first dyadic hats, level by level."""
    hats = []
    for j in range(count):
        level = (j + 1).bit_length() - 1
        half = HAT / 2**level
        hats.append((half * (2 * (j + 1 - 2**level) + 1), half))
    return hats


def melu_knots(terms: int) -> tuple[float, ...]:
    """Return where one of so many hats bends, 0 included."""
    return tuple(sorted({0.0, *(c + side * half for c, half in _hats(terms) for side in (-1, 0, 1))}))


def splash_knots(terms: int) -> tuple[float, ...]:
    """Return the initial hinges on both sides."""
    return tuple(sorted({side * hinge for hinge in _hinges(terms) for side in (-1, 1)}))


def _hinges(terms: int) -> list[float]:
    return [HINGES[s] if s < len(HINGES) else HINGES[-1] + NEXT_HINGE * (s - len(HINGES) + 1) for s in range(terms)]


def initialize_flat(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return no hats."""
    return {"coefficients": torch.zeros(terms)}


def initialize_relu(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the slopes of ReLU, and hinges for standardized inputs."""
    slopes = torch.zeros(terms)
    slopes[0] = 1.0
    return {"right_slopes": slopes, "left_slopes": torch.zeros(terms), "hinges": torch.tensor(_hinges(terms))}


SPECS = (
    Spec(
        name="plu",
        title="PLU",
        family="spline",
        function=plu,
        formula="max(alpha * (x + corner) - corner, min(alpha * (x - corner) + corner, x))",
        parameters=(
            Param(name="alpha", default=0.1, low=0.0, high=1.0),
            Param(name="corner", default=1.0, low=0.0),
        ),
        promises=Promises(monotonic=True, odd=True, zero_at_zero=True, lipschitz=1.0),
        source="nicolae2018plu",
        note=(
            "An S-shaped ReLU with thresholds -c and c and one slope for both ends, hence invertible for positive"
            " slopes. PWLU, also a piecewise linear unit, has many more pieces."
        ),
        kinks=("-corner", "corner"),
    ),
    Spec(
        name="melu",
        title="MeLU",
        family="spline",
        function=melu,
        formula=(
            "max(x, 0) + slope * min(x, 0)"
            f" + sum(coefficients * max({_HALF} - abs(x + 4 - (2 * index + 3) * {_HALF}), 0))"
        ),
        parameters=(
            Param(name="coefficients", trainable=True, vector=True),
            Param(name="slope", default=0.0, trainable=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="maguolo2021melu",
        note=(
            "Starts as ReLU, as in the paper, which has 3 or 7 hats. That these are the dyadic ones is our reading of"
            " its recursion, for inputs up to about 1; for larger ones, divide the input and multiply the output by"
            " their size. The formula is that of at most 31 hats."
        ),
        knots=melu_knots,
        initializations=MappingProxyType({"flat": initialize_flat}),
        terms=7,
    ),
    Spec(
        name="splash",
        title="SPLASH",
        family="spline",
        function=splash,
        formula="sum(right_slopes * max(x - hinges, 0) + left_slopes * max(-x - hinges, 0))",
        parameters=(
            Param(name="right_slopes", trainable=True, vector=True),
            Param(name="left_slopes", trainable=True, vector=True),
            Param(name="hinges", vector=True, low=0.0),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="tavakoli2021splash",
        note=(
            "Starts as ReLU. The hinges are the values that the paper is cited for, with batch-normalized inputs; we"
            " did not check them against it. It takes hinges from data and does not train them. Any beyond the fourth"
            " are ours."
        ),
        knots=splash_knots,
        initializations=MappingProxyType({"relu": initialize_relu}),
        terms=4,
    ),
)
