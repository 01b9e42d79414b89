"""Bounded functions whose two sides differ."""

from __future__ import annotations

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened

# exp(80) fits float32, and a number divided by it is 0 beside others.
SATURATED = 80.0


def hexpo(
    x: Tensor,
    a: Tensor | float = 1.0,
    b: Tensor | float = 1.0,
    c: Tensor | float = 1.0,
    d: Tensor | float = 1.0,
) -> Tensor:
    r"""Hexpo, $a (1 - e^{-x / b})$ for $x \ge 0$, else $-c (1 - e^{x / d})$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, the limit on the right, broadcastable to `x`.
        b: $b > 0$, broadcastable to `x`.
        c: $c$, minus the limit on the left, broadcastable to `x`.
        d: $d > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $c / d$.
    """
    wide = widened(x)
    b, d = (widened(value) if isinstance(value, Tensor) else value for value in (b, d))
    rising = -a * torch.expm1(-wide.clamp(min=0) / b)
    falling = c * torch.expm1(wide.clamp(max=0) / d)
    return torch.where(wide > 0, rising, falling).to(x.dtype)


def soft_root_sign(x: Tensor, alpha: Tensor | float = 2.0, beta: Tensor | float = 3.0) -> Tensor:
    r"""Soft root sign, $x / (x / \alpha + e^{-x / \beta})$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.
        beta: $\beta > 0$, below $e \alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    alpha, beta = (widened(value) if isinstance(value, Tensor) else value for value in (alpha, beta))
    decay = torch.exp((-wide / beta).clamp(max=SATURATED))
    return (wide / (wide / alpha + decay)).to(x.dtype)


def nami(x: Tensor, w: Tensor | float = 0.3, a: Tensor | float = 1.0, b: Tensor | float = 1.5) -> Tensor:
    r"""Nami, $\tanh(a x)$ for $x > 0$, else $\tfrac ab \sin(w x)$.

    As in the source, parameters outside their ranges are taken at the nearest end. Half precision is computed in
    float32.

    Args:
        x: Any shape, any floating dtype.
        w: $w$ from 0.1 to 0.5, broadcastable to `x`.
        a: $a$ from 0.5 to 3, broadcastable to `x`.
        b: $b$ from 0.5 to 3, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $a w / b$.
    """
    wide = widened(x)
    w, a, b = _within(w, 0.1, 0.5), _within(a, 0.5, 3.0), _within(b, 0.5, 3.0)
    return torch.where(wide > 0, torch.tanh(a * wide), a / b * torch.sin(w * wide)).to(x.dtype)


def _within(value: Tensor | float, low: float, high: float) -> Tensor | float:
    return widened(value).clamp(low, high) if isinstance(value, Tensor) else min(max(value, low), high)


SPECS = (
    Spec(
        name="hexpo",
        title="Hexpo",
        family="sigmoidal",
        function=hexpo,
        formula="where(x >= 0, a * (1 - exp(-x / b)), -c * (1 - exp(x / d)))",
        parameters=(
            Param(name="a", default=1.0),
            Param(name="b", default=1.0, low=0.0, open_low=True),
            Param(name="c", default=1.0),
            Param(name="d", default=1.0, low=0.0, open_low=True),
        ),
        promises=Promises(
            monotonic=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="kong2017hexpo",
        note="Bounded on both sides, as the paper's abstract says and public code has it. A survey and libraries after "
        "it print exp(-x / d) on the left, which is not bounded. The constants are fixed in the paper; that all are 1 "
        "by default is our choice.",
        kinks=("0",),
    ),
    Spec(
        name="soft_root_sign",
        title="SoftRootSign",
        family="sigmoidal",
        function=soft_root_sign,
        formula="x / (x / alpha + exp(-x / beta))",
        parameters=(
            Param(name="alpha", default=2.0, trainable=True, low=0.0, open_low=True),
            Param(name="beta", default=3.0, trainable=True, low=0.0, open_low=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.167979, lower_bound=-2.462485, upper_bound=2.0),
        source="zhou2020srs",
        note="Between -alpha beta / (e alpha - beta), at x = -beta, and alpha. For beta above e alpha the denominator "
        "has zeros and the function poles; nothing keeps training from going there.",
        aliases=("srs",),
    ),
    Spec(
        name="nami",
        title="Nami",
        family="sigmoidal",
        function=nami,
        formula="where(x > 0, tanh(min(max(a, 0.5), 3) * x), "
        "min(max(a, 0.5), 3) / min(max(b, 0.5), 3) * sin(min(max(w, 0.1), 0.5) * x))",
        parameters=(
            Param(name="w", default=0.3, trainable=True, low=0.1, high=0.5),
            Param(name="a", default=1.0, trainable=True, low=0.5, high=3.0),
            Param(name="b", default=1.5, trainable=True, low=0.5, high=3.0),
        ),
        promises=Promises(zero_at_zero=True, lipschitz=1.0, lower_bound=-0.66666667, upper_bound=1.0),
        source="sarkar2025nami",
        note="Known from its package alone. It does not settle on the left but oscillates.",
        kinks=("0",),
    ),
)
