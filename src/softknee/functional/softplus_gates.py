"""Relatives of Mish and TeLU: x times a saturating function of a softplus, a sigmoid or an exponential."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening

# exp(-exp(5)) is below 1e-64.
SATURATED = 5.0
# exp(40) is 2e17: far beyond where tanh and erf are 1, and its square still fits float32.
FAR = 40.0


def serf(x: Tensor) -> Tensor:
    r"""Serf, $x\,\mathrm{erf}(\ln(1 + e^x))$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.erf(F.softplus(x))


@widening
def smish(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 1.0) -> Tensor:
    r"""Smish, $\alpha x \tanh(\ln(1 + \sigma(\beta x)))$.

    Written as $\alpha x\,w / (w + 2)$ with $w = s (s + 2)$ and $s = \sigma(\beta x)$: one exponential instead of three
    functions. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    s = torch.sigmoid(beta * x)
    w = s * (s + 2)
    return alpha * x * (w / (w + 2))


@widening
def logish(x: Tensor, alpha: Tensor | float = 1.0, beta: Tensor | float = 1.0) -> Tensor:
    r"""Logish, $\alpha x \ln(1 + \sigma(\beta x))$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return alpha * x * torch.log1p(torch.sigmoid(beta * x))


def gish(x: Tensor) -> Tensor:
    r"""Gish, $x \ln(2 - e^{-e^x})$.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.log1p(-torch.expm1(-torch.exp(x.clamp(max=SATURATED))))


@widening
def tanhsoft1(x: Tensor, alpha: Tensor | float = 0.87) -> Tensor:
    r"""TanhSoft-1, $\tanh(\alpha x) \ln(1 + e^x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.tanh(alpha * x) * F.softplus(x, threshold=FAR)


@widening
def tanhsoft2(x: Tensor, beta: Tensor | float = 0.6, gamma: Tensor | float = 1.0) -> Tensor:
    r"""TanhSoft-2, $x \tanh(\beta e^{\gamma x})$; TeLU of 2024 at $\beta = \gamma = 1$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.
        gamma: $\gamma$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.tanh(beta * torch.exp((gamma * x).clamp(max=FAR)))


@widening
def tanhsoft3(x: Tensor, delta: Tensor | float = 0.85) -> Tensor:
    r"""TanhSoft-3, $\ln(1 + e^x \tanh(\delta x))$.

    Above 0 written as $x + \ln(e^{-x} + \tanh(\delta x))$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        delta: $\delta > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    positive = x > 0
    e, t = torch.exp(torch.where(positive, -x, x)), torch.tanh(delta * x)
    return torch.where(positive, x, 0.0) + torch.log1p(torch.where(positive, e - 1 + t, e * t))


@widening
def erfact(x: Tensor, alpha: Tensor | float = 0.75, beta: Tensor | float = 0.75) -> Tensor:
    r"""ErfAct, $x\,\mathrm{erf}(\alpha e^{\beta x})$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.erf(alpha * torch.exp((beta * x).clamp(max=FAR)))


@widening
def pserf(x: Tensor, gamma: Tensor | float = 1.25, delta: Tensor | float = 0.85) -> Tensor:
    r"""Parametric Serf, $x\,\mathrm{erf}(\gamma \ln(1 + e^{\delta x}))$; Serf at $\gamma = \delta = 1$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        gamma: $\gamma$, broadcastable to `x`.
        delta: $\delta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * torch.erf(gamma * F.softplus(delta * x, threshold=FAR))


SPECS = (
    Spec(
        name="serf",
        title="Serf",
        family="gated",
        function=serf,
        formula="x * erf(log(1 + exp(x)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0861255, lower_bound=-0.34843746),
        source="nag2021serf",
    ),
    Spec(
        name="smish",
        title="Smish",
        family="gated",
        function=smish,
        formula="alpha * x * tanh(log(1 + 1 / (1 + exp(-beta * x))))",
        parameters=(Param(name="alpha", default=1.0), Param(name="beta", default=1.0)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=0.6368843, lower_bound=-0.24999367),
        source="wang2022smish",
        note="At large inputs it is 0.6 alpha x, not alpha x: tanh(ln 2) = 3/5.",
    ),
    Spec(
        name="logish",
        title="Logish",
        family="gated",
        function=logish,
        formula="alpha * x * log(1 + 1 / (1 + exp(-beta * x)))",
        parameters=(Param(name="alpha", default=1.0), Param(name="beta", default=1.0)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=0.7463112, lower_bound=-0.25276882),
        source="zhu2021logish",
        note="The paper also tries alpha = 1, beta = 10, which a survey calls pLogish. At large inputs it is "
        "alpha x ln 2.",
    ),
    Spec(
        name="gish",
        title="Gish",
        family="gated",
        function=gish,
        formula="x * log(2 - exp(-exp(x)))",
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=0.7527046, lower_bound=-0.27815947),
        source="kaytan2023gish",
        note="At large inputs it is x ln 2.",
    ),
    Spec(
        name="tanhsoft1",
        title="TanhSoft1",
        family="gated",
        function=tanhsoft1,
        formula="tanh(alpha * x) * log(1 + exp(x))",
        parameters=(Param(name="alpha", default=0.87, trainable=True),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0989161, lower_bound=-0.22378488),
        source="biswas2021tanhsoft",
        note="It starts at the value that the authors' first paper (arXiv 2009.03863) found best.",
    ),
    Spec(
        name="tanhsoft2",
        title="TanhSoft2",
        family="gated",
        function=tanhsoft2,
        formula="x * tanh(beta * exp(gamma * x))",
        parameters=(Param(name="beta", default=0.6, trainable=True), Param(name="gamma", default=1.0, trainable=True)),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1580582, lower_bound=-0.21731676),
        source="biswas2021tanhsoft",
        note="It starts at the values that the authors' first paper (arXiv 2009.03863) found best.",
    ),
    Spec(
        name="tanhsoft3",
        title="TanhSoft3",
        family="gated",
        function=tanhsoft3,
        formula="log(1 + exp(x) * tanh(delta * x))",
        parameters=(Param(name="delta", default=0.85, trainable=True, low=0.0, open_low=True),),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.1114064, lower_bound=-0.30937671),
        source="biswas2021tanhsoft",
        note="The start at 0.85 could not be compared with the paper. For delta <= 0 the logarithm has no value.",
    ),
    Spec(
        name="erfact",
        title="ErfAct",
        family="gated",
        function=erfact,
        formula="x * erf(alpha * exp(beta * x))",
        parameters=(
            Param(name="alpha", default=0.75, trainable=True),
            Param(name="beta", default=0.75, trainable=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0915994, lower_bound=-0.40528085),
        source="biswas2022erfact",
    ),
    Spec(
        name="pserf",
        title="Pserf",
        family="gated",
        function=pserf,
        formula="x * erf(gamma * log(1 + exp(delta * x)))",
        parameters=(
            Param(name="gamma", default=1.25, trainable=True),
            Param(name="delta", default=0.85, trainable=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lipschitz=1.0535645, lower_bound=-0.50600688),
        source="biswas2022erfact",
        note="It starts where code of later papers starts it; the paper's own start was not seen.",
    ),
)
