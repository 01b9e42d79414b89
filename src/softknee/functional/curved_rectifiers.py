"""Rectifiers with a curved half: logarithmic, saturating, waving or rounded."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional.exponential import softplus


@widening
def nlrelu(x: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    r"""Natural logarithm rectified linear unit, $\ln(1 + \beta \max(0, x))$; its derivative at 0 is 0.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.log1p(beta * F.relu(x))


def sign_relu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    r"""SignReLU, $x$ for $x > 0$, else $\alpha x / (1 + |x|)$; its derivative at 0 is $\alpha$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x > 0, x, alpha * (x / (1 + x.abs())))


def sine_relu(x: Tensor, epsilon: Tensor | float = 0.0025) -> Tensor:
    r"""SineReLU, $x$ for $x > 0$, else $\varepsilon (\sin x - \cos x)$; its derivative at 0 is $\varepsilon$.

    Args:
        x: Any shape, any floating dtype.
        epsilon: $\varepsilon$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.where(x > 0, x, epsilon * (torch.sin(x) - torch.cos(x)))


def smooth_leaky_relu(x: Tensor, alpha: Tensor | float = 0.01, beta: Tensor | float = 1.0) -> Tensor:
    r"""Smooth leaky ReLU, $\alpha x + (1 - \alpha) \ln(1 + e^{\beta x}) / \beta$.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`: the slope far below 0.
        beta: $\beta > 0$, broadcastable to `x`: how sharply it bends.

    Returns:
        Same shape and dtype as `x`.
    """
    return alpha * x + (1 - alpha) * softplus(x, beta)


def smelu(x: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    r"""Smooth ReLU, the ReLU with a parabola for its bend: $(x + \beta)^2 / (4 \beta)$ for $|x| < \beta$.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta > 0$, broadcastable to `x`: half the width of the bend.

    Returns:
        Same shape and dtype as `x`; once, not twice, differentiable at $\pm \beta$.
    """
    below = x < beta
    # Where the parabola is not taken, its square would overflow half precision.
    rising = torch.where(below, F.relu(x + beta), 0.0)
    return torch.where(below, rising * rising / (4 * beta), x)


SPECS = (
    Spec(
        name="nlrelu",
        title="NLReLU",
        family="rectifier",
        function=nlrelu,
        formula="log(1 + beta * max(0, x))",
        parameters=(Param(name="beta", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="liu2019nlrelu",
        kinks=("0",),
    ),
    Spec(
        name="sign_relu",
        title="SignReLU",
        family="rectifier",
        function=sign_relu,
        formula="where(x >= 0, x, alpha * x / (1 - x))",
        parameters=(Param(name="alpha", default=1.0),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=-1.0),
        source="lin2018signrelu",
        note="With `alpha = 1` it is also called the deep learning unit, DLU. Its lower half is the softsign's.",
        kinks=("0",),
        aliases=("dlu",),
    ),
    Spec(
        name="sine_relu",
        title="SineReLU",
        family="rectifier",
        function=sine_relu,
        formula="where(x > 0, x, epsilon * (sin(x) - cos(x)))",
        parameters=(Param(name="epsilon", default=0.0025),),
        promises=Promises(lower_bound=-0.003535534),
        source="rodrigues2018sinerelu",
        note="Defined like this, it jumps by epsilon at 0. The author's Keras layer takes the larger of the two "
        "branches instead, which is continuous and differs from this between about -epsilon and 0 only. Its advice for "
        "dense networks is 0.006.",
        kinks=("0",),
    ),
    Spec(
        name="smooth_leaky_relu",
        title="SmoothLeakyReLU",
        family="rectifier",
        function=smooth_leaky_relu,
        formula="alpha * x + (1 - alpha) * log(1 + exp(beta * x)) / beta",
        parameters=(
            Param(name="alpha", default=0.01),
            Param(name="beta", default=1.0, low=0.0, open_low=True),
        ),
        promises=Promises(monotonic=True, smooth=True, lipschitz=1.0),
        source="gresele2020relative",
        note="The source has no `beta`, that is 1; the default of `alpha`, that of the leaky ReLU, is ours. For alpha "
        "above 0 it has an inverse, for which the source takes it.",
        aliases=("leaky_softplus",),
    ),
    Spec(
        name="smelu",
        title="SmeLU",
        family="rectifier",
        function=smelu,
        formula="where(x <= -beta, 0, where(x >= beta, x, (x + beta)**2 / (4 * beta)))",
        parameters=(Param(name="beta", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lipschitz=1.0, lower_bound=0.0),
        source="shamir2020smelu",
        note="The default of beta, at which it is exactly `sparseplus`, is ours.",
    ),
)
