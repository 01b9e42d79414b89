"""Self-gated functions whose gate is a distribution function, as GELU's is the normal one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

# exp(-exp(5)) is below 1e-64, exp(40) is 2e17.
SATURATED = 5.0
FAR = 40.0


@widening
def golu(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 1.0, gamma: Tensor | float = 1.0) -> Tensor:
    r"""Gompertz linear unit, $x\,\alpha e^{-\beta e^{-\gamma x}}$, with all three at 1 the paper's $x\,e^{-e^{-x}}$.

    Its gate is then the Gumbel distribution function. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta > 0$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return alpha * x * torch.exp(-beta * torch.exp((-gamma * x).clamp(max=FAR)))


def log_logish(x: Tensor) -> Tensor:
    r"""LogLogish, $x\,(1 - e^{-e^x})$: GoLU with the gate of the mirrored Gumbel distribution.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return -x * torch.expm1(-torch.exp(x.clamp(max=SATURATED)))


@widening
def atlu(x: Tensor) -> Tensor:
    r"""Arctan linear unit, $x\,(\arctan(x) + \pi/2) / \pi$, gated by the Cauchy distribution function.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * _cauchy(x)


def lalu(x: Tensor) -> Tensor:
    r"""Laplace linear unit, $x\,(1 - e^{-x}/2)$ for $x \ge 0$, else $x\,e^x / 2$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    negative = x < 0
    tail = torch.exp(torch.where(negative, x, -x)) / 2
    return x * torch.where(negative, tail, 1 - tail)


@widening
def pflu(x: Tensor) -> Tensor:
    r"""Power function linear unit, $\tfrac x2 \bigl(1 + x / \sqrt{1 + x^2}\bigr)$.

    Its gate is the distribution function of Student's t with two degrees of freedom, at $\sqrt2\,x$. Half precision is
    computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    tail = _student_tail(x)
    return x * (torch.where(x < 0, tail, 2 - tail) / 2)


@widening
def fpflu(x: Tensor) -> Tensor:
    r"""Faster PFLU, $x$ for $x \ge 0$, else $x + x^2 / \sqrt{1 + x^2}$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x < 0, x * _student_tail(x), x)


@widening
def steklov_silu(x: Tensor, alpha: Tensor | float = 2.0) -> Tensor:
    r"""Steklov SiLU of order 3, $x\,S(x / \alpha)$ with the distribution function $S$ of the quadratic B-spline.

    $S$ is that of a sum of three independent variables, uniform on $[-\tfrac12, \tfrac12]$: exactly 0 below $-3/2$ and
    exactly 1 above $3/2$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    u = (x / alpha).clamp(-1.5, 1.5)
    first, second, third = (F.relu(u + shift) ** 3 for shift in (1.5, 0.5, -0.5))
    return x * ((first - 3 * second + 3 * third) / 6)


@widening
def xsilu(x: Tensor, alpha: Tensor | float = 0.0) -> Tensor:
    r"""Expanded SiLU, $x\,(\sigma(x) (1 + 2\alpha) - \alpha)$: a gate with range $(-\alpha, 1 + \alpha)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _expanded(F.silu(x), x, alpha)


@widening
def xgelu(x: Tensor, alpha: Tensor | float = 0.0) -> Tensor:
    r"""Expanded GELU, $x\,(\Phi(x) (1 + 2\alpha) - \alpha)$: a gate with range $(-\alpha, 1 + \alpha)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _expanded(F.gelu(x), x, alpha)


@widening
def xatlu(x: Tensor, alpha: Tensor | float = 0.0) -> Tensor:
    r"""Expanded ATLU, $x\,(g(x) (1 + 2\alpha) - \alpha)$ with $g(x) = (\arctan(x) + \pi/2) / \pi$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _expanded(x * _cauchy(x), x, alpha)


def _cauchy(x: Tensor) -> Tensor:
    """Return the Cauchy distribution function; below -1 through 1/x, for its sum would cancel there."""
    far = x < -1
    part = torch.atan(torch.where(far, -1 / torch.where(far, x, -1.0), x)) / math.pi
    return torch.where(far, part, 0.5 + part)


def _student_tail(x: Tensor) -> Tensor:
    """Return `1 - |x| / sqrt(1 + x^2)` without cancellation."""
    size = torch.where(x < 0, -x, x)
    root = torch.sqrt(1 + size * size)
    return 1 / (root * (root + size))


def _expanded(gated: Tensor, x: Tensor, alpha: Tensor | float) -> Tensor:
    return gated * (1 + 2 * alpha) - alpha * x


EXPANDED = "Starts as {} and learns a gate that may be negative or above 1; one alpha a layer in the paper."

# Below 0 the gate of ATLU is a difference that cancels: formulas have 4 atan(1), which is exact there, in place of pi.
SPECS = (
    Spec(
        name="golu",
        title="GoLU",
        family="gated",
        function=golu,
        formula="x * alpha * exp(-beta * exp(-gamma * x))",
        parameters=(
            Param(name="alpha", default=1.0),
            Param(name="beta", default=1.0, low=0.0, open_low=True),
            Param(name="gamma", default=1.0),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1133973, lower_bound=-0.09726014),
        source="das2025golu",
        note="The paper uses only alpha = beta = gamma = 1. As it is usually written, float32 has NaN gradients below "
        "-88.7, where the inner exponential overflows; here there is none.",
        aliases=("expexpish",),
    ),
    Spec(
        name="log_logish",
        title="LogLogish",
        family="gated",
        function=log_logish,
        formula="x * (1 - exp(-exp(x)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1148784, lower_bound=-0.31218252),
        source="kunc2024survey",
        note="As a survey lists it; where it was proposed first was not found. It is x + golu(-x).",
        aliases=("loglogish",),
    ),
    Spec(
        name="atlu",
        title="ATLU",
        family="gated",
        function=atlu,
        formula="x * (1 / 2 + atan(x) / (4 * atan(1)))",
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-0.31830989),
        source="huang2024gating",
        note="Known before as the Cauchy linear unit. Convex and never decreasing.",
        aliases=("calu",),
    ),
    Spec(
        name="lalu",
        title="LaLU",
        family="gated",
        function=lalu,
        formula="x * where(x >= 0, 1 - exp(-x) / 2, exp(x) / 2)",
        promises=Promises(zero_at_zero=True, lipschitz=1.0676677, lower_bound=-0.18393973),
        source="kunc2024survey",
        note="As a survey lists it; where it was proposed first was not found. Twice, not three times, differentiable "
        "at 0.",
    ),
    Spec(
        name="pflu",
        title="PFLU",
        family="gated",
        function=pflu,
        formula="x * (1 + x / sqrt(1 + x**2)) / 2",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0443311, lower_bound=-0.15014156),
        source="zhu2021pflu",
        note="The gate is the distribution function of Student's t with two degrees of freedom, at sqrt(2) x.",
    ),
    Spec(
        name="fpflu",
        title="FPFLU",
        family="gated",
        function=fpflu,
        formula="where(x >= 0, x, x + x**2 / sqrt(1 + x**2))",
        promises=Promises(zero_at_zero=True, lipschitz=1.0, lower_bound=-0.30028311),
        source="zhu2021pflu",
        note="Once, not twice, differentiable at 0.",
    ),
    Spec(
        name="steklov_silu",
        title="SteklovSiLU",
        family="gated",
        function=steklov_silu,
        formula="x * where(x < -1.5 * alpha, 0, where(x < -alpha / 2, (x / alpha + 3 / 2)**3 / 6, "
        "where(x < alpha / 2, 1 / 2 + 3 / 4 * (x / alpha) - (x / alpha)**3 / 3, "
        "where(x < 1.5 * alpha, 1 - (3 / 2 - x / alpha)**3 / 6, 1))))",
        parameters=(Param(name="alpha", default=2.0, low=0.0, open_low=True),),
        promises=Promises(zero_at_zero=True, lipschitz=1.140625, lower_bound=-0.1773118),
        source="masalskikh2026steklov",
        note="Of the source's orders 1, 2 and 3 only the default, 3, twice differentiable; order 1 with alpha = 6 is "
        "`hardswish`. Exactly 0 below -3 alpha / 2.",
    ),
    Spec(
        name="xsilu",
        title="XSiLU",
        family="gated",
        function=xsilu,
        formula="x * ((1 + 2 * alpha) / (1 + exp(-x)) - alpha)",
        parameters=(Param(name="alpha", default=0.0, trainable=True),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0998394, lower_bound=-0.27846455),
        source="huang2024gating",
        note=EXPANDED.format("SiLU"),
    ),
    Spec(
        name="xgelu",
        title="XGELU",
        family="gated",
        function=xgelu,
        formula="x * ((1 + erf(x / sqrt(2))) / 2 * (1 + 2 * alpha) - alpha)",
        parameters=(Param(name="alpha", default=0.0, trainable=True),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1289042, lower_bound=-0.16997121),
        source="huang2024gating",
        note=EXPANDED.format("GELU"),
    ),
    Spec(
        name="xatlu",
        title="XATLU",
        family="gated",
        function=xatlu,
        formula="x * ((1 / 2 + atan(x) / (4 * atan(1))) * (1 + 2 * alpha) - alpha)",
        parameters=(Param(name="alpha", default=0.0, trainable=True),),
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-0.31830989),
        source="huang2024gating",
        note=EXPANDED.format("ATLU"),
    ),
)
