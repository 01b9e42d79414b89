"""Units in the manner of ELU: a line or parabola on the right, something that levels off or turns on the left."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import hypotenuse, widened
from softknee.functional.exponential import SMALL, softplus

# Softplus takes them to 0.8 and 0.3.
TO_EIGHT_TENTHS = math.log(math.expm1(0.8))
TO_THREE_TENTHS = math.log(math.expm1(0.3))


def mpelu(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 1.0) -> Tensor:
    r"""Multiple parametric ELU, $x$ for $x > 0$, else $\alpha (e^{\beta x} - 1)$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta \ge 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $\alpha \beta$.
    """
    wide = widened(x)
    return torch.where(wide > 0, wide, alpha * torch.expm1(beta * wide.clamp(max=0))).to(x.dtype)


def pdelu(x: Tensor, alpha: Tensor | float = 1.0, t: Tensor | float = 0.9) -> Tensor:
    r"""Parametric deformable ELU, $x$ for $x > 0$, else $\alpha ([1 + (1 - t) x]_+^{1 / (1 - t)} - 1)$.

    The bracket is the deformed exponential, the exponential itself at $t = 1$. It is evaluated as
    $\exp(x \ln(1 + u) / u)$ with $u = (1 - t) x$, so that $t = 1$ is as good as any other. Half precision is computed
    in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        t: $t \ge 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $\alpha$, and 0 where the bracket ends.
    """
    wide = widened(x)
    alpha, t = (widened(value) if isinstance(value, Tensor) else value for value in (alpha, t))
    falling = wide.clamp(max=0)
    u = (1 - t) * falling
    inside = u > -1
    # Past its end the bracket is 0; a harmless input keeps the logarithm's gradient from being 0 * inf there.
    bent = torch.expm1(torch.where(inside, falling, 0.0) * _logarithm_quotient(torch.where(inside, u, 0.0)))
    return torch.where(wide > 0, wide, alpha * torch.where(inside, bent, -1.0)).to(x.dtype)


def _logarithm_quotient(u: Tensor) -> Tensor:
    """Return `log(1 + u) / u`, 1 at 0."""
    small = u.abs() < SMALL
    near = torch.where(small, u, 0.0)
    series = torch.full_like(u, 1 / 9)
    for n in range(8, 0, -1):
        series = 1 / n - near * series
    far = torch.where(small, 1.0, u)
    return torch.where(small, series, torch.log1p(far) / far)


def isrlu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""Inverse square root linear unit, $x$ for $x \ge 0$, else $x / \sqrt{1 + \alpha x^2}$.

    Twice, not three times, differentiable at 0. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    root = torch.sqrt(widened(alpha)) if isinstance(alpha, Tensor) else alpha**0.5
    return torch.where(wide > 0, wide, wide / hypotenuse(torch.ones_like(wide), root * wide)).to(x.dtype)


def xielu(
    x: Tensor,
    theta_p: Tensor | float = TO_EIGHT_TENTHS,
    theta_n: Tensor | float = TO_THREE_TENTHS,
    beta: Tensor | float = 0.5,
) -> Tensor:
    r"""Expanded integral of the ELU: $\alpha_p x^2 + \beta x$ for $x > 0$, else $\alpha_n (e^x - 1 - x) + \beta x$.

    $\alpha_p = \ln(1 + e^{\theta_p})$ and $\alpha_n = \beta + \ln(1 + e^{\theta_n})$; the defaults make both 0.8. Half
    precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        theta_p: $\theta_p$, broadcastable to `x`.
        theta_n: $\theta_n$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    beta = widened(beta) if isinstance(beta, Tensor) else beta
    falling = wide.clamp(max=0)
    right = _softplus(theta_p, wide) * wide.clamp(min=0).square()
    left = (beta + _softplus(theta_n, wide)) * (torch.expm1(falling) - falling)
    return (right + left + beta * wide).to(x.dtype)


def xiprelu(
    x: Tensor,
    theta_p: Tensor | float = TO_EIGHT_TENTHS,
    theta_n: Tensor | float = TO_EIGHT_TENTHS,
    beta: Tensor | float = 0.5,
) -> Tensor:
    r"""Expanded integral of the PReLU: $\alpha_p x^2 + \beta x$ for $x > 0$, else $\alpha_n x^2 + \beta x$.

    $\alpha_p = \ln(1 + e^{\theta_p})$ and $\alpha_n = \ln(1 + e^{\theta_n})$; the defaults make both 0.8. Half
    precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        theta_p: $\theta_p$, broadcastable to `x`.
        theta_n: $\theta_n$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    right = _softplus(theta_p, wide) * wide.clamp(min=0).square()
    left = _softplus(theta_n, wide) * wide.clamp(max=0).square()
    return (right + left + beta * wide).to(x.dtype)


def _softplus(theta: Tensor | float, wide: Tensor) -> Tensor:
    """Return `log(1 + exp(theta))` in the precision of `wide`."""
    theta = theta.to(wide.dtype) if isinstance(theta, Tensor) else wide.new_full((), theta)
    return softplus(theta)


def delu(x: Tensor, n: Tensor | float = 0.0) -> Tensor:
    r"""DELU, $x\,\sigma(x)$ for $x \le 0$, else $(n + \tfrac12) x + |e^{-x} - 1|$.

    Args:
        x: Any shape, any floating dtype.
        n: $n$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 1/2.
    """
    wide = widened(x)
    rising = (n + 0.5) * wide - torch.expm1(-wide.clamp(min=0))
    return torch.where(wide > 0, rising, F.silu(wide)).to(x.dtype)


def nipuna(x: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    r"""NIPUNA, $\max(x\,\sigma(\beta x), x)$: the identity for $x \ge 0$, Swish below.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 1/2.
    """
    return torch.where(x > 0, x, x * torch.sigmoid(beta * x))


SPECS = (
    Spec(
        name="mpelu",
        title="MPELU",
        family="exponential",
        function=mpelu,
        formula="max(x, 0) + alpha * (exp(beta * min(x, 0)) - 1)",
        parameters=(
            Param(name="alpha", default=1.0, trainable=True),
            Param(name="beta", default=1.0, trainable=True, low=0.0),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="li2018mpelu",
        note="The authors' best results start alpha at 0.25 or at 1, beta at 1, and have both in every channel. ELU at "
        "alpha = beta = 1, ReLU at alpha = 0. Only beta >= 0 is allowed to start with: below, the left side grows "
        "exponentially.",
        kinks=("0",),
    ),
    Spec(
        name="pdelu",
        title="PDELU",
        family="exponential",
        function=pdelu,
        formula="where(x > 0, x, alpha * where(1 + (1 - t) * x > 0, (1 + (1 - t) * x)**(1 / (1 - t)) - 1, -1))",
        parameters=(
            Param(name="alpha", default=1.0, trainable=True),
            Param(name="t", default=0.9, low=0.0),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="cheng2020pdelu",
        note="t deforms the exponential: 1 gives ELU, less ends the curve at -1 / (1 - t), more makes it level off "
        "like a power. It is fixed, alpha is trained. That alpha starts at 1 is our choice; public code also starts it "
        "at 0.1.",
        kinks=("0",),
    ),
    Spec(
        name="isrlu",
        title="ISRLU",
        family="exponential",
        function=isrlu,
        formula="where(x >= 0, x, x / sqrt(1 + alpha * x**2))",
        parameters=(Param(name="alpha", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="carlile2017isru",
        note="It levels off at -1 / sqrt(alpha). The paper fixes alpha and names training it as an option.",
    ),
    Spec(
        name="xielu",
        title="XIELU",
        family="exponential",
        function=xielu,
        formula="where(x > 0, log(1 + exp(theta_p)) * x**2, (beta + log(1 + exp(theta_n))) * (exp(x) - 1 - x)) "
        "+ beta * x",
        parameters=(
            Param(name="theta_p", default=TO_EIGHT_TENTHS, trainable=True),
            Param(name="theta_n", default=TO_THREE_TENTHS, trainable=True),
            Param(name="beta", default=0.5),
        ),
        promises=Promises(zero_at_zero=True, lower_bound=-0.20575123),
        source="huang2024xielu",
        note="Stored are theta_p and theta_n, as in published checkpoints (there alpha_p and alpha_n); keep them in "
        "float32. The public code takes the exponential at min(x, -1e-6), which moves the values in between by less "
        "than 1e-6 and is left out. On the far left it rises again, as alpha_n exceeds beta.",
        users="Apertus",
    ),
    Spec(
        name="xiprelu",
        title="XIPReLU",
        family="exponential",
        function=xiprelu,
        formula="where(x > 0, log(1 + exp(theta_p)), log(1 + exp(theta_n))) * x**2 + beta * x",
        parameters=(
            Param(name="theta_p", default=TO_EIGHT_TENTHS, trainable=True),
            Param(name="theta_n", default=TO_EIGHT_TENTHS, trainable=True),
            Param(name="beta", default=0.5),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lower_bound=-0.07812501),
        source="huang2024xielu",
        note="The cheaper companion of xIELU. Parametrization and start are those of the public training code for "
        "Apertus, where alpha_n, unlike xIELU's, is not raised by beta. At the start both sides are one parabola.",
    ),
    Spec(
        name="delu",
        title="DELU",
        family="exponential",
        function=delu,
        formula="where(x > 0, (n + 0.5) * x + abs(exp(-x) - 1), x / (1 + exp(-x)))",
        parameters=(Param(name="n", default=0.0, trainable=True),),
        promises=Promises(zero_at_zero=True, lipschitz=1.5, lower_bound=-0.27846455),
        source="pishchik2023trainable",
        note="n starts at 0 in the author's code, where this fixed form is called HELU; other libraries start it at 1. "
        "The slope is 1/2 left of 0, n + 3/2 right of it, and n + 1/2 far to the right. Other functions of the same "
        "name: the dampened ELU, x exp(-a exp(-b x)).",
        kinks=("0",),
    ),
    Spec(
        name="nipuna",
        title="NIPUNA",
        family="exponential",
        function=nipuna,
        formula="max(x / (1 + exp(-beta * x)), x)",
        parameters=(Param(name="beta", default=1.0, trainable=True),),
        promises=Promises(zero_at_zero=True, lipschitz=1.0, lower_bound=-0.27846455),
        source="madhu2023nipuna",
        note="The formula is that of two independent implementations and of the paper's description, a combination of "
        "ReLU and Swish; the paper itself was not at hand. A book chapter prints another function, with a softplus, "
        "that jumps at 0. That beta is one trained number starting at 1 is our reading.",
        kinks=("0",),
    ),
)
