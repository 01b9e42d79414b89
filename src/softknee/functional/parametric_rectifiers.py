"""Piecewise linear rectifiers with thresholds, slopes and shifts of their own."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

# The negative slope of AReLU is kept in this range.
LEAST_ATTENTION, MOST_ATTENTION = 0.01, 0.99
# Standard deviation of where the hinges of APL start.
HINGES = 0.5


def abs(x: Tensor) -> Tensor:  # noqa: A001 (its public name is softknee.functional.abs)
    r"""Absolute value, $|x|$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.abs(x)


def relun(x: Tensor, n: Tensor | float = 1.0) -> Tensor:
    r"""ReLU clipped at a trained height, $\min(\max(0, x), n)$; its derivative at 0 and $n$ is 0.

    Args:
        x: Any shape, any floating dtype.
        n: $n > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    rectified = F.relu(x)
    return torch.where(rectified >= n, n, rectified)


def thresholded_relu(x: Tensor, theta: Tensor | float = 1.0) -> Tensor:
    r"""Thresholded ReLU, $x$ for $x > \theta$, else 0; it jumps at $\theta$, where its derivative is 0.

    Args:
        x: Any shape, any floating dtype.
        theta: $\theta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(theta, Tensor):
        return torch.where(x > theta, x, 0.0 * theta)
    return F.threshold(x, theta, 0.0)


def displaced_relu(x: Tensor, delta: Tensor | float = 0.05) -> Tensor:
    r"""Displaced ReLU, $\max(x, -\delta)$; its derivative at $-\delta$ is 0.

    Args:
        x: Any shape, any floating dtype.
        delta: $\delta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x > -delta, x, -delta)


def flexible_relu(x: Tensor, bias: Tensor | float = -1.0) -> Tensor:
    r"""Flexible ReLU of 2017, $\max(0, x) + b$ with a trained $b$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.
        bias: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x) + bias


def shilu(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 0.0) -> Tensor:
    r"""Scaled and shifted ReLU, $\alpha \max(0, x) + \beta$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return alpha * F.relu(x) + beta


def dprelu(x: Tensor, positive_slope: Tensor | float = 1.0, negative_slope: Tensor | float = 0.01) -> Tensor:
    r"""Dual parametric ReLU, $a x$ for $x > 0$, else $b x$, both slopes trained; its derivative at 0 is $b$.

    Args:
        x: Any shape, any floating dtype.
        positive_slope: $a$, broadcastable to `x`.
        negative_slope: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x > 0, positive_slope * x, negative_slope * x)


def arelu(x: Tensor, alpha: Tensor | float = 0.9, beta: Tensor | float = 2.0) -> Tensor:
    r"""Attention-based ReLU, $(1 + \sigma(\beta))\,x$ for $x > 0$, else $\min(\max(\alpha, 0.01), 0.99)\,x$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`; its gradient outside of $[0.01, 0.99]$ is 0.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is the negative slope.
    """
    alpha, beta = (value if isinstance(value, Tensor) else x.new_full((), value) for value in (alpha, beta))
    negative_slope = alpha.clamp(LEAST_ATTENTION, MOST_ATTENTION)
    return dprelu(x, 1 + torch.sigmoid(beta), negative_slope)


def apl(x: Tensor, slopes: Sequence[Tensor | float], hinges: Sequence[Tensor | float]) -> Tensor:
    r"""Adaptive piecewise linear unit, $\max(0, x) + \sum_{s=1}^S a_s \max(0, b_s - x)$.

    Args:
        x: Any shape, any floating dtype.
        slopes: $a_s$: `(S, ...)`, or a tuple, each entry broadcastable to `x`.
        hinges: $b_s$, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative of a part at its own hinge, and of the first one at 0, is 0.
    """
    total = F.relu(x)
    for s in range(len(slopes)):
        total = total + slopes[s] * F.relu(hinges[s] - x)
    return total


def initialize_by_code(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw slopes from U(-1 / S, 1 / S) and hinges from N(0, 0.5^2), as the authors' code does for five terms."""
    slopes = (2 * torch.rand(terms, generator=generator) - 1) / terms
    return {"slopes": slopes, "hinges": HINGES * torch.randn(terms, generator=generator)}


def initialize_as_relu(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw hinges as the authors' code does, and start with slopes of 0."""
    return {"slopes": torch.zeros(terms), "hinges": HINGES * torch.randn(terms, generator=generator)}


SPECS = (
    Spec(
        name="abs",
        title="Abs",
        family="rectifier",
        function=abs,
        builtin="always",
        formula="sqrt(x**2)",
        promises=Promises(even=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="jarrett2009multistage",
        kinks=("0",),
        aliases=("absolute", "vrelu"),
    ),
    Spec(
        name="relun",
        title="ReLUN",
        family="rectifier",
        function=relun,
        formula="min(max(0, x), n)",
        parameters=(Param(name="n", default=1.0, trainable=True, low=0.0, open_low=True),),
        promises=Promises(
            monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, upper_bound=1.0, idempotent=True
        ),
        source="pishchik2023trainable",
        note="A fixed `n` makes it the bounded ReLU, `n = 6` ReLU6. Nothing keeps a trained `n` positive.",
        kinks=("0", "n"),
    ),
    Spec(
        name="thresholded_relu",
        title="ThresholdedReLU",
        family="rectifier",
        function=thresholded_relu,
        builtin="always",
        formula="where(x > theta, x, 0)",
        parameters=(Param(name="theta", default=1.0),),
        promises=Promises(monotonic=True, zero_at_zero=True, lower_bound=0.0),
        source="konda2015zerobias",
        note="It jumps at the threshold, whose gradient is 0: training cannot move it.",
        kinks=("theta",),
        aliases=("trec",),
    ),
    Spec(
        name="displaced_relu",
        title="DisplacedReLU",
        family="rectifier",
        function=displaced_relu,
        formula="max(x, -delta)",
        parameters=(Param(name="delta", default=0.05),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-0.05, idempotent=True),
        source="macedo2019drelu",
        note="Its authors call it DReLU, as others do the dual ReLU and the dynamic one.",
        kinks=("-delta",),
    ),
    Spec(
        name="flexible_relu",
        title="FlexibleReLU",
        family="rectifier",
        function=flexible_relu,
        formula="max(x, 0) + bias",
        parameters=(Param(name="bias", default=-1.0, trainable=True),),
        promises=Promises(monotonic=True, lipschitz=1.0, lower_bound=-1.0),
        source="qiu2018frelu",
        note="Its authors call it FReLU, the name of the funnel ReLU of 2020 too. Their code has one bias a layer, "
        "which starts at -1; they advise against one for each channel.",
        kinks=("0",),
    ),
    Spec(
        name="shilu",
        title="ShiLU",
        family="rectifier",
        function=shilu,
        formula="where(x > 0, alpha * x + beta, beta)",
        parameters=(
            Param(name="alpha", default=1.0, trainable=True),
            Param(name="beta", default=0.0, trainable=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="pishchik2023trainable",
        note="With `alpha = 1` it is the flexible ReLU. The author's code starts beta at 1; the start at 0, which "
        "makes it the ReLU, is ours.",
        kinks=("0",),
    ),
    Spec(
        name="dprelu",
        title="DPReLU",
        family="rectifier",
        function=dprelu,
        formula="positive_slope * max(x, 0) + negative_slope * min(x, 0)",
        parameters=(
            Param(name="positive_slope", default=1.0, trainable=True),
            Param(name="negative_slope", default=0.01, trainable=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0),
        source="balaji2019learnable",
        note="The starting values, those of a leaky ReLU, are ours. The dynamic parametric ReLU of 2023, with four "
        "parameters, has the same short name.",
        kinks=("0",),
    ),
    Spec(
        name="arelu",
        title="AReLU",
        family="rectifier",
        function=arelu,
        formula="where(x >= 0, (1 + 1 / (1 + exp(-beta))) * x, min(max(alpha, 0.01), 0.99) * x)",
        parameters=(
            Param(name="alpha", default=0.9, trainable=True),
            Param(name="beta", default=2.0, trainable=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.880798),
        source="chen2020arelu",
        note="One pair of parameters a layer. The slope above 0 is always more than 1, at first 1.88.",
        kinks=("0",),
    ),
    Spec(
        name="apl",
        title="APL",
        family="rectifier",
        function=apl,
        formula="max(x, 0) + sum(slopes * max(hinges - x, 0))",
        parameters=(
            Param(name="slopes", trainable=True, vector=True),
            Param(name="hinges", trainable=True, vector=True),
        ),
        source="agostinelli2014apl",
        note="The paper trains both vectors for every unit, which `per_channel` does. Its code draws the slopes of "
        "five terms from U(-0.2, 0.2), wider where they are fewer; our width is one over the number of terms. For "
        "large x it is always the identity. It bends at 0 and at each trained hinge.",
        kinks=("0",),
        initializations=MappingProxyType({"code": initialize_by_code, "relu": initialize_as_relu}),
        terms=5,
    ),
)
