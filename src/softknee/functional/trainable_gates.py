"""Variants of Swish with further parameters: scaled, shifted or mixed with the identity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

# Above it, adding 1 to the exponential changes no digit of float64.
FAR = 40.0


@widening
def eswish(x: Tensor, beta: Tensor | float = 1.5) -> Tensor:
    r"""E-swish, $\beta x\,\sigma(x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return beta * F.silu(x)


@widening
def aria2(x: Tensor, alpha: Tensor | float = 1.5, beta: Tensor | float = 2.0) -> Tensor:
    r"""Adaptive Richard's curve weighted activation, $x\,(1 + e^{-\beta x})^{-\alpha}$; Swish at $\alpha = 1$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha \ge 0$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.exp(-alpha * F.softplus(-beta * x, threshold=FAR))


@widening
def aptx(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 1.0, gamma: Tensor | float = 0.5) -> Tensor:
    r"""Alpha plus tanh times, $(\alpha + \tanh(\beta x))\,\gamma x$; $x\,\sigma(2 x)$ at the defaults.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return (alpha + torch.tanh(beta * x)) * gamma * x


@widening
def swish_t(x: Tensor, beta: Tensor | float = 1.0, alpha: Tensor | float = 0.1) -> Tensor:
    r"""Swish-T, $x\,\sigma(\beta x) + \alpha \tanh(x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.sigmoid(beta * x) + alpha * torch.tanh(x)


@widening
def swish_t_a(x: Tensor, alpha: Tensor | float = 0.1) -> Tensor:
    r"""Swish-T of type A, $\sigma(x)\,(x + 2\alpha) - \alpha = x\,\sigma(x) + \alpha \tanh(x / 2)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.silu(x) + alpha * torch.tanh(x / 2)


@widening
def swish_t_b(x: Tensor, beta: Tensor | float = 1.0, alpha: Tensor | float = 0.1) -> Tensor:
    r"""Swish-T of type B, $\sigma(\beta x)\,(x + 2\alpha) - \alpha = x\,\sigma(\beta x) + \alpha \tanh(\beta x / 2)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    scaled = beta * x
    return x * torch.sigmoid(scaled) + alpha * torch.tanh(scaled / 2)


@widening
def swish_t_c(x: Tensor, beta: Tensor | float = 1.0, alpha: Tensor | float = 0.1) -> Tensor:
    r"""Swish-T of type C, $\sigma(\beta x)\,(x + 2\alpha / \beta) - \alpha / \beta$.

    Written as $x\,\sigma(\beta x) + \alpha \tanh(\beta x / 2) / \beta$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta > 0$, broadcastable to `x`.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    scaled = beta * x
    return x * torch.sigmoid(scaled) + alpha * torch.tanh(scaled / 2) / beta


@widening
def bsilu(x: Tensor, alpha: Tensor | float = 1.67) -> Tensor:
    r"""Bounded SiLU, $(x + \alpha)\,\sigma(x) - \alpha / 2 = x\,\sigma(x) + \tfrac\alpha2 \tanh(x / 2)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.silu(x) + alpha / 2 * torch.tanh(x / 2)


@widening
def acon_b(x: Tensor, p: Tensor | float = 0.25, beta: Tensor | float = 1.0) -> Tensor:
    r"""ACON-B, $(1 - p) x\,\sigma(\beta (1 - p) x) + p x$: a smooth maximum of $x$ and $p x$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        p: $p$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _smooth_maximum((1 - p) * x, p * x, beta)


@widening
def acon_c(x: Tensor, p1: Tensor | float = 1.0, p2: Tensor | float = 0.0, beta: Tensor | float = 1.0) -> Tensor:
    r"""ACON-C, $(p_1 - p_2) x\,\sigma(\beta (p_1 - p_2) x) + p_2 x$: a smooth maximum of $p_1 x$ and $p_2 x$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        p1: $p_1$, broadcastable to `x`.
        p2: $p_2$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _smooth_maximum((p1 - p2) * x, p2 * x, beta)


@widening
def tangma(x: Tensor, alpha: Tensor | float = 0.0, gamma: Tensor | float = 0.0) -> Tensor:
    r"""Tangma, $x \tanh(x + \alpha) + \gamma x$; LiSHT at $\alpha = \gamma = 0$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * (torch.tanh(x + alpha) + gamma)


def _smooth_maximum(difference: Tensor, other: Tensor, beta: Tensor | float) -> Tensor:
    return difference * torch.sigmoid(beta * difference) + other


SPECS = (
    Spec(
        name="eswish",
        title="ESwish",
        family="gated",
        function=eswish,
        formula="beta * x / (1 + exp(-x))",
        parameters=(Param(name="beta", default=1.5),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.649759, lower_bound=-0.41769682),
        source="alcaide2018eswish",
        note="The paper tries beta from 1.25 to 2; 1.5 is our choice among them. Another function of the name, "
        "exponential swish, is exp(-x) times the sigmoid.",
        aliases=("e_swish",),
    ),
    Spec(
        name="aria2",
        title="ARiA2",
        family="gated",
        function=aria2,
        formula="x * (1 + exp(-beta * x))**(-alpha)",
        parameters=(Param(name="alpha", default=1.5, low=0.0), Param(name="beta", default=2.0)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1411472, lower_bound=-0.06997765),
        source="patwardhan2018aria",
        note="The paper's settings of alpha and beta were not seen; 1.5 and 2 are those of others who cite it.",
    ),
    Spec(
        name="aptx",
        title="APTx",
        family="gated",
        function=aptx,
        formula="(alpha + tanh(beta * x)) * gamma * x",
        parameters=(
            Param(name="alpha", default=1.0),
            Param(name="beta", default=1.0),
            Param(name="gamma", default=0.5),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.13923228),
        source="kumar2022aptx",
        note="At the defaults exactly `swish` with beta = 2. The source lets the three be trained.",
    ),
    Spec(
        name="swish_t",
        title="SwishT",
        family="gated",
        function=swish_t,
        formula="x / (1 + exp(-beta * x)) + alpha * tanh(x)",
        parameters=(Param(name="beta", default=1.0, trainable=True), Param(name="alpha", default=0.1)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1033283, lower_bound=-0.36549442),
        source="seo2024swisht",
    ),
    Spec(
        name="swish_t_a",
        title="SwishTA",
        family="gated",
        function=swish_t_a,
        formula="(x + 2 * alpha) / (1 + exp(-x)) - alpha",
        parameters=(Param(name="alpha", default=0.1),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1159929, lower_bound=-0.33751683),
        source="seo2024swisht",
        note="Exactly `bsilu` with twice the alpha.",
    ),
    Spec(
        name="swish_t_b",
        title="SwishTB",
        family="gated",
        function=swish_t_b,
        formula="(x + 2 * alpha) / (1 + exp(-beta * x)) - alpha",
        parameters=(Param(name="beta", default=1.0, trainable=True), Param(name="alpha", default=0.1)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1159929, lower_bound=-0.33751683),
        source="seo2024swisht",
    ),
    Spec(
        name="swish_t_c",
        title="SwishTC",
        family="gated",
        function=swish_t_c,
        formula="(x + 2 * alpha / beta) / (1 + exp(-beta * x)) - alpha / beta",
        parameters=(
            Param(name="beta", default=1.0, trainable=True, low=0.0, open_low=True),
            Param(name="alpha", default=0.1),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1159929, lower_bound=-0.33751683),
        source="seo2024swisht",
        note="That beta must be positive is ours: the function has no value at 0.",
    ),
    Spec(
        name="bsilu",
        title="BSiLU",
        family="gated",
        function=bsilu,
        formula="(x + alpha) / (1 + exp(-x)) - alpha / 2",
        parameters=(Param(name="alpha", default=1.67),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.2903773, lower_bound=-0.89990047),
        source="horuz2025sugar",
        note="Made as a smooth derivative for ReLU's backward pass. Exactly `swish_t_a` with half the alpha.",
        aliases=("b_silu",),
    ),
    Spec(
        name="acon_b",
        title="ACONB",
        family="gated",
        function=acon_b,
        formula="(1 - p) * x / (1 + exp(-beta * (1 - p) * x)) + p * x",
        parameters=(Param(name="p", default=0.25, trainable=True), Param(name="beta", default=1.0, trainable=True)),
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=1.0748795),
        source="ma2021acon",
        note="PReLU made smooth. The source trains both by channel.",
    ),
    Spec(
        name="acon_c",
        title="ACONC",
        family="gated",
        function=acon_c,
        formula="(p1 - p2) * x / (1 + exp(-beta * (p1 - p2) * x)) + p2 * x",
        parameters=(
            Param(name="p1", default=1.0, trainable=True),
            Param(name="p2", default=0.0, trainable=True),
            Param(name="beta", default=1.0, trainable=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.27846455),
        source="ma2021acon",
        note="The source trains all three by channel and draws p1 and p2 from a standard normal; the start at SiLU is "
        "ours. With p1 = 1 and p2 = 0 it is ACON-A, which is `swish`.",
    ),
    Spec(
        name="tangma",
        title="Tangma",
        family="gated",
        function=tangma,
        formula="x * tanh(x + alpha) + gamma * x",
        parameters=(Param(name="alpha", default=0.0, trainable=True), Param(name="gamma", default=0.0, trainable=True)),
        promises=Promises(smooth=True, even=True, zero_at_zero=True, lipschitz=1.1996787, lower_bound=0.0),
        source="golwala2025tangma",
        note="The start at 0, which makes it LiSHT, is ours; the paper's was not seen.",
    ),
)
