"""Polynomials, also of bounded or rectified inputs, and smooth forms of the absolute value made from them."""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._errors import OptionError
from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional._series import HERMITE, MOST_HERMITE, by_index, horner, recurrent_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What polynomials start as, on this interval, at so many points of it.
TARGETS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"relu": torch.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}
)
REACH = 3.0
POINTS = 6001
_HERMITE = by_index([f"({text}) / {math.factorial(n)}" for n, text in enumerate(HERMITE)])


@widening
def slaf(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Self-learnable activation, the polynomial $\sum_{i=0}^n a_i x^i$, by Horner's rule.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $a$: `(n + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`.
    """
    return horner(x, coefficients)


@widening
def poly_relu(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Polynomial of a ReLU, $\sum_{i=0}^r a_i \max(0, x)^i$; its derivative at 0 is 0.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $a$: `(r + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`.
    """
    return horner(torch.relu(x), coefficients)


@widening
def hermite(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Series of Hermite polynomials, $\sum_{n=0}^d c_n \mathrm{He}_n(x) / n!$ (those of probability theory).

    Summed by Clenshaw's rule. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c$: `(d + 1, ...)`, or a tuple, each entry broadcastable to `x`; at least two.

    Returns:
        Same shape and dtype as `x`.
    """
    total: Any = coefficients[len(coefficients) - 1]
    after: Any = 0.0
    for n in range(len(coefficients) - 2, -1, -1):
        total, after = coefficients[n] + total * x / (n + 1) - after / (n + 2), total
    result: Tensor = total
    return result


@widening
def chebyshev(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Series of Chebyshev polynomials of a bounded input, $\sum_{i=0}^d c_i T_i(\tanh x)$.

    Summed by Clenshaw's rule. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $c$: `(d + 1, ...)`, or a tuple, each entry broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    bounded = torch.tanh(x)
    return recurrent_sum(coefficients, bounded, torch.ones_like(bounded), 2 * bounded)


def soft_modulus_q(x: Tensor) -> Tensor:
    r"""Absolute value rounded off by a cubic, $x^2 (2 - |x|)$ for $|x| \le 1$ and $|x|$ beyond.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    size = x.abs()
    inner = size.clamp(max=1)
    return torch.where(size < 1, inner.square() * (2 - inner), size)


@widening
def soft_modulus_t(x: Tensor, a: Tensor | float = 0.01) -> Tensor:
    r"""Absolute value rounded off by a hyperbolic tangent, $x \tanh(x / a)$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.tanh(x / a)


def fitted(target: str, terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the polynomial of degree `terms` that is closest to a target on [-3, 3], in the sense of least squares."""
    unit = torch.linspace(-1, 1, POINTS, dtype=torch.float64, device="cpu")
    degrees = torch.arange(terms + 1, device="cpu")
    powers = unit[:, None] ** degrees
    solution = torch.linalg.lstsq(powers, TARGETS[target](REACH * unit)[:, None]).solution[:, 0]
    # A solver's last digits depend on where its arguments lie in memory.
    return {"coefficients": (solution / REACH**degrees).round(decimals=12)}


def equal_powers(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return a constant of 0 and the same coefficient for each power, 1 in all."""
    return {"coefficients": torch.tensor([0.0] + [1 / terms] * terms, dtype=torch.float64)}


def balanced_hermite(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the coefficients that give value and derivative the same second moment for a standard normal input.

    Raises:
        OptionError: The degree is larger than the formula's.
    """
    if terms > MOST_HERMITE:
        raise OptionError(f"terms of hermite, its degree, must be at most {MOST_HERMITE}, got {terms}")
    constant = math.sqrt(1 - 1 / math.factorial(terms))
    return {"coefficients": torch.tensor([constant] + [1.0] * terms, dtype=torch.float64) / math.sqrt(math.e)}


def small_chebyshev(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw coefficients of standard deviation 1 / (degree + 1)."""
    return {"coefficients": torch.randn(terms + 1, generator=generator) / (terms + 1)}


def hyperbolic_tangent(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the coefficients of the hyperbolic tangent itself."""
    return {"coefficients": (torch.arange(terms + 1) == 1).double()}


SPECS = (
    Spec(
        name="slaf",
        title="SLAF",
        family="polynomial",
        function=slaf,
        formula="sum(coefficients * x**index)",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True),
        source="goyal2019slaf",
        note=(
            "A polynomial, linear in its coefficients; the other names for it are polynomial and Taylor activation."
            " Degree and start are ours: the closest polynomial to GELU, or to another target, on [-3, 3]. Outside it"
            " is on its own."
        ),
        initializations=MappingProxyType({name: partial(fitted, name) for name in ("gelu", "relu", "silu", "tanh")}),
        terms=3,
    ),
    Spec(
        name="poly_relu",
        title="PolyReLU",
        family="polynomial",
        function=poly_relu,
        formula="sum(coefficients * max(0, x)**index)",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lower_bound=0.0),
        source="zhuo2025polycom",
        note="The authors start all three powers at 1/3; for another degree than 3, one over the degree is ours.",
        kinks=("0",),
        initializations=MappingProxyType({"equal": equal_powers}),
        terms=3,
    ),
    Spec(
        name="hermite",
        title="Hermite",
        family="polynomial",
        function=hermite,
        formula=f"sum(coefficients * {_HERMITE})",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True),
        source="khalfaoui2025polynomial",
        note=(
            "Divided by n!, as in the authors' code, the start has E f(z)^2 = E f'(z)^2 for a standard normal z, close"
            " to 1. Degrees up to 7."
        ),
        initializations=MappingProxyType({"balanced": balanced_hermite}),
        terms=3,
        most_terms=MOST_HERMITE,
    ),
    Spec(
        name="chebyshev",
        title="Chebyshev",
        family="polynomial",
        function=chebyshev,
        formula="sum(coefficients * cos(2 * index * atan(exp(-x))))",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True),
        source="ss2024chebyshev",
        note=(
            "T_i(tanh x) is the cosine of i times the angle whose cosine is tanh x. Bounded, whatever the coefficients:"
            " by the sum of their absolute values. The source has one such function for each weight of a layer and"
            ' draws coefficients for that; as an activation, start from `initialization="tanh"`.'
        ),
        initializations=MappingProxyType({"normal": small_chebyshev, "tanh": hyperbolic_tangent}),
        terms=4,
    ),
    Spec(
        name="soft_modulus_q",
        title="SoftModulusQ",
        family="polynomial",
        function=soft_modulus_q,
        formula="where(abs(x) > 1, abs(x), x**2 * (2 - abs(x)))",
        promises=Promises(even=True, zero_at_zero=True, lipschitz=1.333334, lower_bound=0.0),
        source="vallesperez2023modulus",
    ),
    Spec(
        name="soft_modulus_t",
        title="SoftModulusT",
        family="polynomial",
        function=soft_modulus_t,
        formula="x * tanh(x / a)",
        parameters=(Param(name="a", default=0.01, low=0.0, open_low=True),),
        promises=Promises(smooth=True, even=True, zero_at_zero=True, lipschitz=1.199679, lower_bound=0.0),
        source="vallesperez2023modulus",
        note="LiSHT at a = 1; near the absolute value at the source's 0.01.",
    ),
)
