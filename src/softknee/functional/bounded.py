"""Bounded functions with values of both signs."""

from __future__ import annotations

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened


def scaled_tanh(x: Tensor, scale: Tensor | float = 1.7159, slope: Tensor | float = 2 / 3) -> Tensor:
    r"""Scaled tanh, $a \tanh(b x)$; with the default constants, it takes $\pm 1$ to about $\pm 1$.

    Args:
        x: Any shape, any floating dtype.
        scale: $a$, broadcastable to `x`.
        slope: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return scale * torch.tanh(slope * x)


def penalized_tanh(x: Tensor, a: Tensor | float = 0.25) -> Tensor:
    r"""Penalized tanh, $\tanh x$ for $x > 0$, else $a \tanh x$.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $a$.
    """
    height = torch.tanh(x)
    return torch.where(x > 0, height, a * height)


def arctan(x: Tensor) -> Tensor:
    r"""Arc tangent, between $\pm \pi / 2$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.atan(x)


def sqnl(x: Tensor) -> Tensor:
    r"""Square nonlinearity, $x - x |x| / 4$ between $\pm 2$, $\pm 1$ beyond; once, not twice, differentiable.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    inner = x.clamp(-2, 2)
    return inner * (1 - inner.abs() / 4)


def laaf(x: Tensor, a: Tensor | float = 0.1, n: Tensor | float = 10.0) -> Tensor:
    r"""Tanh of trained slope, $\tanh(n a x)$; the fixed factor $n$ makes $a$ learn faster.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, broadcastable to `x`.
        n: $n$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.tanh(n * (a * widened(x))).to(x.dtype)


def softcap(x: Tensor, cap: Tensor | float = 30.0) -> Tensor:
    r"""Soft cap, $c \tanh(x / c)$: the identity for small $x$, never beyond $\pm c$.

    Args:
        x: Any shape, any floating dtype.
        cap: $c > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    cap = widened(cap) if isinstance(cap, Tensor) else cap
    return (cap * torch.tanh(widened(x) / cap)).to(x.dtype)


def dyt(x: Tensor, alpha: Tensor | float = 0.5, gamma: Tensor | float = 1.0, delta: Tensor | float = 0.0) -> Tensor:
    r"""Dynamic tanh, $\gamma \tanh(\alpha x) + \delta$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.
        delta: $\delta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return gamma * torch.tanh(alpha * x) + delta


def derf(
    x: Tensor,
    alpha: Tensor | float = 0.5,
    s: Tensor | float = 0.0,
    gamma: Tensor | float = 1.0,
    delta: Tensor | float = 0.0,
) -> Tensor:
    r"""Dynamic erf, $\gamma\,\mathrm{erf}(\alpha x + s) + \delta$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        s: $s$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.
        delta: $\delta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return gamma * torch.erf(alpha * x + s) + delta


SPECS = (
    Spec(
        name="scaled_tanh",
        title="ScaledTanh",
        family="sigmoidal",
        function=scaled_tanh,
        formula="scale * tanh(slope * x)",
        parameters=(Param(name="scale", default=1.7159), Param(name="slope", default=2 / 3)),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.143934,
            lower_bound=-1.7159,
            upper_bound=1.7159,
        ),
        source="lecun1998efficient",
        note="The constants make the second derivative largest near 1, so that targets of 1 and -1 are not where it "
        "saturates.",
        aliases=("lecun_tanh",),
    ),
    Spec(
        name="penalized_tanh",
        title="PenalizedTanh",
        family="sigmoidal",
        function=penalized_tanh,
        formula="where(x > 0, tanh(x), a * tanh(x))",
        parameters=(Param(name="a", default=0.25),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-0.25, upper_bound=1.0),
        source="xu2016revise",
        note="A survey and libraries after it print tanh(x) / a, with a = 4.",
        kinks=("0",),
    ),
    Spec(
        name="arctan",
        title="Arctan",
        family="sigmoidal",
        function=arctan,
        builtin="small",
        formula="atan(x)",
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.0,
            lower_bound=-1.57079633,
            upper_bound=1.57079633,
        ),
        source="folklore",
        note="Some scale it by 2 / pi to end at 1; this one is not scaled.",
        aliases=("atan",),
    ),
    Spec(
        name="sqnl",
        title="SQNL",
        family="sigmoidal",
        function=sqnl,
        formula="where(x > 2, 1, where(x >= 0, x - x**2 / 4, where(x >= -2, x + x**2 / 4, -1)))",
        promises=Promises(
            monotonic=True, odd=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0, upper_bound=1.0
        ),
        source="wuraola2018sqnl",
    ),
    Spec(
        name="laaf",
        title="LAAF",
        family="sigmoidal",
        function=laaf,
        formula="tanh(n * a * x)",
        parameters=(Param(name="a", default=0.1, trainable=True), Param(name="n", default=10.0)),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.0,
            lower_bound=-1.0,
            upper_bound=1.0,
        ),
        source="jagtap2020laaf",
        note="The paper puts the trained slope into any activation, for a layer or a neuron, and starts it so that "
        "n a = 1; tanh is the choice here, and n = 10 one of the paper's. Its slope recovery term belongs to the loss "
        "and is not here.",
    ),
    Spec(
        name="softcap",
        title="Softcap",
        family="sigmoidal",
        function=softcap,
        formula="cap * tanh(x / cap)",
        parameters=(Param(name="cap", default=30.0, low=0.0, open_low=True),),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.0,
            lower_bound=-30.0,
            upper_bound=30.0,
        ),
        source="gemma2024gemma2",
        note="In Gemma 2 the cap is 30 for the final logits, the default here, and 50 for attention.",
        users="Gemma 2 (logits and attention scores)",
        aliases=("soft_cap",),
    ),
    Spec(
        name="dyt",
        title="DyT",
        family="sigmoidal",
        function=dyt,
        formula="gamma * tanh(alpha * x) + delta",
        parameters=(
            Param(name="alpha", default=0.5, trainable=True),
            Param(name="gamma", default=1.0, trainable=True),
            Param(name="delta", default=0.0, trainable=True),
        ),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=0.5,
            lower_bound=-1.0,
            upper_bound=1.0,
        ),
        source="zhu2025dyt",
        note="Stands in for a normalization layer. In the paper gamma and delta are per channel, alpha is one number; "
        "per_channel makes all three per channel, without it all three are single numbers.",
        aliases=("dynamic_tanh",),
    ),
    Spec(
        name="derf",
        title="Derf",
        family="sigmoidal",
        function=derf,
        formula="gamma * erf(alpha * x + s) + delta",
        parameters=(
            Param(name="alpha", default=0.5, trainable=True),
            Param(name="s", default=0.0, trainable=True),
            Param(name="gamma", default=1.0, trainable=True),
            Param(name="delta", default=0.0, trainable=True),
        ),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=0.5641896,
            lower_bound=-1.0,
            upper_bound=1.0,
        ),
        source="chen2025derf",
        note="Stands in for a normalization layer. In the paper gamma and delta are per channel, alpha and s single "
        "numbers; per_channel makes all four per channel, without it all four are single numbers.",
        aliases=("dynamic_erf",),
    ),
)
