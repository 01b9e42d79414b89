"""Quotients of polynomials with other denominators than the safe one of `rational`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._errors import OptionError
from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional._series import HERMITE, MOST_HERMITE, by_index, horner

if TYPE_CHECKING:
    from collections.abc import Sequence

DEGREE = 5
# Part of version C's denominator that is not trained.
EPSILON = 0.1
# Each target is a line and an even function, and so is its best quotient of degrees 5 and 4 on [-3, 3], in the sense of
# least squares at 6001 evenly spaced points, among those with a denominator of at least 1: here are the slope of the
# line, the numerator of the even part, from the constant on, and the denominator from the square on, every other power.
FITS = MappingProxyType(
    {
        "leaky_relu": (0.505, (0.0335634368, 1.65317609, 0.931452441), (3.97894471, 0.301635133)),
        "gelu": (0.5, (-0.00116241996, 0.407520272, 0.00827882643), (0.211530815, 0.0)),
        "silu": (0.5, (3.25357269e-07, 0.249997367, 0.00580264302), (0.10653068, 0.000550294659)),
        "identity": (1.0, (0.0, 0.0, 0.0), (0.0, 0.0)),
    }
)
# Coefficients c and d of the best orthogonal quotients of degrees 4 and 3, likewise.
ORTHOGONAL_DEGREE = 4
ORTHOGONAL_FITS = MappingProxyType(
    {
        "leaky_relu": (
            (6.93432082, 11.7031766, 7.91585158, 2.77087144, 0.434224854),
            (10.0087404, 2.36834634, 0.318170649),
        ),
        "gelu": (
            (0.528114447, 0.998626293, 0.55272639, 0.124116537, 0.00822120915),
            (0.443063627, 0.109755026, 0.0151585249),
        ),
        "silu": (
            (0.279971518, 0.692087849, 0.286944504, 0.0477608625, 0.00258693887),
            (0.170732764, 0.0421760491, 0.00585525528),
        ),
        "identity": ((0.0, 1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    }
)
# Of the best quotient of degrees 3 and 2 for ReLU on [-1, 1], as published.
RELU_NUMERATOR = (0.0218, 0.5, 1.5957, 1.1915)
RELU_DENOMINATOR = (1.0, 0.0, 2.383)


@widening
def rational_b(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Padé activation unit, version B, $\sum_{j=0}^m a_j x^j \big/ \bigl(1 + |\sum_{k=1}^n b_k x^k|\bigr)$.

    Evaluated by Horner's rule, half precision in float32.

    Args:
        x: Any shape, any floating dtype.
        numerator: $a_0, \dots, a_m$: `(m + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.
        denominator: $b_1, \dots, b_n$: `(n, ...)`, likewise, at least one.

    Returns:
        Same shape and dtype as `x`; where the inner sum is 0, as at 0, derivatives are those without the bars, so that
        coefficients that all start at 0 are trained.
    """
    return horner(x, numerator) / (1 + _absolute(_powers(x, denominator)))


@widening
def rational_c(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Padé activation unit, version C, $\sum_{j=0}^m a_j x^j \big/ \bigl(0.1 + |\sum_{k=0}^n b_k x^k|\bigr)$.

    Evaluated by Horner's rule, half precision in float32.

    Args:
        x: Any shape, any floating dtype.
        numerator: $a_0, \dots, a_m$: `(m + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.
        denominator: $b_0, \dots, b_n$: `(n + 1, ...)`, likewise.

    Returns:
        Same shape and dtype as `x`; where the inner sum is 0, derivatives are those without the bars.
    """
    return horner(x, numerator) / (EPSILON + _absolute(horner(x, denominator)))


@widening
def rational_n(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Padé activation unit, version N, $\sum_{j=0}^m a_j x^j \big/ \bigl(1 + \sum_{k=1}^n b_k x^k\bigr)$: with poles.

    Evaluated by Horner's rule, half precision in float32.

    Args:
        x: Any shape, any floating dtype.
        numerator: $a_0, \dots, a_m$: `(m + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.
        denominator: $b_1, \dots, b_n$: `(n, ...)`, likewise, at least one.

    Returns:
        Same shape and dtype as `x`; infinite or not a number where the denominator is 0.
    """
    return horner(x, numerator) / (1 + _powers(x, denominator))


@widening
def rational_32(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Rational activation of degrees 3 and 2, $\sum_{j=0}^3 p_j x^j \big/ \sum_{k=0}^2 q_k x^k$: with poles.

    Evaluated by Horner's rule, half precision in float32.

    Args:
        x: Any shape, any floating dtype.
        numerator: $p$: `(4, ...)`, or a tuple, each entry broadcastable to `x`.
        denominator: $q$: `(3, ...)`, likewise.

    Returns:
        Same shape and dtype as `x`; infinite or not a number where the denominator is 0.
    """
    return horner(x, numerator) / horner(x, denominator)


@widening
def opau(x: Tensor, numerator: Sequence[Tensor | float], denominator: Sequence[Tensor | float]) -> Tensor:
    r"""Orthogonal Padé unit, $\sum_{i=0}^k c_i f_i(x) \big/ \bigl(1 + \sum_{j=1}^l |d_j f_j(x)|\bigr)$.

    The $f_j$ are the Hermite polynomials of probability theory. Half precision is computed in float32. By a $d_j$ of 0,
    the derivative is that from the right, so that a coefficient that starts at 0 is trained.

    Args:
        x: Any shape, any floating dtype.
        numerator: $c_0, \dots, c_k$: `(k + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.
        denominator: $d_1, \dots, d_l$: `(l, ...)`, likewise; at least one and at most $k$.

    Returns:
        Same shape and dtype as `x`; at a zero of a polynomial, its absolute value has the derivative 0.
    """
    before, basis = torch.ones_like(x), x
    above: Any = numerator[0] + numerator[1] * x
    below: Any = 1 + _absolute(denominator[0] * x.abs())
    for j in range(1, len(numerator) - 1):
        before, basis = basis, x * basis - j * before
        above = above + numerator[j + 1] * basis
        if j < len(denominator):
            below = below + _absolute(denominator[j] * basis.abs())
    result: Tensor = above / below
    return result


def _powers(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    """Return a polynomial without a constant."""
    return horner(x, coefficients) * x


def _absolute(value: Tensor) -> Tensor:
    """Return the absolute value; its derivative at 0 is 1, where torch's own would stop coefficients of 0."""
    return torch.where(value < 0, -value, value)


def _interleaved(even: Sequence[float], odd: Sequence[float]) -> list[float]:
    """Return numbers taken from one list and the other in turn."""
    return [number for pair in zip(even, odd, strict=True) for number in pair]


def fitted(
    target: str, terms: int, _: torch.Generator | None = None, *, constant: float | None = None
) -> dict[str, Tensor]:
    """Return the coefficients of a fit; those of degrees above its own are zero.

    Args:
        target: Its name.
        terms: Degree of the numerator, one more than that of the denominator.
        constant: Of the denominator, where that is trained.

    Returns:
        By name of the parameter.
    """
    slope, even, below = FITS[target]
    numerator = _interleaved(even, [slope, *(slope * coefficient for coefficient in below)])
    denominator = [*([] if constant is None else [constant]), *_interleaved([0.0, 0.0], below)]
    return _padded(numerator, denominator, terms - DEGREE)


def published_relu(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the published coefficients; those of degrees above 3 and 2 are zero."""
    return _padded(RELU_NUMERATOR, RELU_DENOMINATOR, terms - len(RELU_DENOMINATOR))


def orthogonal(target: str, terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the coefficients of a fit in the orthogonal basis.

    Raises:
        OptionError: The degree is larger than the formula's.
    """
    if terms > MOST_HERMITE:
        raise OptionError(f"terms of opau, its degree, must be at most {MOST_HERMITE}, got {terms}")
    return _padded(*ORTHOGONAL_FITS[target], terms - ORTHOGONAL_DEGREE)


def _padded(numerator: Sequence[float], denominator: Sequence[float], above: int) -> dict[str, Tensor]:
    vectors = {"numerator": numerator, "denominator": denominator}
    return {name: F.pad(torch.tensor(vector, dtype=torch.float64), (0, above)) for name, vector in vectors.items()}


def zeros_of_hermite(length: int) -> tuple[float, ...]:
    """Return the zeros of the polynomials in the denominator of a numerator with so many coefficients."""
    degrees = range(1, length - 1)
    return tuple(sorted({float(zero) for n in degrees for zero in np.polynomial.hermite_e.hermegauss(n)[0]}))


_NUMERATOR = Param(name="numerator", trainable=True, vector=True, free_from=2)
_DENOMINATOR = Param(name="denominator", trainable=True, vector=True, free_from=1)

SPECS = (
    Spec(
        name="rational_b",
        title="RationalB",
        family="rational",
        function=rational_b,
        formula="sum(numerator * x**index) / (1 + abs(sum(denominator * x**(index + 1))))",
        parameters=(_NUMERATOR, _DENOMINATOR),
        promises=Promises(lipschitz=1.069231),
        source="molina2020pau",
        note=(
            "Version A of the authors' library is `rational`; D is this one with noise on the coefficients. The"
            " derivative jumps where the inner sum changes its sign: at 0 if its first coefficient is not 0, as in none"
            " of the starts, and elsewhere. The Kolmogorov-Arnold transformer shares a numerator among all channels and"
            " has a denominator for each group of them; `per_channel` gives every channel its own."
        ),
        kinks=("0",),
        aliases=("pau_b",),
        initializations=MappingProxyType({target: partial(fitted, target) for target in FITS}),
        terms=DEGREE,
        fewest_terms=DEGREE,
    ),
    Spec(
        name="rational_c",
        title="RationalC",
        family="rational",
        function=rational_c,
        formula="sum(numerator * x**index) / (0.1 + abs(sum(denominator * x**index)))",
        parameters=(_NUMERATOR, _DENOMINATOR),
        promises=Promises(smooth=True, lipschitz=1.069231),
        source="molina2020pau",
        note=(
            "Version C of the authors' library. It starts as version N does, with 0.9 for the constant of the"
            " denominator; the derivative jumps where the inner sum changes its sign, which it does in none of the"
            " starts."
        ),
        aliases=("pau_c",),
        initializations=MappingProxyType({target: partial(fitted, target, constant=1 - EPSILON) for target in FITS}),
        terms=DEGREE,
        fewest_terms=DEGREE,
    ),
    Spec(
        name="rational_n",
        title="RationalN",
        family="rational",
        function=rational_n,
        formula="sum(numerator * x**index) / (1 + sum(denominator * x**(index + 1)))",
        parameters=(_NUMERATOR, _DENOMINATOR),
        promises=Promises(smooth=True, lipschitz=1.069231),
        source="molina2020pau",
        note=(
            "Version N of the authors' library, the only one of them that may have poles. It starts without: its"
            " denominators are at least 1. Training can bring some about; `rational` cannot get them."
        ),
        aliases=("pau_n",),
        initializations=MappingProxyType({target: partial(fitted, target) for target in FITS}),
        terms=DEGREE,
        fewest_terms=DEGREE,
    ),
    Spec(
        name="rational_32",
        title="Rational32",
        family="rational",
        function=rational_32,
        formula="sum(numerator * x**index) / sum(denominator * x**index)",
        parameters=(replace(_NUMERATOR, free_from=0), replace(_DENOMINATOR, free_from=0)),
        promises=Promises(smooth=True, lipschitz=1.149542),
        source="boulle2020rational",
        note=(
            "Made for [-1, 1], where it starts close to ReLU with the paper's numbers. All seven coefficients are"
            " trained, so it may get poles; it starts without."
        ),
        initializations=MappingProxyType({"relu": published_relu}),
        terms=3,
        fewest_terms=3,
    ),
    Spec(
        name="opau",
        title="OPAU",
        family="rational",
        function=opau,
        formula=(f"sum(numerator * {by_index(HERMITE)}) / (1 + sum(abs(denominator * {by_index(HERMITE[1:])})))"),
        parameters=(_NUMERATOR, replace(_DENOMINATOR, shorter_than="numerator")),
        source="biswas2021opau",
        note=(
            "The basis is one of six in the paper, which found Hermite polynomials best and starts from a fit to leaky"
            " ReLU. The fits are ours, on [-3, 3]; each zero of a polynomial in the denominator is a kink, so they are"
            " less close than those of `rational`. Degrees up to 7."
        ),
        knots=zeros_of_hermite,
        initializations=MappingProxyType({target: partial(orthogonal, target) for target in ORTHOGONAL_FITS}),
        terms=ORTHOGONAL_DEGREE,
        fewest_terms=ORTHOGONAL_DEGREE,
        most_terms=MOST_HERMITE,
    ),
)
