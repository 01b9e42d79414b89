"""Self-gated functions with little or nothing to set: x times a logistic, hyperbolic or piecewise linear gate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

# exp(-(4 + exp(4))) is 3.5e-26: with any input of up to 1e9, it changes no digit of 1.
COLU_SATURATED = 4.0


def quick_gelu(x: Tensor) -> Tensor:
    r"""Logistic approximation of GELU, $x\,\sigma(1.702\,x)$, within 0.0204 of GELU.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.sigmoid(1.702 * x)


@widening
def dsilu(x: Tensor) -> Tensor:
    r"""Derivative of SiLU, $\sigma(x) (1 + x (1 - \sigma(x)))$: a sigmoid that overshoots.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


def flatten_t_swish(x: Tensor, threshold: Tensor | float = -0.2) -> Tensor:
    r"""Flatten-T Swish, $x\,\sigma(x) + T$ for $x \ge 0$, else $T$.

    Args:
        x: Any shape, any floating dtype.
        threshold: $T$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    return F.silu(F.relu(x)) + threshold


def hardmish(x: Tensor) -> Tensor:
    r"""Piecewise quadratic Mish, $x \min(\max(x + 2, 0), 2) / 2$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative at -2 is 0.
    """
    return x * (F.hardtanh(x + 2, 0.0, 2.0) / 2)


def lisht(x: Tensor) -> Tensor:
    r"""Linearly scaled hyperbolic tangent, $x \tanh(x)$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.tanh(x)


def phish(x: Tensor) -> Tensor:
    r"""Phish, $x \tanh(\mathrm{GELU}(x))$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.tanh(F.gelu(x))


@widening
def telu_2020(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""TeLU of 2020, $x \tanh(\mathrm{ELU}(\alpha x))$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    scaled = alpha * x
    return x * torch.tanh(torch.where(scaled > 0, scaled, torch.expm1(scaled.clamp(max=0))))


@widening
def colu(x: Tensor) -> Tensor:
    r"""Collapsing linear unit, $x / (1 - x e^{-(x + e^x)})$.

    Below 0 written as $x\,p / (p - x)$ with $p = e^{x + e^x}$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    negative, below = x < 0, x.clamp(max=COLU_SATURATED)
    exponent = below + torch.exp(below)
    e = torch.exp(torch.where(negative, exponent, -exponent))
    return x * (torch.where(negative, e, 1.0) / torch.where(negative, e - x, 1 - x * e))


def elish(x: Tensor) -> Tensor:
    r"""Exponential linear sigmoid squashing, $\sigma(x)$ times $x$ for $x \ge 0$ and times $e^x - 1$ below.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return _elu(x) * torch.sigmoid(x)


def hard_elish(x: Tensor) -> Tensor:
    r"""ELiSH with a piecewise linear gate: $\min(\max((x + 1) / 2, 0), 1)$ in place of $\sigma(x)$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative is 0 at -1 and 1 at 1.
    """
    return _elu(x) * F.hardtanh((x + 1) / 2, 0.0, 1.0)


def _elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0)))


SPECS = (
    Spec(
        name="quick_gelu",
        title="QuickGELU",
        family="gated",
        function=quick_gelu,
        formula="x / (1 + exp(-1.702 * x))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.16361019),
        source="hendrycks2016gelu",
        note="Swish with its slope fixed at 1.702.",
        users="CLIP",
        aliases=("quickgelu",),
    ),
    Spec(
        name="dsilu",
        title="DSiLU",
        family="gated",
        function=dsilu,
        formula="(1 + exp(-x) + x * exp(-x)) / (1 + exp(-x))**2",
        promises=Promises(smooth=True, lipschitz=0.5, lower_bound=-0.09983933, upper_bound=1.09983933),
        source="elfwing2018silu",
        note="Another function, x times the sigmoid of SiLU, has been called DSiLU too.",
    ),
    Spec(
        name="flatten_t_swish",
        title="FlattenTSwish",
        family="gated",
        function=flatten_t_swish,
        formula="where(x >= 0, x / (1 + exp(-x)) + threshold, threshold)",
        parameters=(Param(name="threshold", default=-0.2),),
        promises=Promises(monotonic=True, lipschitz=1.0998394, lower_bound=-0.2),
        source="chieng2018fts",
        note="The paper fixes the threshold at -0.2; its successor, Parametric Flatten-T Swish, trains it.",
        kinks=("0",),
        aliases=("fts", "ftswish"),
    ),
    Spec(
        name="hardmish",
        title="HardMish",
        family="gated",
        function=hardmish,
        formula="x * min(max(x + 2, 0), 2) / 2",
        promises=Promises(zero_at_zero=True, lipschitz=1.0, lower_bound=-0.5),
        source="wightman2019timm",
        note="From the library timm, not from the paper on Mish.",
        kinks=("-2",),
        aliases=("hard_mish",),
    ),
    Spec(
        name="lisht",
        title="LiSHT",
        family="gated",
        function=lisht,
        formula="x * (exp(2 * x) - 1) / (exp(2 * x) + 1)",
        promises=Promises(smooth=True, even=True, zero_at_zero=True, lipschitz=1.1996787, lower_bound=0.0),
        source="roy2019lisht",
    ),
    Spec(
        name="phish",
        title="Phish",
        family="gated",
        function=phish,
        formula="x * tanh(x * (1 + erf(x / sqrt(2))) / 2)",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.2983067, lower_bound=0.0),
        source="naveen2022phish",
        note="Never negative: GELU is negative where `x` is.",
    ),
    Spec(
        name="telu_2020",
        title="TeLU2020",
        family="gated",
        function=telu_2020,
        formula="x * tanh(where(x * alpha > 0, alpha * x, exp(alpha * x) - 1))",
        parameters=(Param(name="alpha", default=1.0),),
        promises=Promises(zero_at_zero=True, lipschitz=1.1996787, lower_bound=0.0),
        source="mercioni2020telu",
        note="Formula as two libraries and a survey hand it down; the paper was not seen. It lets alpha be fixed or "
        "trained; its value of 1 is ours. Never negative for alpha > 0. Two other functions are called TeLU: "
        "x tanh(exp(x)) of 2024 (here `telu`) and an ELU with a trained alpha (here `trainable_elu`).",
    ),
    Spec(
        name="colu",
        title="CoLU",
        family="gated",
        function=colu,
        formula="x / (1 - x * exp(-(x + exp(x))))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0828347, lower_bound=-0.37715857),
        source="vagerwal2021colu",
    ),
    Spec(
        name="elish",
        title="ELiSH",
        family="gated",
        function=elish,
        formula="where(x >= 0, x, exp(x) - 1) / (1 + exp(-x))",
        promises=Promises(zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.17157288),
        source="basirat2018elish",
    ),
    Spec(
        name="hard_elish",
        title="HardELiSH",
        family="gated",
        function=hard_elish,
        formula="where(x >= 0, x, exp(x) - 1) * max(0, min(1, (x + 1) / 2))",
        promises=Promises(zero_at_zero=True, lipschitz=1.5, lower_bound=-0.09967316),
        source="basirat2018elish",
        kinks=("-1", "1"),
        aliases=("hardelish",),
    ),
)
