"""Steps from 0 to 1, and a logarithm of one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened
from softknee.functional.exponential import softplus

# exp(-exp(7)) is 0 in float64.
SATURATED = 7.0


def hardsigmoid_keras(x: Tensor) -> Tensor:
    r"""Piecewise linear sigmoid of slope 1/5, $\min(\max(x / 5 + \tfrac12, 0), 1)$; its derivative at $\pm 2.5$ is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return (F.hardtanh(x, -2.5, 2.5) + 2.5) / 5


def sparse_sigmoid(x: Tensor) -> Tensor:
    r"""Piecewise linear sigmoid of slope 1/2, $\min(\max((x + 1) / 2, 0), 1)$; its derivative at $\pm 1$ is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return (F.hardtanh(x) + 1) / 2


def elliott(x: Tensor) -> Tensor:
    r"""Elliott's function, $\tfrac12 x / (1 + |x|) + \tfrac12$; once, not twice, differentiable at 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.softsign(x) / 2 + 0.5


def soft_clipping(x: Tensor, p: Tensor | float = 50.0) -> Tensor:
    r"""Soft clipping to $[0, 1]$, $\tfrac1p \ln \frac{1 + e^{p x}}{1 + e^{p (x - 1)}}$.

    Evaluated as a difference of softplus for $x \le \tfrac12$, and through $f(x) = 1 - f(1 - x)$ above. Half precision
    is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        p: $p > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    p = widened(p) if isinstance(p, Tensor) else p
    right = wide > 0.5
    near = torch.where(right, 1 - wide, wide)
    low = (softplus(p * near) - softplus(p * (near - 1))) / p
    return torch.where(right, 1 - low, low).to(x.dtype)


def smooth_step(x: Tensor, gamma: Tensor | float = 1.0) -> Tensor:
    r"""Smooth step, $-\frac{2}{\gamma^3} x^3 + \frac{3}{2 \gamma} x + \tfrac12$ between $\pm \gamma / 2$, then 0 and 1.

    Once, not twice, differentiable. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        gamma: $\gamma > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    gamma = widened(gamma) if isinstance(gamma, Tensor) else gamma
    inside, right = wide.abs() < gamma / 2, wide > 0
    u = torch.where(inside, wide, 0.0) / gamma
    # The lower half with its double zero as a factor, so that no rounding leads out of [0, 1].
    near = torch.where(right, -u, u)
    low = 2 * (near + 0.5).square() * (1 - near)
    step = torch.where(right, 1.0, 0.0)
    return torch.where(inside, torch.where(right, 1 - low, low), step).to(x.dtype)


def log_sigmoid(x: Tensor) -> Tensor:
    r"""Logarithm of the sigmoid, $-\ln(1 + e^{-x})$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.logsigmoid(x)


def loglog(x: Tensor) -> Tensor:
    r"""Log-log distribution function, $e^{-e^{-x}}$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.exp(-torch.exp((-x).clamp(max=SATURATED)))


def cloglog(x: Tensor) -> Tensor:
    r"""Complementary log-log distribution function, $1 - e^{-e^x}$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return -torch.expm1(-torch.exp(x.clamp(max=SATURATED)))


def laplace_cdf(x: Tensor, mu: Tensor | float = 0.707107, sigma: Tensor | float = 0.282095) -> Tensor:
    r"""Laplace function of Mega, $\tfrac12 (1 + \mathrm{erf}(\frac{x - \mu}{\sigma \sqrt 2}))$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        mu: $\mu$, broadcastable to `x`.
        sigma: $\sigma > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    sigma = widened(sigma) if isinstance(sigma, Tensor) else sigma
    return ((1 + torch.erf((widened(x) - mu) / (sigma * math.sqrt(2)))) / 2).to(x.dtype)


SPECS = (
    Spec(
        name="hardsigmoid_keras",
        title="HardsigmoidKeras",
        family="sigmoidal",
        function=hardsigmoid_keras,
        formula="max(0, min(1, 0.2 * x + 0.5))",
        promises=Promises(monotonic=True, lipschitz=0.2, lower_bound=0.0, upper_bound=1.0),
        source="chollet2015keras",
        note="The hard sigmoid of Theano and of Keras before version 3. Three functions go by that name: this one, "
        "hardsigmoid of slope 1/6 (MobileNetV3, PyTorch, Keras 3) and sparse_sigmoid of slope 1/2 (BinaryConnect).",
        kinks=("-2.5", "2.5"),
    ),
    Spec(
        name="sparse_sigmoid",
        title="SparseSigmoid",
        family="sigmoidal",
        function=sparse_sigmoid,
        formula="where(x <= -1, 0, where(x < 1, (x + 1) / 2, 1))",
        promises=Promises(monotonic=True, lipschitz=0.5, lower_bound=0.0, upper_bound=1.0),
        source="bradbury2018jax",
        note="The derivative of sparseplus. BinaryConnect calls the same function hard sigmoid, as others do those of "
        "slope 1/5 (hardsigmoid_keras) and 1/6 (hardsigmoid).",
        kinks=("-1", "1"),
    ),
    Spec(
        name="elliott",
        title="Elliott",
        family="sigmoidal",
        function=elliott,
        formula="0.5 * x / (1 + abs(x)) + 0.5",
        promises=Promises(monotonic=True, lipschitz=0.5, lower_bound=0.0, upper_bound=1.0),
        source="elliott1993better",
        note="Half of softsign, moved up by 1/2. Softsign itself is also called Elliott's function, symmetric.",
    ),
    Spec(
        name="soft_clipping",
        title="SoftClipping",
        family="sigmoidal",
        function=soft_clipping,
        formula="log((1 + exp(p * x)) / (1 + exp(p * (x - 1)))) / p",
        parameters=(Param(name="p", default=50.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.0, lower_bound=0.0, upper_bound=1.0),
        source="klimek2020phase",
        note="The identity between 0 and 1 but for corners about 1 / p wide. p = 50 is quoted from the paper at second "
        "hand.",
    ),
    Spec(
        name="smooth_step",
        title="SmoothStep",
        family="sigmoidal",
        function=smooth_step,
        formula="where(x <= -gamma / 2, 0, where(x < gamma / 2, -2 * x**3 / gamma**3 + 3 * x / (2 * gamma) + 0.5, 1))",
        parameters=(Param(name="gamma", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lipschitz=1.5, lower_bound=0.0, upper_bound=1.0),
        source="hazimeh2020tree",
        note="Exactly 0 and 1 outside a band of width gamma, which lets the source skip branches of soft trees.",
    ),
    Spec(
        name="log_sigmoid",
        title="LogSigmoid",
        family="sigmoidal",
        function=log_sigmoid,
        builtin="small",
        formula="-log(1 + exp(-x))",
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.0, upper_bound=0.0),
        source="folklore",
        note="Minus softplus of -x: bounded above only.",
        aliases=("logsigmoid",),
    ),
    Spec(
        name="loglog",
        title="LogLog",
        family="sigmoidal",
        function=loglog,
        formula="exp(-exp(-x))",
        promises=Promises(monotonic=True, smooth=True, lipschitz=0.3678795, lower_bound=0.0, upper_bound=1.0),
        source="gomes2011comparison",
        note="Distribution function of Gumbel's density, and the gate of GoLU. loglog(x) = 1 - cloglog(-x). Some "
        "libraries call cloglog by this name.",
    ),
    Spec(
        name="cloglog",
        title="CLogLog",
        family="sigmoidal",
        function=cloglog,
        formula="1 - exp(-exp(x))",
        promises=Promises(monotonic=True, smooth=True, lipschitz=0.3678795, lower_bound=0.0, upper_bound=1.0),
        source="gomes2008cloglog",
        note="The inverse of the complementary log-log link. A survey prints it with exp(-x), which decreases.",
    ),
    Spec(
        name="laplace_cdf",
        title="LaplaceCDF",
        family="sigmoidal",
        function=laplace_cdf,
        formula="(1 + erf((x - mu) / (sigma * sqrt(2)))) / 2",
        parameters=(Param(name="mu", default=0.707107), Param(name="sigma", default=0.282095, low=0.0, open_low=True)),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.414213, lower_bound=0.0, upper_bound=1.0),
        source="ma2023mega",
        note="Called Laplace in its source, it is the distribution function of a normal density, not of Laplace's. mu "
        "is sqrt(1 / 2) and sigma sqrt(1 / (4 pi)), rounded as in public code, which bring it near a squared ReLU.",
        users="Mega (attention)",
        aliases=("laplace",),
    ),
)
