"""Gaussian moments of an activation and the gains that follow from them (mean-field theory of wide networks)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._card.function import function_of
from softknee._card.quadrature import integrate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softknee._card.quadrature import Quadrature

    Activation = str | Callable[[Tensor], Tensor] | Any


@dataclass(frozen=True)
class Moments:
    """Moments of an activation under `z ~ N(mean, q)`.

    Attributes:
        square: `E[phi(z)^2]`.
        slope_square: `E[phi'(z)^2]`.
        mean: `E[phi(z)]`.
        growth: The derivative of `E[phi(z)^2]` by `q`: `E[phi'^2 + phi'' phi]`, with what kinks contribute.
    """

    square: float
    slope_square: float
    mean: float
    growth: float

    @property
    def variance(self) -> float:
        """Of `phi(z)`."""
        return max(self.square - self.mean**2, 0.0)

    @classmethod
    def of(cls, rule: Quadrature) -> Moments:
        """Return the moments that a rule gives."""
        return cls(rule.square, rule.slope_square, rule.first, rule.growth)


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

    @classmethod
    def of(cls, at_one: Moments) -> Gain:
        """Return the gains that moments at unit variance give."""
        chi = at_one.slope_square / at_one.square if at_one.square else math.inf
        return cls(_inverse_root(at_one.square), _inverse_root(at_one.slope_square), chi, valid=0.5 <= chi <= 2)


def gain(activation: Activation, *, channels: int = 1) -> Gain:
    """Return the forward and backward gain of an activation at its present parameters.

    Args:
        activation: A module or function from tensor to tensor of the same shape. A module is evaluated as a float64
            copy in eval mode and stays as it is. Or a text, as the command line takes it.
        channels: How many channels to average over, for an activation with per-channel parameters.

    Returns:
        The gains; infinite where a moment is zero, zero where it is infinite or not a number.

    Raises:
        UsageError: As `moments`.
    """
    return Gain.of(moments(activation, channels=channels))


def moments(activation: Activation, *, q: float = 1.0, mean: float = 0.0, channels: int = 1) -> Moments:
    """Integrate an activation, its square and that of its derivative against a normal density, in float64.

    Args:
        activation: As in `gain`.
        q: Variance of the normal density, positive.
        mean: Of the normal density.
        channels: As in `gain`.

    Returns:
        The moments, to about 1e-13 relative for piecewise smooth functions: kinks need not be declared.

    Raises:
        UsageError: `q` is not positive, or the activation is no function of single elements.
    """
    return Moments.of(integrate(function_of(activation, channels=channels), q, mean))


def _inverse_root(value: float) -> float:
    return value**-0.5 if value > 0 else (math.inf if value == 0 else 0.0)
