"""Self-gated functions with a wave in them, and such that grow like a power."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening


def sinsig(x: Tensor) -> Tensor:
    r"""SinSig, $x \sin\bigl(\tfrac\pi2 \sigma(x)\bigr)$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.sin(math.pi / 2 * torch.sigmoid(x))


@widening
def sinlu(x: Tensor, a: Tensor | float = 1.0, b: Tensor | float = 1.0) -> Tensor:
    r"""Sinu-sigmoidal linear unit, $(x + a \sin(b x))\,\sigma(x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, broadcastable to `x`.
        b: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return (x + a * torch.sin(b * x)) * torch.sigmoid(x)


@widening
def coslu(x: Tensor, a: Tensor | float = 1.0, b: Tensor | float = 1.0) -> Tensor:
    r"""Cosine linear unit, $(x + a \cos(b x))\,\sigma(x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, broadcastable to `x`.
        b: $b$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return (x + a * torch.cos(b * x)) * torch.sigmoid(x)


@widening
def gelusine(x: Tensor, alpha: Tensor | float = 0.1) -> Tensor:
    r"""GELUSine, $\mathrm{GELU}(x) + \alpha \sin(x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.gelu(x) + alpha * torch.sin(x)


@widening
def powlu(x: Tensor, m: Tensor | float = 3.0) -> Tensor:
    r"""Power linear unit, $\sigma(x)$ times $x\,x^{m / (\sqrt x + 1)}$ for $x > 0$ and times $x^2$ below.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        m: $m > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    positive = x > 0
    base = torch.where(positive, x, 1.0)
    power = torch.exp((1 + m / (torch.sqrt(base) + 1)) * torch.log(base))
    return torch.where(positive, power, x * x) * torch.sigmoid(x)


@widening
def spocu(
    x: Tensor, alpha: Tensor | float = 3.0937, beta: Tensor | float = 0.6653, gamma: Tensor | float = 4.437
) -> Tensor:
    r"""Scaled polynomial constant unit, $\alpha\,(h(x / \gamma + \beta) - h(\beta))$.

    $h(y) = y^3 (y^5 - 2 y^4 + 2)$ for $y \ge 0$, else 0. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha > 0$, broadcastable to `x`.
        beta: $\beta$ in $(0, 1]$, broadcastable to `x`.
        gamma: $\gamma > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    # Both in the same dtype, so that the value at 0 is 0.
    beta = beta if isinstance(beta, Tensor) else x.new_full((), beta)
    return alpha * (_polynomial(F.relu(x / gamma + beta)) - _polynomial(beta))


def _polynomial(y: Tensor) -> Tensor:
    return y * y * y * (y * y * y * y * (y - 2) + 2)


SPECS = (
    Spec(
        name="sinsig",
        title="SinSig",
        family="gated",
        function=sinsig,
        formula="x * sin(pi / 2 / (1 + exp(-x)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.058889, lower_bound=-0.42917764),
        source="douge2021sinsig",
        note="The squares of its gates at x and -x add up to 1, so its second moment under a standard normal is 1/2 "
        "exactly, as ReLU's.",
    ),
    Spec(
        name="sinlu",
        title="SinLU",
        family="gated",
        function=sinlu,
        formula="(x + a * sin(b * x)) / (1 + exp(-x))",
        parameters=(Param(name="a", default=1.0, trainable=True), Param(name="b", default=1.0, trainable=True)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=2.0079708, lower_bound=-0.49737056),
        source="paul2022sinlu",
    ),
    Spec(
        name="coslu",
        title="CosLU",
        family="gated",
        function=coslu,
        formula="(x + a * cos(b * x)) / (1 + exp(-x))",
        parameters=(Param(name="a", default=1.0, trainable=True), Param(name="b", default=1.0, trainable=True)),
        promises=Promises(smooth=True, lipschitz=2.0237911, lower_bound=-0.28927313),
        source="pishchik2023trainable",
    ),
    Spec(
        name="gelusine",
        title="GELUSine",
        family="gated",
        function=gelusine,
        formula="x * (1 + erf(x / sqrt(2))) / 2 + alpha * sin(x)",
        parameters=(Param(name="alpha", default=0.1),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1543825, lower_bound=-0.24404499),
        source="vitvitskyi2026mining",
        note="Formula as several accounts of the paper agree on it; the paper's own text was not seen.",
    ),
    Spec(
        name="powlu",
        title="PowLU",
        family="gated",
        function=powlu,
        formula="where(x > 0, x * x**(m / (sqrt(max(x, 0)) + 1)), x**2) / (1 + exp(-x))",
        parameters=(Param(name="m", default=3.0, low=0.0, open_low=True),),
        promises=Promises(zero_at_zero=True, lipschitz=6.3848183, lower_bound=0.0),
        source="jiang2026powlu",
        note="The function of one input; language models use the pair, in which another linear map's output replaces "
        "one factor x. The paper's own text was not seen; several accounts of it agree on the formula, and give "
        "0 < m < 10 as the range. Positive on both sides, with a bump of height 0.48 at -2.2.",
    ),
    Spec(
        name="spocu",
        title="SPOCU",
        family="gated",
        function=spocu,
        formula="alpha * where(x / gamma + beta > 0, "
        "(x / gamma + beta)**3 * ((x / gamma + beta)**5 - 2 * (x / gamma + beta)**4 + 2), 0) "
        "- alpha * beta**3 * (beta**5 - 2 * beta**4 + 2)",
        parameters=(
            Param(name="alpha", default=3.0937, low=0.0, open_low=True),
            Param(name="beta", default=0.6653, low=0.0, high=1.0, open_low=True),
            Param(name="gamma", default=4.437, low=0.0, open_low=True),
        ),
        promises=Promises(zero_at_zero=True, lower_bound=-9.84209262),
        source="kiselak2021spocu",
        note="The source's fourth parameter, a point c from which on it is constant, is left at infinity. It grows "
        "with the eighth power of x and falls in between: keep its inputs normalized.",
    ),
)
