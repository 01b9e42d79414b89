"""Oscillating functions without a frequency of their own, and snakes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

# Coefficients of sin(x) / x in powers of x^2, up to the rounding of float64 for |x| < 1.
SINC_SERIES = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(10))
# Added to the divisor by the authors of BigVGAN.
SPARE = 1e-9


def sin(x: Tensor) -> Tensor:
    r"""Sine, $\sin x$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sin(x)


def gcu(x: Tensor) -> Tensor:
    r"""Growing cosine unit, $x \cos x$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.cos(x)


@widening
def sinc(x: Tensor) -> Tensor:
    r"""Cardinal sine, $\sin(x) / x$, 1 at 0. Half precision is computed in float32.

    Its series takes the place of the quotient where $|x| < 1$, because the quotient's derivative is a difference of
    numbers that grow without bound towards 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    near = x.abs() < 1
    inner, outer = torch.where(near, x, 0.0), torch.where(near, 1.0, x)
    square = inner.square()
    series = torch.full_like(square, SINC_SERIES[-1])
    for coefficient in reversed(SINC_SERIES[:-1]):
        series = series * square + coefficient
    return torch.where(near, series, torch.sin(outer) / outer)


@widening
def snake_beta(x: Tensor, log_alpha: Tensor | float = 0.0, log_beta: Tensor | float = 0.0) -> Tensor:
    r"""Snake whose amplitude is trained apart from its frequency, $x + \sin^2(a x) / (b + 10^{-9})$.

    Both are stored as logarithms, $a = e^{\hat a}$ and $b = e^{\hat b}$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        log_alpha: $\hat a$, broadcastable to `x`.
        log_beta: $\hat b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    frequency, divisor = (_exponential(logarithm) for logarithm in (log_alpha, log_beta))
    return x + torch.sin(frequency * x).square() / (divisor + SPARE)


def _exponential(logarithm: Tensor | float) -> Tensor | float:
    return torch.exp(logarithm) if isinstance(logarithm, Tensor) else math.exp(logarithm)


SPECS = (
    Spec(
        name="sin",
        title="Sin",
        family="oscillating",
        function=sin,
        builtin="small",
        formula="sin(x)",
        promises=Promises(
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.0,
            lower_bound=-1.0,
            upper_bound=1.0,
            period=2 * math.pi,
        ),
        source="folklore",
        note="`sine` is the sine of SIREN, at a frequency of 30.",
    ),
    Spec(
        name="gcu",
        title="GCU",
        family="oscillating",
        function=gcu,
        formula="x * cos(x)",
        promises=Promises(smooth=True, odd=True, zero_at_zero=True),
        source="noel2021gcu",
        aliases=("growing_cosine_unit",),
    ),
    Spec(
        name="sinc",
        title="Sinc",
        family="oscillating",
        function=sinc,
        formula="where(abs(x) > 0, sin(x) / x, 1)",
        promises=Promises(smooth=True, even=True, lipschitz=0.4361819, lower_bound=-0.21723363, upper_bound=1.0),
        source="folklore",
        note="`torch.sinc(x)` is this function at `pi x`.",
    ),
    Spec(
        name="snake_beta",
        title="SnakeBeta",
        family="oscillating",
        function=snake_beta,
        formula="x + sin(exp(log_alpha) * x)**2 / (exp(log_beta) + 1e-9)",
        parameters=(
            Param(name="log_alpha", default=0.0, trainable=True),
            Param(name="log_beta", default=0.0, trainable=True),
        ),
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=2.0),
        source="lee2023bigvgan",
        note=(
            "Made for one pair of parameters in each channel, `per_channel`. The authors surround it by a low-pass"
            " filter at twice the sampling rate, which is not part of this function."
        ),
        users="BigVGAN",
    ),
)
