"""How the correlation of two inputs changes from layer to layer, computed in `1 - c`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._card.hermite import Hermite
from softknee._card.pairs import fine_ends, pair
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.function import Function
    from softknee._card.pairs import Pair
    from softknee._card.quadrature import Quadrature

# Correlations up to which a series of 400 terms is as good as exact, for what it leaves out is below 1e-18.
ALIKE = 0.9
# Chebyshev panels in log(1 - c), from the smallest difference looked at to where the series takes over.
CLOSEST, FARTHEST = 1e-16, 1.01 * (1 - ALIKE)
PANELS, POINTS = 15, 14


@dataclass(frozen=True)
class Correlation:
    """Two normal inputs of the same variance through an activation.

    Attributes:
        function: The activation.
        breaks: Where it or its slope jumps.
        rule: At the variance.
    """

    function: Function
    breaks: Sequence[float]
    rule: Quadrature

    def pair(self, one_minus_c: float) -> Pair:
        """Return the expectations over two inputs, at one minus their correlation."""
        return pair(self.function, self.breaks, one_minus_c, self.rule.q, fine=self._fine)

    def step(self, one_minus_c: float, sigma_w2: float, sigma_b2: float) -> float:
        """Return `1 - c'` after a layer, at `1 - c` before it."""
        if one_minus_c <= 0:
            return 0.0
        near = abs(1 - one_minus_c) > ALIKE
        apart = self.pair(one_minus_c).apart if near else self._by_series(one_minus_c)
        return sigma_w2 * apart / (sigma_w2 * self.rule.square + sigma_b2)

    def iterate(self, one_minus_c: float, depth: int, sigma_w2: float, sigma_b2: float) -> list[float]:
        """Return `1 - c` before and after each of many layers, from an interpolation made once.

        Args:
            one_minus_c: At the start.
            depth: How many layers.
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.

        Returns:
            `depth + 1` numbers; steps are good to about 1e-12 of themselves.
        """
        factor = sigma_w2 / (sigma_w2 * self.rule.square + sigma_b2)
        found = [one_minus_c]
        for _ in range(depth):
            found.append(min(max(factor * self._apart(found[-1]), 0.0), 2.0))
        return found

    def _apart(self, one_minus_c: float) -> float:
        """Return `E[(phi(U) - phi(V))^2] / 2`, interpolated."""
        if one_minus_c <= CLOSEST:
            return one_minus_c * self.rule.q * self.rule.slope_square
        if abs(1 - one_minus_c) <= ALIKE:
            return self._by_series(one_minus_c)
        if one_minus_c > 1:
            return self.pair(one_minus_c).apart
        low, width, table = self._table
        place = (math.log(one_minus_c) - low) / width
        panel = min(int(place), PANELS - 1)
        at = 2 * (place - panel) - 1
        # Clenshaw's recurrence.
        last = now = 0.0
        coefficients = table[panel]
        for coefficient in coefficients[:0:-1]:
            now, last = coefficient + 2 * at * now - last, now
        return one_minus_c * (coefficients[0] + at * now - last)

    def _by_series(self, one_minus_c: float) -> float:
        return self.rule.square - self.series.product(torch.tensor(1 - one_minus_c, dtype=torch.float64)).item()

    @cached_property
    def series(self) -> Hermite:
        """Hermite coefficients at the variance."""
        return Hermite.of(self.rule)

    @cached_property
    def _fine(self) -> tuple[float, ...]:
        return fine_ends(self.rule)

    @cached_property
    def _table(self) -> tuple[float, float, list[list[float]]]:
        """Return where panels begin, their width, and Chebyshev coefficients of `apart / (1 - c)` on each."""
        low, high = math.log(CLOSEST), math.log(FARTHEST)
        width = (high - low) / PANELS
        nodes = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
        table = []
        for panel in range(PANELS):
            places = np.exp(low + width * (panel + (nodes + 1) / 2)).tolist()
            ratios = [self.pair(place).apart / place for place in places]
            table.append(np.polynomial.chebyshev.chebfit(nodes, ratios, POINTS - 1).tolist())
        return low, width, table


def check_correlation(c: float) -> None:
    """Refuse what is no correlation.

    Raises:
        UsageError: It is not between -1 and 1.
    """
    if not -1 <= c <= 1:
        raise UsageError(f"c must be a correlation between -1 and 1, got {c}")
