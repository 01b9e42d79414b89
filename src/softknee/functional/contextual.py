"""Functions whose parameters a small network computes from the input: here, the function of those parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional.trainable_gates import acon_c

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def frelu(x: Tensor, condition: Tensor | float = 0.0) -> Tensor:
    r"""Funnel ReLU, $\max(x, T(x))$ with a condition $T$ that a small filter computes from the surroundings.

    Args:
        x: Any shape, any floating dtype.
        condition: $T(x)$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; at a tie $x$ and the condition have half of the derivative each.
    """
    return torch.maximum(x, condition if isinstance(condition, Tensor) else x.new_full((), condition))


def dynamic_relu(
    x: Tensor,
    slope_1: Tensor | float = 1.0,
    slope_2: Tensor | float = 0.0,
    intercept_1: Tensor | float = 0.0,
    intercept_2: Tensor | float = 0.0,
) -> Tensor:
    r"""Dynamic ReLU, $\max(a_1 x + b_1, a_2 x + b_2)$ with lines that a small network chooses.

    Args:
        x: Any shape, any floating dtype.
        slope_1: $a_1$, broadcastable to `x`.
        slope_2: $a_2$, likewise.
        intercept_1: $b_1$, likewise.
        intercept_2: $b_2$, likewise.

    Returns:
        Same shape and dtype as `x`; where the lines cross the derivatives are the mean of both sides.
    """
    return torch.maximum(slope_1 * x + intercept_1, slope_2 * x + intercept_2)


def meta_acon(x: Tensor, p1: Tensor | float = 1.0, p2: Tensor | float = 0.0, beta: Tensor | float = 0.5) -> Tensor:
    r"""Meta-ACON, $(p_1 - p_2) x\,\sigma(\beta (p_1 - p_2) x) + p_2 x$ with a $\beta$ that a small network chooses.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        p1: $p_1$, broadcastable to `x`.
        p2: $p_2$, likewise.
        beta: $\beta$, likewise.

    Returns:
        Same shape and dtype as `x`.
    """
    return acon_c(x, p1, p2, beta)


def atac(x: Tensor, gate: Tensor | float = 0.5) -> Tensor:
    r"""Attentional activation, $x\,g$ with a gate $g$ from 0 to 1 that a small network computes at each place.

    Args:
        x: Any shape, any floating dtype.
        gate: $g$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * gate


def gated_mix(
    x: Tensor,
    relu_weight: Tensor | float = 0.25,
    gelu_weight: Tensor | float = 0.25,
    silu_weight: Tensor | float = 0.25,
    tanh_weight: Tensor | float = 0.25,
) -> Tensor:
    r"""Mixture of four functions, $g_1 \max(0, x) + g_2\,x\,\Phi(x) + g_3\,x\,\sigma(x) + g_4 \tanh(x)$.

    The weights, which a small network chooses, are not negative and sum to 1.

    Args:
        x: Any shape, any floating dtype.
        relu_weight: $g_1$, broadcastable to `x`.
        gelu_weight: $g_2$, likewise.
        silu_weight: $g_3$, likewise.
        tanh_weight: $g_4$, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative of the first at 0 is 0.
    """
    return mixed(x, (relu_weight, gelu_weight, silu_weight, tanh_weight), (F.relu, F.gelu, F.silu, torch.tanh))


def mixed(x: Tensor, weights: Sequence[Tensor | float], functions: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Return the weighted sum of functions of the same input.

    Args:
        x: Any shape, any floating dtype.
        weights: Each broadcastable to `x`.
        functions: As many.

    Returns:
        Same shape and dtype as `x`.
    """
    total = weights[0] * functions[0](x)
    for weight, function in zip(weights[1:], functions[1:], strict=True):
        total = total + weight * function(x)
    return total


_MIX = (
    "relu_weight * max(x, 0) + gelu_weight * x * (1 + erf(x / sqrt(2))) / 2"
    " + silu_weight * x / (1 + exp(-x)) + tanh_weight * tanh(x)"
)

SPECS = (
    Spec(
        name="frelu",
        title="FReLU",
        family="contextual",
        kind="contextual",
        function=frelu,
        formula="max(x, condition)",
        parameters=(Param(name="condition", default=0.0, given=True),),
        promises=Promises(vmap=False),
        source="ma2020funnel",
        kinks=("condition",),
        aliases=("funnel_relu",),
        note="The condition is a depthwise convolution with batch normalization, so it looks at neighbours in space"
        " and, in training, in the batch. The flexible ReLU of 2017 bears the name too; that is flexible_relu.",
    ),
    Spec(
        name="dynamic_relu",
        title="DynamicReLU",
        family="contextual",
        kind="contextual",
        function=dynamic_relu,
        formula="max(slope_1 * x + intercept_1, slope_2 * x + intercept_2)",
        parameters=(
            Param(name="slope_1", default=1.0, given=True),
            Param(name="slope_2", default=0.0, given=True),
            Param(name="intercept_1", default=0.0, given=True),
            Param(name="intercept_2", default=0.0, given=True),
        ),
        promises=Promises(vmap=False),
        source="chen2020dynamic",
        kinks=("(intercept_2 - intercept_1) / (slope_1 - slope_2)",),
        aliases=("dy_relu", "dyrelu"),
        note="Lines for each channel (variant B of the paper) or for all (A); the variant with attention in space (C)"
        " is not here. Slopes stay in [0, 2] and [-1, 1], intercepts in [-0.5, 0.5].",
    ),
    Spec(
        name="meta_acon",
        title="MetaACON",
        family="contextual",
        kind="contextual",
        function=meta_acon,
        formula="(p1 - p2) * x / (1 + exp(-beta * (p1 - p2) * x)) + p2 * x",
        parameters=(
            Param(name="p1", default=1.0, trainable=True),
            Param(name="p2", default=0.0, trainable=True),
            Param(name="beta", default=0.5, given=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, vmap=False),
        source="ma2021acon",
        note="The authors' code has batch normalization in the network, which fails in training with a single sample;"
        " here it is an option. As in that code, p1 and p2 are drawn from a normal distribution;"
        " `initialization='swish'` starts them at 1 and 0, as the curve here has it.",
    ),
    Spec(
        name="atac",
        title="ATAC",
        family="contextual",
        kind="contextual",
        function=atac,
        formula="x * gate",
        parameters=(Param(name="gate", default=0.5, given=True),),
        promises=Promises(zero_at_zero=True, vmap=False),
        source="dai2020atac",
        note="The gate looks at all channels in the same place. The reduction of 4 is ours; the paper varies it.",
    ),
    Spec(
        name="gated_mix",
        title="GatedMix",
        family="contextual",
        kind="contextual",
        function=gated_mix,
        formula=_MIX,
        parameters=(
            Param(name="relu_weight", default=0.25, given=True),
            Param(name="gelu_weight", default=0.25, given=True),
            Param(name="silu_weight", default=0.25, given=True),
            Param(name="tanh_weight", default=0.25, given=True),
        ),
        promises=Promises(zero_at_zero=True, vmap=False),
        source="chapter",
        kinks=("0",),
        note="A mixture of experts whose experts are activations. The four and the network, which starts at equal"
        " weights, are ours; the module takes any functions of the catalogue.",
    ),
)
