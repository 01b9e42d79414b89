"""Hermite coefficients of an activation, and the correlation that they say two normal inputs keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._card.quadrature import Quadrature

ORDER = 400


@dataclass(frozen=True)
class Hermite:
    """`phi(sqrt(q) Z) = sum_k a_k h_k(Z)`, with Hermite polynomials normalised to `E[h_k^2] = 1`.

    So `E[phi(U) phi(V)] = sum_k a_k^2 c^k` for inputs with correlation `c` (O'Donnell 2014, chapter 11).

    Attributes:
        coefficients: `a_0 ... a_K`, `(K + 1, channels)`.
        rest: `E[phi^2] - sum_k a_k^2`: what coefficients beyond `K` hold; never negative but for rounding.
    """

    coefficients: Tensor
    rest: float

    @classmethod
    def of(cls, rule: Quadrature, values: Tensor | None = None, order: int = ORDER) -> Hermite:
        """Return the coefficients of what a rule integrates.

        Args:
            rule: With mean 0.
            values: At its nodes, `(n, channels)`; by default those of the function.
            order: `K`.

        Returns:
            The coefficients.
        """
        values = rule.value if values is None else values
        # The roots of the weights go with the polynomials, which then stay of the size of 1.
        root = rule.weights.clamp_min(0).sqrt()
        weighted = torch.where(root[:, None] > 0, values * root[:, None], 0.0)
        before, now = torch.zeros_like(root), root
        coefficients = [now @ weighted]
        for k in range(order):
            before, now = now, (rule.z * now - math.sqrt(k) * before) / math.sqrt(k + 1)
            coefficients.append(now @ weighted)
        found = torch.stack(coefficients)
        total = rule.expect(values.square())
        return cls(found, total - found.square().mean(1).sum().item())

    @property
    def powers(self) -> Tensor:
        """`a_k^2`, averaged over channels, `(K + 1,)`."""
        return self.coefficients.square().mean(1)

    def product(self, c: Tensor, other: Hermite | None = None) -> Tensor:
        """Return `E[phi(U) psi(V)]` at correlations `c`, any shape, float64; `psi` is `phi` itself by default."""
        terms = self.powers if other is None else (self.coefficients * other.coefficients).mean(1)
        return c[..., None] ** torch.arange(len(terms), dtype=c.dtype) @ terms

    def bound(self, c: float) -> float:
        """Return the largest error that `product` can have at a correlation, `|c|^(K + 1) (E[phi^2] - sum a_k^2)`."""
        return abs(c) ** len(self.coefficients) * max(self.rest, 0.0)
