"""Soft rectifiers: smooth versions of max(x, 0) and of bent lines."""

from __future__ import annotations

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import hypotenuse, widened
from softknee.functional.exponential import LARGE, softplus


def squareplus(x: Tensor, b: Tensor | float = 4.0) -> Tensor:
    r"""Squareplus, $(x + \sqrt{x^2 + b}) / 2$.

    For negative $x$ it is evaluated as $b / (2 (\sqrt{x^2 + b} - x))$, which does not cancel.

    Args:
        x: Any shape, any floating dtype.
        b: $b > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    b = widened(b) if isinstance(b, Tensor) else b
    root = torch.sqrt(b) if isinstance(b, Tensor) else b**0.5
    # The larger of f(x) and f(-x), whose product is b / 4. The derivative of abs at 0 would be 0.
    size = torch.where(wide < 0, -wide, wide)
    larger = (size + hypotenuse(wide, root * torch.ones_like(wide))) / 2
    return torch.where(wide < 0, b / (4 * larger), larger).to(x.dtype)


def sparseplus(x: Tensor) -> Tensor:
    r"""Sparse plus: 0 for $x \le -1$, $\tfrac14 (x + 1)^2$ up to 1, then $x$; once, not twice, differentiable.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x >= 1, x, ((x.clamp(-1, 1) + 1) / 2).square())


def blu(x: Tensor, beta: Tensor | float = 0.0) -> Tensor:
    r"""Bendable linear unit, $\beta (\sqrt{x^2 + 1} - 1) + x$.

    Evaluated as $x (1 + \beta x / (1 + \sqrt{x^2 + 1}))$, which does not cancel around 0.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    return (wide * (1 + beta * (wide / (1 + hypotenuse(torch.ones_like(wide), wide))))).to(x.dtype)


def bent_identity(x: Tensor) -> Tensor:
    r"""Bent identity, $(\sqrt{x^2 + 1} - 1) / 2 + x$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return blu(x, 0.5)


def smu(x: Tensor, alpha: Tensor | float = 0.01, mu: Tensor | float = 2.5) -> Tensor:
    r"""Smooth maximum unit, $\tfrac12 ((1 + \alpha) x + (1 - \alpha) x\,\mathrm{erf}(\mu (1 - \alpha) x))$.

    A leaky ReLU of slope $\alpha$ as $\mu$ grows. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        mu: $\mu$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    alpha = widened(alpha) if isinstance(alpha, Tensor) else alpha
    # Written so that the larger terms do not cancel on the left.
    rest = (1 - alpha) * wide
    return (alpha * wide + rest * (1 + torch.erf(mu * rest)) / 2).to(x.dtype)


def smu1(x: Tensor, alpha: Tensor | float = 0.25, mu: Tensor | float = 4.352665993287951e-9) -> Tensor:
    r"""Smooth maximum unit with a root, $\tfrac12 ((1 + \alpha) x + \sqrt{(1 - \alpha)^2 x^2 + \mu^2})$.

    Half precision is computed in float32; where $\mu$ is 0 there, the derivative at 0 is $(1 + \alpha) / 2$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        mu: $\mu$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    alpha = widened(alpha) if isinstance(alpha, Tensor) else alpha
    mu = mu.to(wide.dtype) if isinstance(mu, Tensor) else wide.new_full((), mu)
    # The root of 0 has no derivative.
    mu = torch.where(mu == 0, torch.finfo(wide.dtype).tiny, mu)
    return (((1 + alpha) * wide + hypotenuse((1 - alpha) * wide, mu)) / 2).to(x.dtype)


def sqrt_softplus(x: Tensor) -> Tensor:
    r"""Root of softplus, $\sqrt{\ln(1 + e^x)}$.

    Below -40 it is evaluated as $e^{x / 2}$: the derivative of the root of a number that has become 0 is not one.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    near = torch.sqrt(softplus(wide.clamp(min=-LARGE)))
    return torch.where(wide < -LARGE, torch.exp(wide.clamp(max=-LARGE) / 2), near).to(x.dtype)


SPECS = (
    Spec(
        name="squareplus",
        title="Squareplus",
        family="exponential",
        function=squareplus,
        formula="(x + sqrt(x**2 + b)) / 2",
        parameters=(Param(name="b", default=4.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.0, lower_bound=0.0),
        source="barron2021squareplus",
        note="b = 4 has the second derivative of softplus at 0, b = 4 ln(2)^2 = 1.92 its value there.",
    ),
    Spec(
        name="sparseplus",
        title="SparsePlus",
        family="exponential",
        function=sparseplus,
        formula="where(x <= -1, 0, where(x < 1, (x + 1)**2 / 4, x))",
        promises=Promises(monotonic=True, lipschitz=1.0, lower_bound=0.0),
        source="bradbury2018jax",
        note="The integral of sparse_sigmoid: what softplus is to the sigmoid.",
        aliases=("sparse_plus",),
    ),
    Spec(
        name="blu",
        title="BLU",
        family="exponential",
        function=blu,
        formula="beta * (sqrt(x**2 + 1) - 1) + x",
        parameters=(Param(name="beta", default=0.0, trainable=True, low=-1.0, high=1.0),),
        promises=Promises(monotonic=True, smooth=True, odd=True, zero_at_zero=True, lipschitz=1.0),
        source="godfrey2019blu",
        note="The identity at beta = 0, where it starts; monotonic while beta stays in [-1, 1], which training does "
        "not see to. Ports of the paper's code have a width in place of both ones.",
    ),
    Spec(
        name="bent_identity",
        title="BentIdentity",
        family="exponential",
        function=bent_identity,
        formula="(sqrt(x**2 + 1) - 1) / 2 + x",
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=1.5),
        source="folklore",
        note="BLU with beta = 1/2; its slope runs from 1/2 to 3/2.",
    ),
    Spec(
        name="smu",
        title="SMU",
        family="exponential",
        function=smu,
        formula="((1 + alpha) * x + (1 - alpha) * x * erf(mu * (1 - alpha) * x)) / 2",
        parameters=(Param(name="alpha", default=0.01), Param(name="mu", default=2.5, trainable=True)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.127616),
        source="biswas2022smu",
        note="GELU at alpha = 0, mu = 1 / sqrt(2). The default start is that of public code for the later version of "
        "the paper; for the first it is alpha = 0.25, mu = 1e6, where the gradient of mu is 0 almost everywhere.",
    ),
    Spec(
        name="smu1",
        title="SMU1",
        family="exponential",
        function=smu1,
        formula="((1 + alpha) * x + sqrt((1 - alpha)**2 * x**2 + mu**2)) / 2",
        parameters=(
            Param(name="alpha", default=0.25),
            Param(name="mu", default=4.352665993287951e-9, trainable=True),
        ),
        promises=Promises(monotonic=True, lipschitz=1.0),
        source="biswas2022smu",
        note="Smooth for every mu but 0; at the published start it is within 2.2e-9 of a leaky ReLU of slope alpha, "
        "and the gradient of mu is next to 0. Start mu near 1 to have it trained.",
    ),
    Spec(
        name="sqrt_softplus",
        title="SqrtSoftplus",
        family="exponential",
        function=sqrt_softplus,
        formula="sqrt(log(1 + exp(x)))",
        promises=Promises(monotonic=True, smooth=True, lipschitz=0.3190864, lower_bound=0.0),
        source="deepseek2026v4",
        note="DeepSeek-V4 scores its experts by it. Written as torch.sqrt of softplus, its gradients are NaN far to "
        "the left.",
        users="DeepSeek-V4 (router)",
        aliases=("sqrtsoftplus",),
    ),
)
