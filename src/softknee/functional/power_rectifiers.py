"""Powers of the ReLU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec


def squared_relu(x: Tensor) -> Tensor:
    r"""Squared ReLU, $\max(0, x)^2$; once, not twice, differentiable at 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.relu(x).square()


def repu(x: Tensor, power: Tensor | float = 3.0) -> Tensor:
    r"""Rectified power unit, $\max(0, x)^k$.

    Args:
        x: Any shape, any floating dtype.
        power: $k \ge 1$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    positive = x > 0
    # A power of 0 has an infinite logarithm in its derivatives by the exponent.
    return torch.where(positive, torch.where(positive, x, 1.0) ** power, 0.0)


def star_relu(x: Tensor, scale: Tensor | float = 0.8944, bias: Tensor | float = -0.4472) -> Tensor:
    r"""StarReLU, $s \max(0, x)^2 + b$ with trained scale and bias; once, not twice, differentiable at 0.

    Args:
        x: Any shape, any floating dtype.
        scale: $s$, broadcastable to `x`.
        bias: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    rectified = F.relu(x)
    # Squared alone, half precision would overflow earlier.
    return scale * rectified * rectified + bias


SPECS = (
    Spec(
        name="squared_relu",
        title="SquaredReLU",
        family="rectifier",
        function=squared_relu,
        formula="where(x > 0, x**2, 0)",
        promises=Promises(monotonic=True, zero_at_zero=True, lower_bound=0.0),
        source="so2021primer",
        note="Found by a search for transformers that train faster.",
        users="Primer, the channel mixing of RWKV, Nemotron-4",
        aliases=("relu2", "requ", "relu_squared"),
    ),
    Spec(
        name="repu",
        title="RePU",
        family="rectifier",
        function=repu,
        formula="where(x > 0, x**power, 0)",
        parameters=(Param(name="power", default=3.0, low=1.0),),
        promises=Promises(monotonic=True, zero_at_zero=True, lower_bound=0.0),
        source="li2019repu",
        note="The paper takes whole powers from 2 on, 2 being the squared ReLU; the default of 3 is ours. With the "
        "power 1, the ReLU, the derivative jumps at 0.",
    ),
    Spec(
        name="star_relu",
        title="StarReLU",
        family="rectifier",
        function=star_relu,
        formula="where(x > 0, scale * x**2 + bias, bias)",
        parameters=(
            Param(name="scale", default=0.8944, trainable=True),
            Param(name="bias", default=-0.4472, trainable=True),
        ),
        promises=Promises(monotonic=True, lower_bound=-0.4472),
        source="yu2022metaformer",
        note="The starting values, rounded from 2 / sqrt(5) and -1 / sqrt(5), give a standard normal input mean 0 and "
        "variance 1. One pair of parameters a layer.",
        users="ConvFormer, CAFormer",
    ),
)
