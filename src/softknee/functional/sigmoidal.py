"""Sigmoidal and bounded functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import hypotenuse, widened

# exp(80) fits float32, and tanh of anything near it is 1.
SATURATED = 80.0


def sigmoid(x: Tensor) -> Tensor:
    r"""Logistic sigmoid, $1 / (1 + e^{-x})$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    r"""Hyperbolic tangent.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.tanh(x)


def hardsigmoid(x: Tensor) -> Tensor:
    r"""Piecewise linear sigmoid of slope 1/6, $\min(\max(x + 3, 0), 6) / 6$; its derivative at $\pm 3$ is 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    # torch's own has a float32 constant in its float64 derivative.
    return F.relu6(x + 3) / 6


def hardtanh(x: Tensor, min_value: Tensor | float = -1.0, max_value: Tensor | float = 1.0) -> Tensor:
    r"""Identity clipped to $[l, h]$; its derivative at $l$ and $h$ is 0.

    Args:
        x: Any shape, any floating dtype.
        min_value: $l$, broadcastable to `x`.
        max_value: $h \ge l$.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(min_value, Tensor) or isinstance(max_value, Tensor):
        return torch.where(x <= min_value, min_value, torch.where(x >= max_value, max_value, x))
    return F.hardtanh(x, min_value, max_value)


def softsign(x: Tensor) -> Tensor:
    r"""Softsign, $x / (1 + |x|)$; once, not twice, differentiable at 0.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.softsign(x)


def isru(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""Inverse square root unit, $x / \sqrt{1 + \alpha x^2}$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    root = torch.sqrt(alpha) if isinstance(alpha, Tensor) else alpha**0.5
    wide = widened(x)
    # Squaring x would overflow.
    return (wide / hypotenuse(torch.ones_like(wide), root * wide)).to(x.dtype)


def adaptive_sigmoid(x: Tensor, slope: Tensor | float = 1.0, threshold: Tensor | float = 0.0) -> Tensor:
    r"""Sigmoid with trained slope and threshold, $\sigma(k (x - \theta))$.

    Args:
        x: Any shape, any floating dtype.
        slope: $k$, broadcastable to `x`.
        threshold: $\theta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sigmoid(slope * (x - threshold))


def sgt(
    x: Tensor,
    left_scale: Tensor | float = 0.1,
    left_power: Tensor | float = 1.0,
    right_scale: Tensor | float = 1.1,
    right_power: Tensor | float = 1.0,
) -> Tensor:
    r"""Scaled gamma-tanh: $\tanh(b x^\beta)$ for $x \ge 0$, $\tanh(-a |x|^\alpha)$ below.

    The paper writes $a x^\alpha$ for negative $x$; it is read as $-a |x|^\alpha$, and the constants $a$ and $b$ are not
    the paper's. Its derivative at 0 is defined as 0.

    Args:
        x: Any shape, any floating dtype.
        left_scale: $a$, broadcastable to `x`.
        left_power: $\alpha > 0$.
        right_scale: $b$.
        right_power: $\beta > 0$.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    # A power of exactly 0 has an infinite logarithm in its derivative by the exponent.
    size = wide.abs().clamp(min=torch.finfo(wide.dtype).tiny)
    left, right = -left_scale * _saturating_power(size, left_power), right_scale * _saturating_power(size, right_power)
    return torch.where(x == 0, 0.0, torch.tanh(torch.where(x < 0, left, right))).to(x.dtype)


def _saturating_power(size: Tensor, power: Tensor | float) -> Tensor:
    """Return `size ** power` up to exp(80), where its derivatives end: `tanh` would multiply infinite ones by zero."""
    exponent = power.detach() if isinstance(power, Tensor) else size.new_full((), power)
    return torch.minimum(size, torch.exp(SATURATED / exponent)) ** power


SPECS = (
    Spec(
        name="sigmoid",
        title="Sigmoid",
        family="sigmoidal",
        function=sigmoid,
        builtin="always",
        formula="1 / (1 + exp(-x))",
        promises=Promises(monotonic=True, smooth=True, lipschitz=0.25, lower_bound=0.0, upper_bound=1.0),
        source="folklore",
        aliases=("logistic",),
    ),
    Spec(
        name="tanh",
        title="Tanh",
        family="sigmoidal",
        function=tanh,
        builtin="small",
        formula="(exp(2 * x) - 1) / (exp(2 * x) + 1)",
        promises=Promises(
            monotonic=True, smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="lecun1998efficient",
    ),
    Spec(
        name="hardsigmoid",
        title="Hardsigmoid",
        family="sigmoidal",
        function=hardsigmoid,
        formula="min(max(x / 6 + 0.5, 0), 1)",
        promises=Promises(monotonic=True, lipschitz=0.1666667, lower_bound=0.0, upper_bound=1.0),
        source="howard2019mobilenetv3",
        kinks=("-3", "3"),
        aliases=("hard_sigmoid",),
    ),
    Spec(
        name="hardtanh",
        title="Hardtanh",
        family="sigmoidal",
        function=hardtanh,
        builtin="always",
        formula="max(min(x, max_value), min_value)",
        parameters=(Param(name="min_value", default=-1.0), Param(name="max_value", default=1.0, not_below="min_value")),
        promises=Promises(
            monotonic=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="collobert2004thesis",
        kinks=("min_value", "max_value"),
        aliases=("hard_tanh",),
    ),
    Spec(
        name="softsign",
        title="Softsign",
        family="sigmoidal",
        function=softsign,
        builtin="small",
        formula="x / (1 + abs(x))",
        promises=Promises(
            monotonic=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="turian2009quadratic",
    ),
    Spec(
        name="isru",
        title="ISRU",
        family="sigmoidal",
        function=isru,
        formula="x / sqrt(1 + alpha * x**2)",
        parameters=(Param(name="alpha", default=1.0, low=0.0, open_low=True),),
        promises=Promises(
            monotonic=True, smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="carlile2017isru",
    ),
    Spec(
        name="adaptive_sigmoid",
        title="AdaptiveSigmoid",
        family="sigmoidal",
        function=adaptive_sigmoid,
        formula="1 / (1 + exp(-slope * (x - threshold)))",
        parameters=(
            Param(name="slope", default=1.0, trainable=True),
            Param(name="threshold", default=0.0, trainable=True),
        ),
        promises=Promises(monotonic=True, smooth=True, lipschitz=0.25, lower_bound=0.0, upper_bound=1.0),
        source="yamada1992neural",
    ),
    Spec(
        name="sgt",
        title="SGT",
        family="sigmoidal",
        function=sgt,
        formula="where(x > 0, tanh(right_scale * abs(x)**right_power), tanh(-left_scale * abs(x)**left_power))",
        parameters=(
            Param(name="left_scale", default=0.1),
            Param(name="left_power", default=1.0, trainable=True, low=0.0, open_low=True),
            Param(name="right_scale", default=1.1),
            Param(name="right_power", default=1.0, trainable=True, low=0.0, open_low=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.1, lower_bound=-1.0, upper_bound=1.0),
        source="khagi2022sgt",
        note="The paper's constants were not seen: 0.1 and 1.1 are those of another library. The sign on the left is "
        "our reading.",
        kinks=("0",),
        aliases=("scaled_gamma_tanh",),
    ),
)
