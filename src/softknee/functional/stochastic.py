"""Functions that draw random numbers in training; evaluated, they are what remains without them, or the mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened

# Uniform numbers are multiples of it.
STEP = 2.0**-24
# Coefficients of z / t in powers of w / 8 - 1, where t = 2 Phi(z) - 1 and w = -log(1 - t^2) is below 16: least squares
# at Chebyshev's nodes, by which z is off by no more than 6.4e-6.
NORMAL = (
    *(3.76384084, 1.99529107, -0.457470132, 0.176834362, -0.0521734652, -0.0151253313),
    *(0.0587598741, -0.0862811595, 0.0582690374, 0.00739261556, -0.0294359965, 0.0103716942),
)


def noisy_relu(x: Tensor) -> Tensor:
    r"""Noisy ReLU as it is evaluated: the ReLU, $\max(0, x)$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x)


def noisy_relu_sampled(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Noisy ReLU as it is trained, $\max(0, x + \sqrt{\sigma(x)}\,z)$ with $z$ from a standard normal.

    The noise, of variance $\sigma(x)$, is differentiated by $x$ like the rest.

    Args:
        x: Any shape, any floating dtype.
        generator: Source of the noise, torch's global one by default.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    # The root of a sigmoid that has vanished has an infinite derivative.
    scale = torch.exp(F.logsigmoid(wide) / 2)
    return F.relu(wide + scale * _normal(x, generator)).to(x.dtype)


def prob_act(x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:  # noqa: ARG001 (the mean does not depend on it)
    r"""ProbAct as it is evaluated: its mean, $\max(0, x)$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.
        sigma: $\sigma$, broadcastable to `x`: the size of the noise in training.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x)


def prob_act_sampled(x: Tensor, sigma: Tensor | float = 0.0, *, generator: torch.Generator | None = None) -> Tensor:
    r"""ProbAct as it is trained, $\max(0, x) + \sigma z$ with $z$ from a standard normal; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.
        sigma: $\sigma$, broadcastable to `x`.
        generator: Source of the noise, torch's global one by default.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x) + sigma * _normal(x, generator).to(x.dtype)


def elastic_relu(x: Tensor, alpha: Tensor | float = 0.5) -> Tensor:  # noqa: ARG001 (the mean does not depend on it)
    r"""Elastic ReLU as it is evaluated: the ReLU, $\max(0, x)$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`: how far slopes stray in training.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x)


def elastic_relu_sampled(x: Tensor, alpha: Tensor | float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Elastic ReLU as it is trained, $r \max(0, x)$ with a slope $r$ from $U(1 - \alpha, 1 + \alpha)$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        generator: Source of the slopes, torch's global one by default.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    stray = (2 * _uniform(x, generator) - 1).to(x.dtype)
    return (1 + alpha * stray) * F.relu(x)


def stoch_act(x: Tensor, probability: Tensor | float = 0.5) -> Tensor:
    r"""Stochastic activation as it is evaluated: its mean, $p \max(0, x) + (1 - p)\,x\,\sigma(x)$.

    Args:
        x: Any shape, any floating dtype.
        probability: $p$, that of the ReLU, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is that from the left, $(1 - p) / 2$.
    """
    return probability * F.relu(x) + (1 - probability) * F.silu(x)


def stoch_act_sampled(
    x: Tensor, probability: Tensor | float = 0.5, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Stochastic activation as it is trained: for every element the ReLU with probability $p$, else SiLU.

    Args:
        x: Any shape, any floating dtype.
        probability: $p$, broadcastable to `x`; its gradient is 0.
        generator: Source of the choices, torch's global one by default.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0 or 1/2.
    """
    return torch.where(_uniform(x, generator) < probability, F.relu(x), F.silu(x))


def _uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a number from U(0, 1) for every element, in float32 whatever the dtype: others draw coarser, or finer."""
    return torch.empty_like(x, dtype=torch.float32, requires_grad=False).uniform_(generator=generator)


def _normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a number from the standard normal for every element, in float32.

    It is the inverse distribution function of a uniform number, because kernels draw no more than one an element. Of
    those there are 2^24, so that no number is larger than 5.42.
    """
    # An odd multiple of the step: never -1 or 1, and as often negative as positive.
    t = 2 * _uniform(x, generator) - 1 + STEP
    w = -torch.log((1 - t) * (1 + t))
    place = w / 8 - 1
    total = torch.full_like(place, NORMAL[-1])
    for coefficient in NORMAL[-2::-1]:
        total = total * place + coefficient
    return t * total


SPECS = (
    Spec(
        name="noisy_relu",
        title="NoisyReLU",
        family="stochastic",
        function=noisy_relu,
        builtin="always",
        formula="max(0, x)",
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, idempotent=True),
        source="nair2010relu",
        note="Made for sampling in restricted Boltzmann machines, where nothing is differentiated. That the size of "
        "the noise is differentiated in training, and that evaluation leaves the noise out, is ours.",
        kinks=("0",),
        aliases=("nrelu",),
        sampled=noisy_relu_sampled,
    ),
    Spec(
        name="prob_act",
        title="ProbAct",
        family="stochastic",
        function=prob_act,
        builtin="always",
        formula="max(0, x)",
        parameters=(Param(name="sigma", default=0.0, trainable=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, idempotent=True),
        source="shridhar2019probact",
        note="The paper has a fixed noise and a trained one, which its code starts at 0; that code draws noise in "
        "evaluation too, where ours takes the mean.",
        kinks=("0",),
        sampled=prob_act_sampled,
    ),
    Spec(
        name="elastic_relu",
        title="ElasticReLU",
        family="stochastic",
        function=elastic_relu,
        builtin="always",
        formula="max(0, x)",
        parameters=(Param(name="alpha", default=0.5, low=0.0, high=1.0),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, idempotent=True),
        source="jiang2018erelu",
        note="Slopes above 0 stray in training and are 1 in evaluation, as its authors have it; the default width of "
        "0.5 is ours.",
        kinks=("0",),
        aliases=("erelu",),
        sampled=elastic_relu_sampled,
    ),
    Spec(
        name="stoch_act",
        title="StochAct",
        family="stochastic",
        function=stoch_act,
        formula="probability * max(0, x) + (1 - probability) * x / (1 + exp(-x))",
        parameters=(Param(name="probability", default=0.5, low=0.0, high=1.0),),
        promises=Promises(zero_at_zero=True, lipschitz=1.04992, lower_bound=-0.13923228),
        source="lomeli2025stochastic",
        note="The authors draw ReLU or SiLU in training; for inference they either fine-tune with ReLU alone, which is "
        "`probability=1`, or go on drawing. One draw an element for both halves of the line, the probability of 0.5 "
        "and the mean in evaluation are ours.",
        kinks=("0",),
        sampled=stoch_act_sampled,
    ),
)
