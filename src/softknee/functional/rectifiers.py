"""Rectifiers: piecewise linear functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec


def identity(x: Tensor) -> Tensor:
    """Identity; a network of it is linear.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        `x` itself.
    """
    return x


def relu(x: Tensor) -> Tensor:
    r"""Rectified linear unit, $\max(0, x)$; its derivative at 0 is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x)


def leaky_relu(x: Tensor, negative_slope: Tensor | float = 0.01) -> Tensor:
    r"""Leaky ReLU, $x$ for $x > 0$, else $a x$; its derivative at 0 is $a$.

    Args:
        x: Any shape, any floating dtype.
        negative_slope: $a$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(negative_slope, Tensor):
        return torch.where(x > 0, x, negative_slope * x)
    return F.leaky_relu(x, negative_slope)


def prelu(x: Tensor, slope: Tensor | float = 0.25) -> Tensor:
    r"""Parametric ReLU, a leaky ReLU whose slope is trained; keep the slope out of weight decay.

    Args:
        x: Any shape, any floating dtype.
        slope: $a$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $a$.
    """
    return leaky_relu(x, slope)


def rrelu(x: Tensor, lower: Tensor | float = 1 / 8, upper: Tensor | float = 1 / 3) -> Tensor:
    r"""Randomized leaky ReLU as it is evaluated: with the mean slope $(l + u) / 2$.

    Args:
        x: Any shape, any floating dtype.
        lower: $l$, broadcastable to `x`.
        upper: $u$.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is the slope.
    """
    return leaky_relu(x, (lower + upper) / 2)


def rrelu_sampled(
    x: Tensor,
    lower: Tensor | float = 1 / 8,
    upper: Tensor | float = 1 / 3,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Randomized leaky ReLU as it is trained: a slope drawn from $U(l, u)$ for every element.

    Args:
        x: Any shape, any floating dtype.
        lower: $l$, broadcastable to `x`.
        upper: $u$.
        generator: Source of the slopes, torch's global one by default.

    Returns:
        Same shape and dtype as `x`.
    """
    slope = torch.empty_like(x, requires_grad=False).uniform_(generator=generator)
    return torch.where(x > 0, x, (lower + (upper - lower) * slope) * x)


def relu6(x: Tensor) -> Tensor:
    r"""ReLU clipped at 6, $\min(\max(0, x), 6)$; its derivative at 0 and 6 is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu6(x)


def srelu(
    x: Tensor,
    left_threshold: Tensor | float = 0.0,
    left_slope: Tensor | float = 0.2,
    right_threshold: Tensor | float = 1.0,
    right_slope: Tensor | float = 1.0,
) -> Tensor:
    r"""S-shaped ReLU: slope 1 between two thresholds, $a_l$ below the left and $a_r$ above the right one.

    The defaults start it as a leaky ReLU; the right threshold of 1 is ours, the paper sets it from data.

    Args:
        x: Any shape, any floating dtype.
        left_threshold: $t_l$, broadcastable to `x`.
        left_slope: $a_l$.
        right_threshold: $t_r$, not below $t_l$.
        right_slope: $a_r$.

    Returns:
        Same shape and dtype as `x`; the derivative at a threshold is the outer slope.
    """
    left = left_threshold + left_slope * (x - left_threshold)
    right = right_threshold + right_slope * (x - right_threshold)
    return torch.where(x >= right_threshold, right, torch.where(x <= left_threshold, left, x))


def brelu(x: Tensor, *, channel: Tensor) -> Tensor:
    r"""Bipolar ReLU: $\max(0, x)$ in even channels and $\min(0, x)$ in odd ones.

    Its derivative at 0 is 0 in all channels.

    Args:
        x: Any shape, any floating dtype.
        channel: Index of the channel each element is in, broadcastable to `x`, integer.

    Returns:
        Same shape and dtype as `x`.
    """
    sign = (1 - 2 * (channel % 2)).to(x.dtype)
    return sign * F.relu(sign * x)


def magnitude_threshold(x: Tensor, threshold: Tensor | float = 0.5) -> Tensor:
    r"""Magnitude threshold, $x$ for $|x| > t$, else 0; it jumps at $-t$ and $t$, where its derivative is 0.

    Args:
        x: Any shape, any floating dtype.
        threshold: $t \ge 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x.abs() <= threshold, 0.0, x)


SPECS = (
    Spec(
        name="identity",
        title="Identity",
        family="rectifier",
        function=identity,
        builtin="always",
        formula="x",
        promises=Promises(monotonic=True, smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0),
        source="folklore",
        aliases=("linear",),
    ),
    Spec(
        name="relu",
        title="ReLU",
        family="rectifier",
        function=relu,
        builtin="always",
        formula="max(x, 0)",
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, idempotent=True),
        source="nair2010relu",
        users="ResNet, VGG, the original Transformer",
        kinks=("0",),
    ),
    Spec(
        name="leaky_relu",
        title="LeakyReLU",
        family="rectifier",
        function=leaky_relu,
        builtin="always",
        formula="where(x >= 0, x, negative_slope * x)",
        parameters=(Param(name="negative_slope", default=0.01),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0),
        source="maas2013leaky",
        users="Darknet, many GAN discriminators",
        kinks=("0",),
        aliases=("leakyrelu",),
    ),
    Spec(
        name="prelu",
        title="PReLU",
        family="rectifier",
        function=prelu,
        formula="max(x, 0) + slope * min(x, 0)",
        parameters=(Param(name="slope", default=0.25, trainable=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0),
        source="he2015prelu",
        kinks=("0",),
    ),
    Spec(
        name="rrelu",
        title="RReLU",
        family="rectifier",
        function=rrelu,
        formula="where(x >= 0, x, (lower + upper) / 2 * x)",
        parameters=(Param(name="lower", default=1 / 8), Param(name="upper", default=1 / 3, not_below="lower")),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0),
        source="xu2015rrelu",
        kinks=("0",),
        sampled=rrelu_sampled,
    ),
    Spec(
        name="relu6",
        title="ReLU6",
        family="rectifier",
        function=relu6,
        builtin="always",
        formula="min(max(x, 0), 6)",
        promises=Promises(
            monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0, upper_bound=6.0, idempotent=True
        ),
        source="krizhevsky2010relu6",
        users="MobileNetV2",
        kinks=("0", "6"),
    ),
    Spec(
        name="srelu",
        title="SReLU",
        family="rectifier",
        function=srelu,
        formula="x + (right_slope - 1) * max(x - right_threshold, 0) + (left_slope - 1) * min(x - left_threshold, 0)",
        parameters=(
            Param(name="left_threshold", default=0.0, trainable=True),
            Param(name="left_slope", default=0.2, trainable=True),
            Param(name="right_threshold", default=1.0, trainable=True, not_below="left_threshold"),
            Param(name="right_slope", default=1.0, trainable=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0),
        source="jin2016srelu",
        note="Starts as a leaky ReLU. The right threshold of 1 is ours; the paper sets it from data after a first "
        "phase of training.",
        kinks=("left_threshold", "right_threshold"),
    ),
    Spec(
        name="brelu",
        title="BReLU",
        family="rectifier",
        function=brelu,
        formula="(-1)**channel * max((-1)**channel * x, 0)",
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, vmap=False),
        source="eidnes2017bipolar",
        kinks=("0",),
        aliases=("bipolar_relu",),
        channelwise=True,
    ),
    Spec(
        name="magnitude_threshold",
        title="MagnitudeThreshold",
        family="rectifier",
        function=magnitude_threshold,
        formula="where(abs(x) > threshold, x, 0)",
        parameters=(Param(name="threshold", default=0.5, low=0.0, fixed=True),),
        promises=Promises(monotonic=True, odd=True, zero_at_zero=True, idempotent=True),
        source="liu2024teal",
        note="TEAL puts it in front of the weights of trained language models, with a quantile of |x| in calibration "
        "data as the threshold, for a wanted share of zeros; 0.5 is ours. Hardshrink of torch is the same function. It "
        "has no derivative by the threshold.",
        kinks=("-threshold", "threshold"),
        aliases=("hardshrink",),
    ),
)
