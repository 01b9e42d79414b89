"""Self-gated functions: x times a gate of itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec

# tanh(exp(5)) differs from 1 by less than 1e-128.
SATURATED = 5.0
# tanh(log(1 + exp(20))) differs from 1 by less than 1e-17.
MISH_SATURATED = 20.0


def gelu(x: Tensor) -> Tensor:
    r"""Gaussian error linear unit, $x\,\Phi(x)$ with the normal distribution function $\Phi$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    r"""Approximate GELU, $\tfrac x2 (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715 x^3)))$, within 4.74e-4 of GELU.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.gelu(x, approximate="tanh")


def silu(x: Tensor) -> Tensor:
    r"""Sigmoid linear unit, $x\,\sigma(x)$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.silu(x)


def swish(x: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    r"""Swish, $x\,\sigma(\beta x)$; half the identity at $\beta = 0$, towards ReLU as $\beta$ grows.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.sigmoid(beta * x)


def hardswish(x: Tensor) -> Tensor:
    r"""Piecewise quadratic Swish, $x \min(\max(x + 3, 0), 6) / 6$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative is 0 at -3 and 1 at 3.
    """
    return F.hardswish(x)


def mish(x: Tensor) -> Tensor:
    r"""Mish, $x \tanh(\ln(1 + e^x))$.

    Above 20 it is $x$, from which it differs by less than float64 resolves: torch's own second derivative is NaN far
    out.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x > MISH_SATURATED, x, F.mish(x.clamp(max=MISH_SATURATED)))


def mish_with_one_exponential(x: Tensor) -> Tensor:
    r"""Mish as $x\,w / (w + 2)$ with $w = e^x (e^x + 2)$: one exponential instead of three functions.

    Args:
        x: Any shape, float32 or float64.

    Returns:
        Same shape and dtype as `x`.
    """
    t = torch.exp(x.clamp(max=MISH_SATURATED))
    w = t * (t + 2)
    return x * (w / (w + 2))


def telu(x: Tensor) -> Tensor:
    r"""TeLU as published, $x \tanh(e^x)$; before that known as TanhExp.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.tanh(torch.exp(x.clamp(max=SATURATED)))


def swigelu(x: Tensor) -> Tensor:
    r"""Mean of SiLU and GELU, $\tfrac x2 (\sigma(x) + \Phi(x))$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return (F.silu(x) + F.gelu(x)) / 2


SPECS = (
    Spec(
        name="gelu",
        title="GELU",
        family="gated",
        function=gelu,
        builtin="always",
        formula="x * (1 + erf(x / sqrt(2))) / 2",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1289042, lower_bound=-0.16997121),
        source="hendrycks2016gelu",
        users="BERT, ViT",
    ),
    Spec(
        name="gelu_tanh",
        title="GELUTanh",
        family="gated",
        function=gelu_tanh,
        builtin="small",
        formula="x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1289931, lower_bound=-0.17004076),
        source="hendrycks2016gelu",
        users="GPT-2, Gemma",
    ),
    Spec(
        name="silu",
        title="SiLU",
        family="gated",
        function=silu,
        builtin="always",
        formula="x / (1 + exp(-x))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.27846455),
        source="elfwing2018silu",
        users="EfficientNet, YOLOv5",
    ),
    Spec(
        name="swish",
        title="Swish",
        family="gated",
        function=swish,
        formula="x / (1 + exp(-beta * x))",
        parameters=(Param(name="beta", default=1.0, trainable=True),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.27846455),
        source="ramachandran2017swish",
        aliases=("acon_a",),
    ),
    Spec(
        name="hardswish",
        title="Hardswish",
        family="gated",
        function=hardswish,
        builtin="always",
        formula="x * min(max(x + 3, 0), 6) / 6",
        promises=Promises(zero_at_zero=True, lipschitz=1.5, lower_bound=-0.375),
        source="howard2019mobilenetv3",
        users="MobileNetV3",
        kinks=("-3", "3"),
        aliases=("hard_swish",),
    ),
    Spec(
        name="mish",
        title="Mish",
        family="gated",
        function=mish,
        builtin="small",
        kernel=mish_with_one_exponential,
        formula="x * tanh(log(1 + exp(x)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0884982, lower_bound=-0.30884342),
        source="misra2019mish",
        users="YOLOv4",
    ),
    Spec(
        name="telu",
        title="TeLU",
        family="gated",
        function=telu,
        formula="x * tanh(exp(x))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0619754, lower_bound=-0.35328578),
        source="fernandez2024telu",
        note="Liu and Di published it before, as TanhExp (2020, arXiv 2003.09855).",
        aliases=("tanhexp",),
    ),
    Spec(
        name="swigelu",
        title="SwiGELU",
        family="gated",
        function=swigelu,
        formula="x * (1 / (1 + exp(-x)) + (1 + erf(x / sqrt(2))) / 2) / 2",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0918221, lower_bound=-0.21385308),
        source="chapter",
    ),
)
