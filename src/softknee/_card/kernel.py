"""Kernels of infinitely wide networks of one activation: of their outputs at random weights, and of their training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from softknee._card.function import function_of
from softknee._card.hermite import Hermite
from softknee._card.kinks import kinks_of
from softknee._card.meanfield import MeanField, check_variances
from softknee._card.pairs import fine_ends, pair
from softknee._errors import UsageError

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

# Series are used where what they leave out is below.
ENOUGH = 1e-14


def kernel(
    activation: Any, inputs: Tensor, depth: int, sigma_w2: float, sigma_b2: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the two kernels of an infinitely wide network, in float64.

    The network is `z_1 = W_1 x + b_1`, then `depth` times `z = W phi(z) + b`, with weights of variance
    `sigma_w2 / inputs` of their layer. In each layer, with `Sigma` and `Theta` from the one before,

        Sigma' = sigma_w2 E[phi(u) phi(v)] + sigma_b2,   Theta' = Sigma' + sigma_w2 E[phi'(u) phi'(v)] Theta

    (Neal 1996, Lee et al. 2018, Jacot et al. 2018), in the parameterisation in which weights are standard normal and
    multiplied by `sqrt(sigma_w2 / inputs)`, biases by `sqrt(sigma_b2)`. Expectations come from Hermite series where
    what they leave out is below 1e-14, and from a two-dimensional rule elsewhere.

    Args:
        activation: As in `softknee.card`, or a card's `MeanField`.
        inputs: `(samples, features)`.
        depth: Number of layers of the activation, at least 1.
        sigma_w2: Variance of the weights times the number of inputs.
        sigma_b2: Variance of the biases.

    Returns:
        The covariance of outputs at random weights (NNGP) and the neural tangent kernel (NTK), each
        `(samples, samples)`.

    Raises:
        UsageError: An argument is not as it should be.
    """
    check_variances(sigma_w2, sigma_b2)
    if depth < 1:
        raise UsageError(f"depth must be at least 1, got {depth}")
    if inputs.dim() != 2 or not inputs.numel():
        raise UsageError(f"inputs must be of shape (samples, features), got {tuple(inputs.shape)}")
    field = activation if isinstance(activation, MeanField) else _field(activation)
    x = inputs.detach().double().cpu()
    nngp = sigma_w2 * x @ x.T / x.shape[1] + sigma_b2
    ntk = nngp.clone()
    for _ in range(depth):
        products, slopes = _layer(field, nngp)
        nngp = sigma_w2 * products + sigma_b2
        ntk = nngp + sigma_w2 * slopes * ntk
    return nngp, ntk


def _field(activation: Any) -> MeanField:
    function = function_of(activation)
    return MeanField(function, kinks_of(function))


def _layer(field: MeanField, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return `E[phi phi]` and `E[phi' phi']` for normal inputs with a covariance matrix.

    Raises:
        UsageError: A variance is 0 or infinite.
    """
    variances = covariance.diag().tolist()
    if not all(0 < one < math.inf for one in variances):
        raise UsageError(f"an input has the variance {min(variances):g} in a layer; it must be positive and finite")
    series = [(Hermite.of(rule), Hermite.of(rule, rule.slope)) for rule in map(field.rule, variances)]
    ends = [fine_ends(field.rule(one)) for one in variances]
    products, slopes = torch.empty_like(covariance), torch.empty_like(covariance)
    for i, q in enumerate(variances):
        rule = field.rule(q)
        products[i, i], slopes[i, i] = rule.square, rule.slope_square
        for j in range(i):
            product, slope = _entry(
                field, q, variances[j], covariance[i, j].item(), series[i], series[j], (*ends[i], *ends[j])
            )
            products[i, j] = products[j, i] = product
            slopes[i, j] = slopes[j, i] = slope
    return products, slopes


def _entry(
    field: MeanField,
    q: float,
    other_q: float,
    covariance: float,
    first: tuple[Hermite, Hermite],
    second: tuple[Hermite, Hermite],
    fine: tuple[float, ...],
) -> tuple[float, float]:
    root = math.sqrt(q) * math.sqrt(other_q)
    c = max(-1.0, min(1.0, covariance / root))
    # By Cauchy and Schwarz, what two series leave out.
    left_out = [math.sqrt(a.bound(c) * b.bound(c)) for a, b in zip(first, second, strict=True)]
    if max(left_out) < ENOUGH:
        at = torch.tensor(c, dtype=torch.float64)
        product, slopes = (a.product(at, b).item() for a, b in zip(first, second, strict=True))
        return product, slopes
    both = pair(field.function, field.breaks, 1 - c, q, other_q, fine=sorted({*fine}))
    return both.product, both.slopes
