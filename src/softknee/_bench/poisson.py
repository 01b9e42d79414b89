"""A differential equation as a task: the loss is made of second derivatives of the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import torch

from softknee._bench.examples import Points
from softknee._bench.generated import Regression, hashed
from softknee._bench.task import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from softknee._bench.domain import Domain
    from softknee._bench.runs import Split

# Points of an edge, and the weight of the mean square on all edges.
EDGE, BOUNDARY = 25, 100.0


def solution(points: Tensor) -> Tensor:
    r"""Return $u = \sin \pi x_1 \sin \pi x_2 + \tfrac12 \sin 4 \pi x_1 \sin 3 \pi x_2$, zero on all edges.

    Args:
        points: `(n, 2)`, any floating dtype.

    Returns:
        `(n, 1)`.
    """
    return _waves(points, 1.0, 0.5)


def forcing(points: Tensor) -> Tensor:
    r"""Return $f = -\Delta u$ of `solution`: each wave times the sum of its squared frequencies.

    Args:
        points: `(n, 2)`, any floating dtype.

    Returns:
        `(n, 1)`.
    """
    return _waves(points, 2 * pi**2, 25 * pi**2 / 2)


def laplacian(outputs: Tensor, points: Tensor) -> Tensor:
    r"""Return $\Delta u$ at each point, with a graph of its own to train through.

    Args:
        outputs: $u$, `(n, 1)`, each row from the same row of `points`.
        points: `(n, axes)`, which require a gradient.

    Returns:
        `(n, 1)`; zero where the derivative does not depend on the point.
    """
    (slopes,) = torch.autograd.grad(outputs.sum(), points, create_graph=True)
    bends = [
        torch.autograd.grad(slope.sum(), points, create_graph=True, materialize_grads=True)[0][:, axis]
        for axis, slope in enumerate(slopes.unbind(1))
    ]
    return torch.stack(bends).sum(0)[:, None]


@dataclass(frozen=True, kw_only=True)
class Equation(Points):
    r"""New points for every step: the mean square of $\Delta u + f$ there, and that of $u$ on the edges, weighted.

    The solution is in no loss. It is what outputs are scored by.

    Attributes:
        right: $f$, `(n, axes)` to `(n, 1)`.
        edges: Points on the edges, `(m, axes)`.
    """

    right: Callable[[Tensor], Tensor]
    edges: Tensor

    def objective(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the model is from solving the equation, and its outputs; gradients may be off outside.

        Args:
            model: To train; it treats each point by itself.
            inputs: Points.
            targets: The solution there, which the loss does not know.

        Returns:
            The loss, and `model(inputs)`.
        """
        del targets
        with torch.enable_grad():
            points = inputs.detach().requires_grad_()
            outputs: Tensor = model(points)
            residual = laplacian(outputs, points) + self.right(inputs)
            return residual.square().mean() + BOUNDARY * model(self.edges).square().mean(), outputs


@dataclass(frozen=True)
class Poisson(Regression):
    r"""$-\Delta u = f$ with zero on the edges: a `Regression` whose function is known from its equation alone.

    Attributes:
        right: $f$, `(n, axes)` to `(n, 1)`.
    """

    right: Callable[[Tensor], Tensor]

    def facts(self, source: str) -> Facts:
        """Return how large the grid is, and what the equation is."""
        low, high = self.domain.low, self.domain.high
        about = (
            f"u = {self.formula} solves -Laplace u = f on the square from {low:g} to {high:g}, zero on its edges. "
            f"Every step draws new points evenly; its loss is the mean square of Laplace u + f there, and {BOUNDARY:g} "
            f"times that of u at {4 * EDGE} points on the edges. R² is against u, on a fixed grid of {self.grid} x "
            f"{self.grid} points; so are test losses, and training losses are those of the steps."
        )
        fingerprint = hashed(self.name, self.formula, low, high, self.grid, EDGE, BOUNDARY)
        return Facts(source, fingerprint, None, self.grid**2, about)

    def load(self, source: str, split: Split) -> Equation:
        """Return the points; see `Regression.load`."""
        points = super().load(source, split)
        return Equation(**vars(points), right=self.right, edges=_edges(self.domain))


def _waves(points: Tensor, first: float, second: float) -> Tensor:
    x, y = (pi * points).unbind(1)
    return (first * x.sin() * y.sin() + second * (4 * x).sin() * (3 * y).sin())[:, None]


def _edges(domain: Domain) -> Tensor:
    """Return even points on the four edges, `(4 EDGE, 2)`."""
    along = torch.linspace(domain.low, domain.high, EDGE)
    ends = [torch.full_like(along, end) for end in (domain.low, domain.high)]
    sides = [torch.stack(pair, 1) for end in ends for pair in ((along, end), (end, along))]
    return torch.cat(sides)
