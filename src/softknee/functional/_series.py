"""Sums over powers, and over functions that follow from the two before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Hermite polynomials (those of probability theory) as formulas have them.
HERMITE = (
    *("1", "x", "x**2 - 1", "x**3 - 3 * x", "x**4 - 6 * x**2 + 3", "x**5 - 10 * x**3 + 15 * x"),
    *("x**6 - 15 * x**4 + 45 * x**2 - 15", "x**7 - 21 * x**5 + 105 * x**3 - 105 * x"),
)
MOST_HERMITE = len(HERMITE) - 1


def horner(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    """Return a polynomial's value.

    Args:
        x: Any shape, any floating dtype.
        coefficients: From the constant on, each entry broadcastable to `x`; at least two, else the value is the
            constant alone.

    Returns:
        Same shape and dtype as `x`.
    """
    total: Any = coefficients[len(coefficients) - 1]
    for i in range(len(coefficients) - 2, -1, -1):
        total = total * x + coefficients[i]
    result: Tensor = total
    return result


def recurrent_sum(coefficients: Sequence[Tensor | float], before: Tensor, first: Tensor, factor: Tensor) -> Tensor:
    r"""Return $\sum_k c_k \phi_k$ for functions with $\phi_{k+1} = m \phi_k - \phi_{k-1}$: sines, cosines, Chebyshev's.

    By Clenshaw's rule: one sine and one cosine serve all terms.

    Args:
        coefficients: $c_0, c_1, \dots$, each entry broadcastable to the functions; at least one.
        before: $\phi_{-1}$.
        first: $\phi_0$.
        factor: $m$.

    Returns:
        In the shape of the functions.
    """
    last: Any = coefficients[len(coefficients) - 1]
    after: Any = 0.0
    for k in range(len(coefficients) - 2, -1, -1):
        last, after = coefficients[k] + factor * last - after, last
    result: Tensor = last * first - after * before
    return result


def by_index(texts: Sequence[str]) -> str:
    """Return a formula that takes the one of these texts that stands at `index`, the last beyond."""
    *others, chosen = [f"({text})" for text in texts]
    for i in range(len(others) - 1, -1, -1):
        chosen = f"where(index < {i + 1}, {others[i]}, {chosen})"
    return chosen
