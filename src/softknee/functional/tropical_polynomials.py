"""Tropical polynomials: where sums are maxima and products are sums."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

if TYPE_CHECKING:
    from collections.abc import Sequence


@widening
def tropical(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Tropical polynomial, $\frac{\sqrt 2}{d} \max_{0 \le i \le d} (i x + c_i)$: convex, and linear in pieces.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c$: `(d + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`; the derivative at a kink is the slope left of it.
    """
    degree = len(coefficients) - 1
    return _largest(x, range(degree + 1), coefficients) * (math.sqrt(2) / degree)


@widening
def tropical_rational(
    x: Tensor,
    slopes: Sequence[Tensor | float],
    offsets: Sequence[Tensor | float],
    lower_slopes: Sequence[Tensor | float],
    lower_offsets: Sequence[Tensor | float],
) -> Tensor:
    r"""Tropical quotient, $\max_i (\alpha_i x + a_i) - \max_i (\beta_i x + b_i)$: any function linear in pieces.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        slopes: $\alpha$: `(d + 1, ...)`, or a tuple, each entry broadcastable to `x`.
        offsets: $a$, likewise.
        lower_slopes: $\beta$, likewise.
        lower_offsets: $b$, likewise.

    Returns:
        Same shape and dtype as `x`; where two lines are the largest, derivatives are those of the one that comes first.
    """
    return _largest(x, slopes, offsets) - _largest(x, lower_slopes, lower_offsets)


def _largest(x: Tensor, slopes: Sequence[Tensor | float], offsets: Sequence[Tensor | float]) -> Tensor:
    """Return the largest of some lines."""
    best: Any = slopes[0] * x + offsets[0]
    for i in range(1, len(offsets)):
        line = slopes[i] * x + offsets[i]
        best = torch.where(line > best, line, best)
    result: Tensor = best
    return result


def ones(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return a coefficient of 1 for each power."""
    return {"coefficients": torch.ones(terms + 1)}


def normal_lines(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw slopes and offsets of all lines from a standard normal."""
    names = ("slopes", "offsets", "lower_slopes", "lower_offsets")
    return dict(zip(names, torch.randn(4, terms + 1, generator=generator), strict=True))


SPECS = (
    Spec(
        name="tropical",
        title="Tropical",
        family="polynomial",
        function=tropical,
        formula="largest(sqrt(2) / (terms - 1) * (index * x + coefficients))",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(monotonic=True, lipschitz=1.414214, lower_bound=0.35355339),
        source="khalfaoui2025polynomial",
        note="The factor sqrt(2) / d and the start with coefficients of 1 are those of the authors' code, torchortho; "
        "the degree of 4 is ours.",
        kinks=("0",),
        initializations=MappingProxyType({"ones": ones}),
        terms=4,
    ),
    Spec(
        name="tropical_rational",
        title="TropicalRational",
        family="rational",
        function=tropical_rational,
        formula="largest(slopes * x + offsets) - largest(lower_slopes * x + lower_offsets)",
        parameters=(
            Param(name="slopes", trainable=True, vector=True),
            Param(name="offsets", trainable=True, vector=True),
            Param(name="lower_slopes", trainable=True, vector=True),
            Param(name="lower_offsets", trainable=True, vector=True),
        ),
        source="khalfaoui2025polynomial",
        note="The start, all numbers from a standard normal, is that of the authors' code, torchortho; the degree of 3 "
        "is ours.",
        initializations=MappingProxyType({"normal": normal_lines}),
        terms=3,
    ),
)
