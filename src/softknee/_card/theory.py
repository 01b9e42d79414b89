"""The theory of wide networks of one activation, as methods of a card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from softknee._card import kernel as kernels
from softknee._card.correlation import check_correlation
from softknee._card.hermite import Hermite
from softknee._card.kinks import kinks_of
from softknee._card.meanfield import MeanField, check_variances
from softknee._card.propagation import Gain
from softknee._card.shaping import TAU, ZETA, dks, tat
from softknee._errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._card.function import Function
    from softknee._card.kinks import Kink
    from softknee._card.meanfield import DepthScales, Edge, EdgeRate, FixedPoint, SelfNormalising
    from softknee._card.propagation import Moments
    from softknee._card.shaping import Shaped


@dataclass(frozen=True, eq=False, repr=False)
class Theory:
    """What follows from the Gaussian moments of an activation; each number is computed at its first use and kept.

    Attributes:
        function: What is evaluated, in float64.
    """

    function: Function

    @cached_property
    def kinks(self) -> tuple[Kink, ...]:
        """Where the value, the slope or the second derivative jumps."""
        return kinks_of(self.function)

    @cached_property
    def field(self) -> MeanField:
        """The mean-field theory of the activation, for more than the methods here give."""
        return MeanField(self.function, self.kinks)

    @cached_property
    def gains(self) -> Gain:
        """Forward and backward gain, their ratio, and whether one scale suits both directions."""
        return Gain.of(self.moments())

    @property
    def gain(self) -> float:
        """`E[phi(z)^2]^(-1/2)`, `z` standard normal: weights of deviation `gain / sqrt(inputs)` keep the variance."""
        return self.gains.forward

    @property
    def backward_gain(self) -> float:
        """`E[phi'(z)^2]^(-1/2)`: the same for the variance of gradients."""
        return self.gains.backward

    def moments(self, q: float = 1.0, mean: float = 0.0) -> Moments:
        """Return the moments of the activation for a normal input.

        Args:
            q: Its variance, positive.
            mean: Its mean.

        Returns:
            `E[phi]`, `E[phi^2]`, `E[phi'^2]` and the derivative of `E[phi^2]` by `q`.

        Raises:
            UsageError: `q` is not positive.
        """
        return self.field.moments(q, mean)

    def hermite(self, q: float = 1.0, order: int = 400) -> Hermite:
        """Return coefficients by normalised Hermite polynomials, of `phi(sqrt(q) z)`.

        Args:
            q: Variance of the input.
            order: Of the last one.

        Returns:
            The coefficients; `bound` says how far a correlation map by them may be off.

        Raises:
            UsageError: `q` is not positive, or `order` is negative.
        """
        if order < 0:
            raise UsageError(f"order must be at least 0, got {order}")
        return Hermite.of(self.field.rule(q), order=order)

    def linear_r2(self, q: float = 1.0) -> float:
        """Return how much of the output's variance a straight line explains, for a normal input.

        Args:
            q: Variance of the input.

        Returns:
            `Cov(z, phi)^2 / (Var z Var phi)`: 1 for a linear function, 0.73347 for ReLU; NaN for a constant.

        Raises:
            UsageError: `q` is not positive.
        """
        first = self.hermite(q, 1).coefficients
        rule = self.field.rule(q)
        variance = rule.square - first[0].square().mean().item()
        return first[1].square().mean().item() / variance if variance > 0 else math.nan

    def finite_width(self, q: float = 1.0) -> float:
        """Return how much layers of finite width differ: `n` times the variance of the mean square behind one of them.

        A layer of `n` units multiplies the energy `|phi(z)|^2` by a random factor of mean 1 and variance
        `finite_width / n` (its mean taken as 1): for He-initialised ReLU layers 5 (Hanin 2018). What counts in a deep
        network is thus depth over width.

        Args:
            q: Variance of the pre-activations.

        Returns:
            `E[phi^4] / E[phi^2]^2 - 1`.

        Raises:
            UsageError: `q` is not positive.
        """
        rule = self.field.rule(q)
        return rule.expect(rule.value**4) / rule.square**2 - 1 if rule.square > 0 else math.nan

    def chi(self, sigma_w2: float, q: float = 1.0) -> float:
        """Return `chi_1 = sigma_w2 E[phi'^2]`: what a layer multiplies the variance of gradients by.

        Below 1, gradients vanish and inputs become alike (order); above, they explode and are torn apart (chaos).

        Args:
            sigma_w2: Variance of the weights times the number of inputs.
            q: Variance of the input.

        Returns:
            The factor (Poole et al. 2016, Schoenholz et al. 2017).

        Raises:
            UsageError: A variance is out of range.
        """
        return self.field.chi(sigma_w2, q)

    def variance_map(self, q: float, sigma_w2: float, sigma_b2: float = 0.0) -> float:
        """Return the variance behind a layer, `sigma_w2 E[phi^2] + sigma_b2`.

        Args:
            q: Variance before it.
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.

        Returns:
            The variance (Poole et al. 2016).

        Raises:
            UsageError: A variance is out of range.
        """
        return self.field.variance_map(q, sigma_w2, sigma_b2)

    def correlation_map(self, c: float, sigma_w2: float, sigma_b2: float = 0.0, q: float = 1.0) -> float:
        """Return the correlation of two inputs behind a layer.

        Args:
            c: Before it, from -1 to 1.
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.
            q: Variance of both inputs; a fixed point of the variance map for a map that can be iterated.

        Returns:
            `(sigma_w2 E[phi(u) phi(v)] + sigma_b2) / (sigma_w2 E[phi^2] + sigma_b2)`.

        Raises:
            UsageError: An argument is out of range.
        """
        return self.field.correlation_map(c, sigma_w2, sigma_b2, q)

    def correlations(self, c: float, depth: int, sigma_w2: float, sigma_b2: float = 0.0, q: float = 1.0) -> list[float]:
        """Return one minus the correlation of two inputs before and behind each of many layers.

        It is iterated in `1 - c`, so that nothing is lost where inputs are almost alike.

        Args:
            c: At the start.
            depth: How many layers.
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.
            q: Variance of both inputs, a fixed point of the variance map.

        Returns:
            `depth + 1` values of `1 - c`.

        Raises:
            UsageError: An argument is out of range.
        """
        check_variances(sigma_w2, sigma_b2)
        check_correlation(c)
        if depth < 0:
            raise UsageError(f"depth must be at least 0, got {depth}")
        return self.field.correlation(q).iterate(1 - c, depth, sigma_w2, sigma_b2)

    def fixed_points(self, sigma_w2: float, sigma_b2: float = 0.0) -> tuple[FixedPoint, ...]:
        """Return the variances that a layer keeps, stable or not.

        Args:
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.

        Returns:
            Those from 1e-8 to 1e6, and 0, ascending; one marked `every` where all are kept.

        Raises:
            UsageError: A variance is out of range.
        """
        return self.field.fixed_points(sigma_w2, sigma_b2)

    def depth_scales(self, sigma_w2: float, sigma_b2: float = 0.0) -> DepthScales | None:
        """Return over how many layers correlations and variances settle, where a variance of 1 leads to.

        Args:
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.

        Returns:
            The scales (Schoenholz et al. 2017); None where the variance grows without end.

        Raises:
            UsageError: A variance is out of range.
        """
        return self.field.depth_scales(sigma_w2, sigma_b2)

    def edge_of_chaos(self, q: float = 1.0) -> Edge | None:
        """Return the weights and biases that keep the variance `q` and gradients alike.

        Args:
            q: Variance of the pre-activations.

        Returns:
            `(sigma_w2, sigma_b2)` with `sigma_w2 = 1 / E[phi'^2]` and `sigma_b2 = q - sigma_w2 E[phi^2]` (Hayou et al.
            2019); None where there is none, of which `no_edge` gives the reason.

        Raises:
            UsageError: `q` is not positive.
        """
        return self.field.edge_of_chaos(q)

    def no_edge(self, q: float = 1.0) -> str:
        """Return why there is no edge of chaos at a variance; empty where there is one.

        Args:
            q: Variance of the pre-activations.

        Returns:
            A sentence or two.

        Raises:
            UsageError: `q` is not positive.
        """
        return self.field.no_edge(q)

    def edge_rate(self, q: float = 1.0) -> EdgeRate | None:
        """Return how slowly inputs become alike on the edge of chaos.

        Args:
            q: Variance of the pre-activations.

        Returns:
            Power and coefficient of `1 - c_l ~ coefficient / l^power`; for ReLU 2 and `9 pi^2 / 2` (Hayou et al. 2019).
            None where there is no edge.

        Raises:
            UsageError: `q` is not positive.
        """
        return self.field.edge_rate(q)

    def self_normalising(self) -> SelfNormalising:
        """Return whether mean 0 and variance 1 are kept and drawn near, as by SELU (Klambauer et al. 2017)."""
        return self.field.self_normalising()

    def kernel(self, inputs: Tensor, depth: int, sigma_w2: float, sigma_b2: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the kernels of an infinitely wide network: NNGP and NTK.

        Args:
            inputs: `(samples, features)`.
            depth: Number of layers of the activation.
            sigma_w2: Variance of the weights times the number of inputs.
            sigma_b2: Variance of the biases.

        Returns:
            Two `(samples, samples)` tensors in float64.

        Raises:
            UsageError: An argument is not as it should be.
        """
        return kernels.kernel(self.field, inputs, depth, sigma_w2, sigma_b2)

    def dks(self, depth: int, *, zeta: float = ZETA) -> Shaped:
        """Return the scales and shifts of Deep Kernel Shaping (Martens et al. 2021) for a chain of layers.

        Args:
            depth: Layers in the chain.
            zeta: Slope of the chain's correlation map at 1.

        Returns:
            Scales and shifts of input and output.

        Raises:
            UsageError: An argument is out of range, or there are none.
        """
        return dks(self.function, depth, zeta=zeta)

    def tat(self, depth: int, *, tau: float = TAU) -> Shaped:
        """Return the scales and shifts of Tailored Activation Transformation (Zhang et al. 2022) for a chain of layers.

        Args:
            depth: Layers in the chain.
            tau: Curvature of the chain's correlation map at 1.

        Returns:
            Scales and shifts of input and output.

        Raises:
            UsageError: An argument is out of range, the activation has kinks, or there are none.
        """
        return tat(self.function, depth, tau=tau)
