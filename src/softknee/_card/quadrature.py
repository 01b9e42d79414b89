"""Integrals against a normal density, in float64: the one rule that everything about a function is computed with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from softknee._card.function import Function

# Standard deviations beyond which the normal density is below 1e-36.
REACH = 13.0
NODES = 24
TOLERANCE = 1e-14
# Panels are halved at most this often, and at most this many are refined at once; a jump needs about 45 halvings.
ROUNDS = 60
MOST_PANELS = 20_000
_FIELDS = ("z", "x", "weights", "value", "slope")


@dataclass(frozen=True)
class Quadrature:
    """A function and its slope at the nodes of a rule for `E[g(mean + sqrt(q) Z)]`, `Z ~ N(0, 1)`.

    Attributes:
        q: Variance of the normal density.
        mean: Of the normal density.
        z: Nodes in standard deviations, `(n,)`.
        x: Nodes, `mean + sqrt(q) z`.
        weights: With the density, `(n,)`; they add up to 1.
        value: `phi(x)`, `(n, channels)`.
        slope: `phi'(x)` as autograd takes it, likewise.
        panels: Between which ends the rule works, in `x`, `(panels, 2)`.
    """

    q: float
    mean: float
    z: Tensor
    x: Tensor
    weights: Tensor
    value: Tensor
    slope: Tensor
    panels: Tensor

    def expect(self, values: Tensor) -> float:
        """Return the expectation of values at the nodes, `(n,)` or `(n, channels)`, averaged over channels."""
        values = values.mean(1) if values.dim() == 2 else values
        # Where the density underflows, even a function that overflows contributes nothing.
        return torch.where(self.weights > 0, values * self.weights, 0.0).sum().item()

    @cached_property
    def first(self) -> float:
        """`E[phi]`."""
        return self.expect(self.value)

    @cached_property
    def square(self) -> float:
        """`E[phi^2]`."""
        return self.expect(self.value.square())

    @cached_property
    def slope_square(self) -> float:
        """`E[phi'^2]`."""
        return self.expect(self.slope.square())

    @cached_property
    def growth(self) -> float:
        """The derivative of `E[phi^2]` by `q`, which is `E[phi^2 (z^2 - 1)] / (2 q)`.

        It equals `E[phi'^2] + E[phi'' phi]` with what kinks contribute to the second term.
        """
        return self.expect(self.value.square() * (self.z.square() - 1)[:, None]) / (2 * self.q)


def integrate(function: Function, q: float = 1.0, mean: float = 0.0, kinks: Iterable[float] = ()) -> Quadrature:
    """Make a rule that integrates a function, its square and the square of its slope.

    Gauss-Lobatto panels between the kinks, over 13 standard deviations, are bisected until each agrees with its two
    halves. So kinks that nobody declared cost time but no accuracy, however close to each other they are, and fast
    oscillation is resolved. The rule has nodes at both ends of a panel, just inside: between an end and the first
    node of another rule, a jump could hide.

    Args:
        function: To integrate.
        q: Variance of the normal density, positive.
        mean: Of the normal density.
        kinks: Where the function or its slope are known to jump, besides those it declares.

    Returns:
        The rule, good to about 1e-13 relative for piecewise smooth functions that grow no faster than `exp` there.

    Raises:
        UsageError: `q` is not positive, or one of the numbers is not finite.
    """
    if not (q > 0 and math.isfinite(q)):
        raise UsageError(f"q must be a positive variance, got {q}")
    if not math.isfinite(mean):
        raise UsageError(f"mean must be finite, got {mean}")
    edges = _edges(q, mean, (*function.declared, *kinks))
    panels = torch.stack([edges[:-1], edges[1:]], dim=1)
    coarse = _Panels.of(function, panels, q, mean)
    accepted: list[_Panels] = []
    done = torch.zeros(3, dtype=torch.float64)
    for _ in range(ROUNDS):
        middle = panels.mean(1)
        halves = torch.stack([torch.stack([panels[:, 0], middle], 1), torch.stack([middle, panels[:, 1]], 1)], 1)
        fine = _Panels.of(function, halves.reshape(-1, 2), q, mean)
        sums = fine.sums.view(-1, 2, 3)
        scale = done + sums.sum((0, 1))
        # The mean may be 0; it is measured by the root of the mean square.
        scale[0] = scale[1].clamp_min(0).sqrt()
        rough = ((sums.sum(1) - coarse.sums).abs() > TOLERANCE * scale).any(1)
        both = rough.repeat_interleave(2)
        accepted.append(fine.those(~both))
        done = done + sums[~rough].sum((0, 1))
        coarse = fine.those(both)
        panels = coarse.panels
        if not 0 < len(panels) <= MOST_PANELS:
            break
    parts = [part for part in (*accepted, coarse) if len(part.panels)]
    joined = {name: torch.cat([getattr(part, name).flatten(0, 1) for part in parts]) for name in _FIELDS}
    return Quadrature(q=q, mean=mean, panels=torch.cat([part.panels for part in parts]), **joined)


@dataclass(frozen=True)
class _Panels:
    """A function at the nodes of some panels; `(panels, nodes)` or `(panels, nodes, channels)`."""

    panels: Tensor
    z: Tensor
    x: Tensor
    weights: Tensor
    value: Tensor
    slope: Tensor
    sums: Tensor

    @classmethod
    def of(cls, function: Function, panels: Tensor, q: float, mean: float) -> _Panels:
        """Evaluate and integrate over each panel."""
        nodes, weights = lobatto()
        half = (panels[:, 1] - panels[:, 0]) / 2
        x = panels.mean(1)[:, None] + half[:, None] * nodes
        # A kink at an end belongs to neither side.
        x[:, 0] = torch.nextafter(panels[:, 0], panels[:, 1])
        x[:, -1] = torch.nextafter(panels[:, 1], panels[:, 0])
        z = (x - mean) / math.sqrt(q)
        value, slope = (one.view(*x.shape, -1) for one in function.derivatives(x.reshape(-1), 1))
        density = weights * torch.exp(-z.square() / 2) * (half / math.sqrt(2 * math.pi * q))[:, None]
        integrands = torch.stack([value.mean(2), value.square().mean(2), slope.square().mean(2)], dim=2)
        sums = torch.where(density[..., None] > 0, integrands * density[..., None], 0.0).sum(1)
        return cls(panels, z, x, density, value, slope, sums)

    def those(self, mask: Tensor) -> _Panels:
        """Return some of the panels."""
        return _Panels(*(one[mask] for one in vars(self).values()))


def _edges(q: float, mean: float, kinks: Iterable[float]) -> Tensor:
    deviation = math.sqrt(q)
    low, high = mean - REACH * deviation, mean + REACH * deviation
    whole = [mean + step * deviation for step in range(-int(REACH), int(REACH) + 1)]
    return torch.tensor(sorted({*whole, *(kink for kink in kinks if low < kink < high)}), dtype=torch.float64)


@lru_cache(maxsize=1)
def lobatto() -> tuple[Tensor, Tensor]:
    """Return the nodes and weights of the Gauss-Lobatto rule on [-1, 1]."""
    polynomial = np.polynomial.Legendre.basis(NODES - 1)
    nodes = np.concatenate([[-1.0], polynomial.deriv().roots(), [1.0]])
    weights = 2 / (NODES * (NODES - 1) * polynomial(nodes) ** 2)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
