"""Gaussian moments of an activation and the gains that follow from them (mean-field theory of wide networks)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# Standard deviations beyond which the normal density is below 1e-36.
REACH = 13.0
NODES = 24
TOLERANCE = 1e-14
# Panels are halved at most this often, and at most this many are refined at once; a jump needs about 45 halvings.
ROUNDS = 60
MOST_PANELS = 20_000


@dataclass(frozen=True)
class Moments:
    """Second moments of an activation under `z ~ N(0, q)`.

    Attributes:
        square: `E[phi(z)^2]`.
        slope_square: `E[phi'(z)^2]`.
    """

    square: float
    slope_square: float


@dataclass(frozen=True)
class Gain:
    """Weight scales that keep a variance, for unit-variance pre-activations.

    Attributes:
        forward: `E[phi^2]^(-1/2)` keeps the variance of the signal (He et al. 2015).
        backward: `E[phi'^2]^(-1/2)` keeps the variance of the gradient.
        chi: `E[phi'^2] / E[phi^2]`, by which the gradient's variance changes in a layer scaled by the forward gain
            (chi_1 of Poole et al. 2016 and Schoenholz et al. 2017).
        valid: Whether `1/2 <= chi <= 2`, so that one scale keeps both within a factor of two a layer.
    """

    forward: float
    backward: float
    chi: float
    valid: bool


def gain(activation: Callable[[Tensor], Tensor], *, channels: int = 1) -> Gain:
    """Return the forward and backward gain of an activation at its present parameters.

    Args:
        activation: A module or function from tensor to tensor of the same shape. A module is evaluated as a float64
            copy in eval mode and stays as it is.
        channels: How many channels to average over, for an activation with per-channel parameters.

    Returns:
        The gains; infinite where a moment is zero, zero where it is infinite or not a number.

    Raises:
        UsageError: As `moments`.
    """
    at_one = moments(activation, channels=channels)
    forward, backward = _inverse_root(at_one.square), _inverse_root(at_one.slope_square)
    chi = at_one.slope_square / at_one.square if at_one.square else math.inf
    return Gain(forward, backward, chi, valid=0.5 <= chi <= 2)


def moments(activation: Callable[[Tensor], Tensor], *, q: float = 1.0, channels: int = 1) -> Moments:
    """Integrate the squares of an activation and of its derivative against a normal density, in float64.

    Gauss-Lobatto panels over 13 standard deviations are bisected until each agrees with its two halves, so kinks need
    not be declared, and fast oscillation is resolved. The rule has nodes at both ends of a panel: between an end and
    the first node of another rule, a jump could hide.

    Args:
        activation: As in `gain`.
        q: Variance of the normal density, positive.
        channels: As in `gain`.

    Returns:
        The moments, to about 1e-13 relative for piecewise smooth functions.

    Raises:
        UsageError: `q` is not positive.
    """
    if not q > 0:
        raise UsageError(f"q must be a positive variance, got {q}")
    evaluate = copy.deepcopy(activation).double().eval() if isinstance(activation, nn.Module) else activation
    done = torch.zeros(2, dtype=torch.float64)
    edges = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    panels = torch.stack([edges[:-1], edges[1:]], dim=1)
    coarse = _integrate(evaluate, panels, q, channels)
    for _ in range(ROUNDS):
        middle = panels.mean(1)
        halves = torch.stack([torch.stack([panels[:, 0], middle], 1), torch.stack([middle, panels[:, 1]], 1)], 1)
        fine = _integrate(evaluate, halves.reshape(-1, 2), q, channels).view(-1, 2, 2)
        scale = done + fine.sum((0, 1))
        rough = ((fine.sum(1) - coarse).abs() > TOLERANCE * scale).any(1)
        done = done + fine[~rough].sum((0, 1))
        panels, coarse = halves[rough].reshape(-1, 2), fine[rough].reshape(-1, 2)
        if not 0 < len(panels) <= MOST_PANELS:
            break
    square, slope_square = (done + coarse.sum(0)).tolist()
    return Moments(square, slope_square)


def _integrate(evaluate: Callable[[Tensor], Tensor], panels: Tensor, q: float, channels: int) -> Tensor:
    """Return both integrals over each panel, `(panels, 2)`."""
    nodes, weights = _lobatto()
    half = (panels[:, 1] - panels[:, 0]) / 2
    z = panels.mean(1)[:, None] + half[:, None] * nodes
    with torch.enable_grad():
        x = (math.sqrt(q) * z).reshape(-1, 1).expand(-1, channels).clone().requires_grad_()
        y = evaluate(x)
        (slope,) = torch.autograd.grad(y.sum(), x, allow_unused=True) if y.requires_grad else (None,)
    slope = torch.zeros_like(x) if slope is None else slope
    squares = torch.stack([y.detach().square().mean(1), slope.square().mean(1)], dim=1).view(len(panels), NODES, 2)
    density = weights * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * half[:, None]
    # Where the density underflows, even a function that overflows contributes nothing.
    return torch.where(density[..., None] > 0, squares * density[..., None], 0.0).sum(1)


@lru_cache(maxsize=1)
def _lobatto() -> tuple[Tensor, Tensor]:
    polynomial = np.polynomial.Legendre.basis(NODES - 1)
    nodes = np.concatenate([[-1.0], polynomial.deriv().roots(), [1.0]])
    weights = 2 / (NODES * (NODES - 1) * polynomial(nodes) ** 2)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _inverse_root(value: float) -> float:
    return value**-0.5 if value > 0 else (math.inf if value == 0 else 0.0)
