"""Functions that are differentiated as if they were others: steps with a slope, a ReLU that does not die."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening


@widening
def sugar(x: Tensor, alpha: Tensor | float = 1.67) -> Tensor:
    r"""SUGAR: the ReLU, differentiated as the B-SiLU $(x + \alpha)\,\sigma(x) - \alpha / 2$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $1/2 + \alpha / 4$.
    """
    return _differentiated_as((x + alpha) * torch.sigmoid(x) - alpha / 2, F.relu(x))


@widening
def sugar_nelu(x: Tensor, alpha: Tensor | float = 0.01) -> Tensor:
    r"""SUGAR with NeLU: the ReLU, whose derivative for $x \le 0$ is $2 \alpha x / (1 + x^2)^2$, negative.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        alpha: $\alpha$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0.
    """
    square = x.square()
    return _differentiated_as(torch.where(x > 0, x, alpha * (square / (1 + square))), F.relu(x))


def step_ste(x: Tensor, clip: Tensor | float = 1.0) -> Tensor:
    r"""Binary step, 1 for $x \ge 0$, else 0, with a straight-through estimator: its derivative is $[|x| \le c]$.

    Args:
        x: Any shape, any floating dtype.
        clip: $c > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _differentiated_as(_clipped(x, clip), _step(x))


def sign_ste(x: Tensor, clip: Tensor | float = 1.0) -> Tensor:
    r"""Sign, 1 for $x \ge 0$, else -1, with a straight-through estimator: its derivative is $[|x| \le c]$.

    Args:
        x: Any shape, any floating dtype.
        clip: $c > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _differentiated_as(_clipped(x, clip), 2 * _step(x) - 1)


@widening
def super_spike(x: Tensor, beta: Tensor | float = 100.0) -> Tensor:
    r"""Spike, 1 for $x \ge 0$, else 0, with SuperSpike's derivative $1 / (1 + \beta |x|)^2$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype: how far the membrane is above its threshold.
        beta: $\beta > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return _differentiated_as(x / (1 + beta * x.abs()), _step(x))


@widening
def atan_spike(x: Tensor, alpha: Tensor | float = 2.0) -> Tensor:
    r"""Spike, 1 for $x \ge 0$, else 0, differentiated as $\arctan(\pi \alpha x / 2) / \pi$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype: how far the membrane is above its threshold.
        alpha: $\alpha > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is $\alpha / 2$.
    """
    return _differentiated_as(torch.atan(math.pi / 2 * alpha * x) / math.pi, _step(x))


def triangle_spike(x: Tensor, gamma: Tensor | float = 0.3) -> Tensor:
    r"""Spike, 1 for $x \ge 0$, else 0, with a triangle as its derivative, $\gamma \max(0, 1 - |x|)$.

    Args:
        x: Any shape, any floating dtype: how far the membrane is above its threshold, relatively to it.
        gamma: $\gamma > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    place = _clipped(x, 1.0)
    return _differentiated_as(gamma * (place - place * place.abs() / 2), _step(x))


def _differentiated_as(surrogate: Tensor, value: Tensor) -> Tensor:
    """Return the value with the derivatives of the surrogate, which must be finite: its difference to itself is 0."""
    return (surrogate - surrogate.detach()) + value.detach()


def _step(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, torch.zeros_like(x))


def _clipped(x: Tensor, clip: Tensor | float) -> Tensor:
    """Clip to `[-clip, clip]`; the derivative at either end is 1."""
    return torch.where(x > clip, clip, torch.where(x < -clip, -clip, x))


_STEP = "where(x >= 0, 1, 0)"
_CLIPPED = "min(max(x, -clip), clip)"

SPECS = (
    Spec(
        name="sugar",
        title="SUGAR",
        family="surrogate",
        function=sugar,
        formula="max(x, 0)",
        surrogate="(x + alpha) / (1 + exp(-x)) - alpha / 2",
        parameters=(Param(name="alpha", default=1.67),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="horuz2025sugar",
        note="In evaluation it is the ReLU; units that are off go on learning, for the derivative of the B-SiLU there "
        "is not 0, but positive near 0 and negative far below.",
    ),
    Spec(
        name="sugar_nelu",
        title="SUGARNeLU",
        family="surrogate",
        function=sugar_nelu,
        formula="max(x, 0)",
        surrogate="where(x > 0, x, alpha - alpha / (1 + x**2))",
        parameters=(Param(name="alpha", default=0.01),),
        promises=Promises(monotonic=True, zero_at_zero=True, lipschitz=1.0, lower_bound=0.0),
        source="horuz2025sugar",
        note="The second surrogate of SUGAR's authors, who report little or no gain from it; 0.01 is the best of the "
        "three values they compare.",
        kinks=("0",),
    ),
    Spec(
        name="step_ste",
        title="StepSTE",
        family="surrogate",
        function=step_ste,
        formula=_STEP,
        surrogate=_CLIPPED,
        parameters=(Param(name="clip", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lower_bound=0.0, upper_bound=1.0),
        source="bengio2013ste",
        note="The first straight-through estimators had the derivative 1 everywhere; that it ends where the input is "
        "large is from binarized networks. The value at 0 is 1.",
        kinks=("-clip", "clip"),
        aliases=("binary_step",),
    ),
    Spec(
        name="sign_ste",
        title="SignSTE",
        family="surrogate",
        function=sign_ste,
        formula="where(x >= 0, 1, -1)",
        surrogate=_CLIPPED,
        parameters=(Param(name="clip", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lower_bound=-1.0, upper_bound=1.0),
        source="hubara2016binarized",
        note="The value at 0 is 1, so that every output is binary.",
        users="binarized networks",
        kinks=("-clip", "clip"),
    ),
    Spec(
        name="super_spike",
        title="SuperSpike",
        family="surrogate",
        function=super_spike,
        formula=_STEP,
        surrogate="x / (1 + beta * abs(x))",
        parameters=(Param(name="beta", default=100.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lower_bound=0.0, upper_bound=1.0),
        source="zenke2018superspike",
        note="The surrogate is the fast sigmoid. The default of beta is that of the authors' later tutorial code; it "
        "depends on the unit of the membrane's voltage. The value at 0 is 1.",
        users="networks of spiking neurons",
    ),
    Spec(
        name="atan_spike",
        title="AtanSpike",
        family="surrogate",
        function=atan_spike,
        formula=_STEP,
        surrogate="atan(pi / 2 * alpha * x) / pi + 1 / 2",
        parameters=(Param(name="alpha", default=2.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lower_bound=0.0, upper_bound=1.0),
        source="fang2021plif",
        note="The paper has alpha = 2. The value at 0 is 1.",
        users="networks of spiking neurons",
    ),
    Spec(
        name="triangle_spike",
        title="TriangleSpike",
        family="surrogate",
        function=triangle_spike,
        formula=_STEP,
        surrogate="gamma * (min(max(x, -1), 1) - min(max(x, -1), 1) * abs(min(max(x, -1), 1)) / 2)",
        parameters=(Param(name="gamma", default=0.3, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, lower_bound=0.0, upper_bound=1.0),
        source="bellec2018lsnn",
        note="Gamma dampens gradients that pass through many steps of time. The value at 0 is 1.",
        users="networks of spiking neurons",
    ),
)
