"""Exponential and soft rectifiers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened

# Below it, series replace quotients that cancel; eight terms are then exact in float64.
SMALL = 1e-2
# Above it, adding or subtracting 1 from the exponential changes no digit of float64.
LARGE = 40.0


def elu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""Exponential linear unit, $x$ for $x > 0$, else $\alpha (e^x - 1)$; its derivative at 0 is $\alpha$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(alpha, Tensor):
        return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))
    return F.elu(x, alpha)


def trainable_elu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""ELU with a trained $\alpha$; one book chapter calls it TeLU.

    The usual composition with `where` has NaN gradients from `x = 89` on in float32; this one has none.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $\alpha$.
    """
    return elu(x, alpha)


def celu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""Continuously differentiable ELU, $\max(0, x) + \min(0, \alpha (e^{x / \alpha} - 1))$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(alpha, Tensor):
        wide, alpha = widened(x), widened(alpha)
        return torch.where(wide > 0, wide, alpha * torch.expm1(wide.clamp(max=0) / alpha)).to(x.dtype)
    return F.celu(x, alpha)


def pelu(x: Tensor, a: Tensor | float = 1.0, b: Tensor | float = 1.0) -> Tensor:
    r"""Parametric ELU, $\tfrac ab x$ for $x \ge 0$, else $a (e^{x / b} - 1)$; its derivative at 0 is $a / b$.

    Args:
        x: Any shape, any floating dtype.
        a: $a > 0$, broadcastable to `x`.
        b: $b > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    a, b = (widened(value) if isinstance(value, Tensor) else value for value in (a, b))
    return torch.where(wide > 0, a / b * wide, a * torch.expm1(wide.clamp(max=0) / b)).to(x.dtype)


def selu(x: Tensor) -> Tensor:
    r"""Scaled ELU, $\lambda\,x$ for $x > 0$, else $\lambda \alpha (e^x - 1)$, self-normalizing.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $\lambda \alpha$.
    """
    return F.selu(x)


def softplus(x: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    r"""Softplus, $\ln(1 + e^{\beta x}) / \beta$.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    if isinstance(beta, Tensor):
        beta = widened(beta)
        return (F.softplus(beta * widened(x), threshold=LARGE) / beta).to(x.dtype)
    return F.softplus(x, beta, threshold=LARGE)


def soft_exponential(x: Tensor, alpha: Tensor | float = 0.0) -> Tensor:
    r"""Soft exponential: logarithm for $\alpha < 0$, identity at 0, exponential for $\alpha > 0$.

    $-\ln(1 - \alpha (x + \alpha)) / \alpha$, $x$, or $(e^{\alpha x} - 1) / \alpha + \alpha$. Around $\alpha = 0$ it is
    evaluated through $x\,\mathrm{expm1}(u)/u$, so that the derivative by $\alpha$ there is the limit $1 + x^2/2$. Where
    the logarithm's argument is not positive it is taken at the machine epsilon. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    alpha = alpha.to(wide.dtype) if isinstance(alpha, Tensor) else wide.new_full((), alpha)
    positive = alpha > 0
    # Each branch gets harmless inputs where the other is taken, so that no gradient there is 0 * inf.
    rising = _exponential_branch(torch.where(positive, wide, 0.0), torch.where(positive, alpha, 1.0))
    falling = _logarithmic_branch(torch.where(positive, 0.0, wide), torch.where(positive, -1.0, alpha))
    return torch.where(positive, rising, falling).to(x.dtype)


def _exponential_branch(x: Tensor, alpha: Tensor) -> Tensor:
    u = alpha * x
    small, large = u.abs() < SMALL, u > LARGE
    near = x * _exponential_series(torch.where(small, u, 0.0))
    middle = torch.expm1(torch.where(small | large, 1.0, u)) / torch.where(small, 1.0, alpha)
    far = _large_exponential(torch.where(large, x, LARGE), torch.where(large, alpha, 1.0))
    return torch.where(small, near, torch.where(large, far, middle)) + alpha


def _large_exponential(x: Tensor, alpha: Tensor) -> Tensor:
    """Return `exp(alpha * x) / alpha` for large `alpha * x`, in one exponential.

    Where the derivative by alpha, its value times `x - 1/alpha`, overflows, it is left at its first term, for the
    difference would be one of infinities.
    """
    log = alpha.log()
    exponent = alpha * x - log
    overflows = exponent + x.log() > math.log(torch.finfo(x.dtype).max)
    return torch.exp(alpha * x - torch.where(overflows, log.detach(), log))


def _logarithmic_branch(x: Tensor, alpha: Tensor) -> Tensor:
    shifted = x + alpha
    u = alpha * shifted
    small = u.abs() < SMALL
    near = shifted * _logarithm_series(torch.where(small, u, 0.0))
    lowest = torch.finfo(x.dtype).eps - 1
    far = -torch.log1p((-torch.where(small, 0.5, u)).clamp(min=lowest)) / torch.where(small, -1.0, alpha)
    return torch.where(small, near, far)


def _exponential_series(u: Tensor) -> Tensor:
    """Sum `expm1(u) / u = 1 + u/2 + u^2/6 + ...` by Horner's rule."""
    total = torch.ones_like(u)
    for n in range(8, 1, -1):
        total = 1 + u / n * total
    return total


def _logarithm_series(u: Tensor) -> Tensor:
    """Sum `-log(1 - u) / u = 1 + u/2 + u^2/3 + ...` by Horner's rule."""
    total = torch.full_like(u, 1 / 9)
    for n in range(8, 0, -1):
        total = 1 / n + u * total
    return total


SPECS = (
    Spec(
        name="elu",
        title="ELU",
        family="exponential",
        function=elu,
        builtin="small",
        formula="where(x > 0, x, alpha * (exp(x) - 1))",
        parameters=(Param(name="alpha", default=1.0),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="clevert2016elu",
        kinks=("0",),
    ),
    Spec(
        name="trainable_elu",
        title="TrainableELU",
        family="exponential",
        function=trainable_elu,
        formula="max(x, 0) + alpha * (exp(min(x, 0)) - 1)",
        parameters=(Param(name="alpha", default=1.0, trainable=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="clevert2016elu",
        kinks=("0",),
    ),
    Spec(
        name="celu",
        title="CELU",
        family="exponential",
        function=celu,
        builtin="small",
        formula="max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)",
        parameters=(Param(name="alpha", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="barron2017celu",
        kinks=("0",),
    ),
    Spec(
        name="pelu",
        title="PELU",
        family="exponential",
        function=pelu,
        formula="a * max(x, 0) / b + a * (exp(min(x, 0) / b) - 1)",
        parameters=(
            Param(name="a", default=1.0, trainable=True, low=0.0, open_low=True),
            Param(name="b", default=1.0, trainable=True, low=0.0, open_low=True),
        ),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="trottier2017pelu",
    ),
    Spec(
        name="selu",
        title="SELU",
        family="exponential",
        function=selu,
        builtin="small",
        formula="1.0507009873554805 * where(x > 0, x, 1.6732632423543772 * (exp(x) - 1))",
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.7580994, lower_bound=-1.7580993408473773),
        source="klambauer2017selu",
        kinks=("0",),
    ),
    Spec(
        name="softplus",
        title="Softplus",
        family="exponential",
        function=softplus,
        builtin="small",
        formula="log(1 + exp(beta * x)) / beta",
        parameters=(Param(name="beta", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.0, lower_bound=0.0),
        source="dugas2001softplus",
    ),
    Spec(
        name="soft_exponential",
        title="SoftExponential",
        family="exponential",
        function=soft_exponential,
        formula="where(alpha > 0, (exp(alpha * x) - 1) / alpha + alpha, "
        "where(alpha < 0, -log(1 - alpha * (x + alpha)) / alpha, x))",
        parameters=(Param(name="alpha", default=0.0, trainable=True),),
        promises=Promises(monotonic=True, smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0),
        source="godfrey2015softexponential",
        note="The start at 0, the identity, is ours.",
    ),
)
