"""Quotients of polynomials."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Spec
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

DEGREE = 5
# Coefficients a and b of the best rational functions of degrees 5 and 4 for the targets, in the sense of least squares
# at 6001 evenly spaced points of [-3, 3]; tests check that no small change of them is better. Outside they are on their
# own: the one for GELU grows with the square of x.
FITS = MappingProxyType(
    {
        "leaky_relu": (
            (0.0297972672, 0.618375982, 2.32295373, 3.05098762, 1.48472427, 0.250867329),
            (1.14180364, 4.39175149, 0.871091357, 0.346973257),
        ),
        "gelu": (
            (-0.00100271226, 0.49861487, 0.40611153, 0.108650636, 0.0107488474, 0.000478183333),
            (0.0, 0.210422682, 0.0050054775, 0.0),
        ),
        "silu": (
            (3.0631494e-07, 0.500000776, 0.249997825, 0.0532661378, 0.00580296687, 0.000275186942),
            (4.05412554e-06, 0.106528762, 1.24486603e-06, 0.000550218215),
        ),
        "identity": ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
    }
)


def rational(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Padé activation unit in its safe form, $\sum_{j=0}^m a_j x^j \big/ \bigl(1 + \sum_{k=1}^n |b_k x^k|\bigr)$.

    Evaluated by Horner's rule, the denominator in $|x|$; half precision in float32. The derivative by a $b_k$ of 0 is
    that from the right, so that a coefficient that starts at 0 is trained.

    Args:
        x: Any shape, any floating dtype.
        numerator: $a_0, \dots, a_m$: `(m + 1, ...)`, or a tuple, each entry broadcastable to `x`.
        denominator: $b_1, \dots, b_n$: `(n, ...)`, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $a_1$, the mean of those from both sides.
    """
    wide = widened(x)
    above: Any = numerator[len(numerator) - 1]
    for j in range(len(numerator) - 2, -1, -1):
        above = above * wide + numerator[j]
    size, below = wide.abs(), wide.new_zeros(())
    for k in range(len(denominator) - 1, -1, -1):
        below = (below + _absolute(denominator[k])) * size
    result: Tensor = above / (1 + below)
    return result.to(x.dtype)


def _absolute(coefficient: Tensor | float) -> Tensor | float:
    """Return the absolute value; torch's own has the derivative 0 at 0."""
    if isinstance(coefficient, Tensor):
        return torch.where(coefficient < 0, -coefficient, coefficient)
    return abs(coefficient)


def _fitted(target: str, terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the coefficients of a fit; those of degrees above its own are zero."""
    numerator, denominator = (torch.tensor(coefficients, dtype=torch.float64) for coefficients in FITS[target])
    above = (0, terms - DEGREE)
    return {"numerator": F.pad(numerator, above), "denominator": F.pad(denominator, above)}


SPECS = (
    Spec(
        name="rational",
        title="Rational",
        family="rational",
        function=rational,
        formula="sum(numerator * x**index) / (1 + sum(abs(denominator * x**(index + 1))))",
        parameters=(
            Param(name="numerator", trainable=True, vector=True, free_from=2),
            Param(name="denominator", trainable=True, vector=True, free_from=1),
        ),
        source="molina2020pau",
        note="By default of degrees 5 and 4, and at first the best fit to a leaky ReLU on [-3, 3]. This fit and the "
        "others are ours.",
        kinks=("0",),
        aliases=("pau",),
        initializations=MappingProxyType({target: partial(_fitted, target) for target in FITS}),
        terms=DEGREE,
        fewest_terms=DEGREE,
    ),
)
