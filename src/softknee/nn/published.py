"""DiTAC as the published code trains it, for those who want to repeat its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from softknee import nn as activations
from softknee._errors import OptionError
from softknee.cpab import theta_of, velocities_of
from softknee.functional._flow_prior import SMOOTHNESS, VARIANCE, basis, draw_smooth, precision_of_theta

if TYPE_CHECKING:
    from softknee.nn.activation import Activation

# `lambda_reg_loss` of the published code.
PENALTY = 0.1


class PublishedTheta(nn.Module):
    r"""Coordinates $\theta$ of a field, with the gradient that the published code gives them.

    That is $(N - 1)\,\nabla_\theta L + 2 \lambda\,(\mathbf 1^\top \Sigma^{-1}) \circ \theta$ for N cells: its prior is
    an elementwise product of a matrix with the vector, and autograd sums the rows of what comes out.

    Args:
        cells: N.
        interval: Of the field.
        smoothness: `lambda_smooth`.
        variance: `lambda_var`.
        penalty: $\lambda$.
    """

    basis: Tensor
    pull: Tensor

    def __init__(
        self, cells: int, interval: tuple[float, float], smoothness: float, variance: float, penalty: float
    ) -> None:
        super().__init__()
        self.interval = interval
        self.register_buffer("basis", basis(cells - 1)[0].float())
        pull = 2 * penalty * precision_of_theta(cells - 1, smoothness, variance).sum(0)
        self.register_buffer("pull", pull.float())

    def forward(self, theta: Tensor) -> Tensor:
        """Return the velocities at the inner knots."""
        followed = theta.clone()
        if followed.requires_grad:
            pull = self.pull * theta.detach()
            followed.register_hook(lambda gradient: len(theta) * gradient + pull)
        return velocities_of(followed, self.basis, self.interval)[1:-1].contiguous()

    def right_inverse(self, velocities: Tensor) -> Tensor:
        """Return the coordinates of a field."""
        return theta_of(nn.functional.pad(velocities, (1, 1)), self.basis, self.interval)


def published_ditac(
    *,
    cells: int = 10,
    interval: tuple[float, float] = (-0.5, 2.0),
    smoothness: float = SMOOTHNESS,
    variance: float = VARIANCE,
    penalty: float = PENALTY,
    generator: torch.Generator | None = None,
) -> Activation:
    r"""Return a DiTAC that starts and is trained as the published code has it, its defects included.

    It is trained by orthonormal coordinates $\theta$ of the field rather than by velocities, drawn from the published
    prior, and its gradient is multiplied by N - 1, 9 by default, plus a pull by the prior that is none of a loss; see
    `PublishedTheta`. The function itself is evaluated exactly, where the published one is piecewise constant. The basis
    is orthonormal but not bit by bit that of another machine, as theirs is not. It is saved by its state dict.

    Args:
        cells: N.
        interval: Where the input is warped.
        smoothness: `lambda_smooth` and `lambda_smooth_init`.
        variance: `lambda_var` and `lambda_var_init`.
        penalty: `lambda_reg_loss`.
        generator: Source of the drawn coordinates, torch's global one by default.

    Returns:
        The module; `parametrizations.velocities.original` is $\theta$.

    Raises:
        OptionError: There are fewer than two cells, the interval is not in order, or a number is not as described.
    """
    if not isinstance(cells, int) or cells < 2:
        raise OptionError(f"cells must be an integer of at least 2, got {cells!r}")
    if not (0 < smoothness < math.inf and 0 < variance < math.inf and math.isfinite(penalty)):
        raise OptionError(
            "smoothness and variance must be positive and penalty finite, "
            f"got {smoothness:g}, {variance:g} and {penalty:g}"
        )
    low, high = interval
    velocities = (high - low) * draw_smooth(cells - 1, generator, smoothness=smoothness, variance=variance)
    module = activations.DiTAC(low=float(low), high=float(high), velocities=velocities)
    theta = PublishedTheta(cells, (low, high), smoothness, variance, penalty)
    parametrize.register_parametrization(module, "velocities", theta)
    return cast("Activation", module)
