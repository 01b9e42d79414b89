"""Gated linear units whose halves are limited, for low precision and stable training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional.gated_linear import VALUE, as_tensor

if TYPE_CHECKING:
    from torch import Tensor


@widening
def swiglu_clamped(x: Tensor, value: Tensor | float = 1.0, limit: Tensor | float = 10.0) -> Tensor:
    r"""SwiGLU of limited halves, $g\,\sigma(g)\,u$ with $g = \min(x, l)$ and $u = \min(\max(v, -l), l)$.

    Half precision is computed in float32.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.
        limit: $l > 0$, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative at a limit is that from inside.
    """
    return F.silu(x.clamp(max=limit)) * _limited(as_tensor(value, x), limit)


@widening
def swiglu_oai(
    x: Tensor, value: Tensor | float = 1.0, limit: Tensor | float = 7.0, alpha: Tensor | float = 1.702
) -> Tensor:
    r"""SwiGLU of gpt-oss, $g\,\sigma(\alpha g)\,(u + 1)$ with $g = \min(x, l)$ and $u = \min(\max(v, -l), l)$.

    Half precision is computed in float32.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.
        limit: $l > 0$, likewise.
        alpha: $\alpha$, likewise.

    Returns:
        Same shape and dtype as `x`; the derivative at a limit is that from inside.
    """
    gate = x.clamp(max=limit)
    return gate * torch.sigmoid(alpha * gate) * (_limited(as_tensor(value, x), limit) + 1)


@widening
def situ_glu(
    x: Tensor, value: Tensor | float = 1.0, gate_cap: Tensor | float = 4.0, value_cap: Tensor | float = 25.0
) -> Tensor:
    r"""Sigmoid-tanh unit, $\beta_1 \tanh(x / \beta_1)\,\sigma(x) \cdot \beta_2 \tanh(v / \beta_2)$.

    Half precision is computed in float32.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.
        gate_cap: $\beta_1 > 0$, likewise.
        value_cap: $\beta_2 > 0$, likewise.

    Returns:
        Same shape and dtype as `x`.
    """
    gate = gate_cap * torch.tanh(x / gate_cap) * torch.sigmoid(x)
    return gate * (value_cap * torch.tanh(as_tensor(value, x) / value_cap))


def _limited(value: Tensor, limit: Any) -> Tensor:
    return value.clamp(-limit, limit)


SPECS = (
    Spec(
        name="swiglu_clamped",
        title="SwiGLUClamped",
        family="glu",
        kind="gated",
        dim=-1,
        function=swiglu_clamped,
        formula="min(x, limit) / (1 + exp(-min(x, limit))) * min(max(value, -limit), limit)",
        parameters=(
            VALUE,
            Param(name="limit", default=10.0, low=0.0, open_low=True),
        ),
        promises=Promises(zero_at_zero=True, lower_bound=-99.995461, upper_bound=99.995461),
        source="deepseek2026v4",
        kinks=("limit",),
        note="The gate is limited from above only, for SiLU is bounded from below.",
        users="DeepSeek-V4, GLM-5.3",
    ),
    Spec(
        name="swiglu_oai",
        title="SwiGLUOAI",
        family="glu",
        kind="gated",
        dim=-1,
        function=swiglu_oai,
        formula="min(x, limit) / (1 + exp(-alpha * min(x, limit))) * (min(max(value, -limit), limit) + 1)",
        parameters=(
            VALUE,
            Param(name="limit", default=7.0, low=0.0, open_low=True),
            Param(name="alpha", default=1.702),
        ),
        promises=Promises(zero_at_zero=True, lower_bound=-41.999719, upper_bound=55.999626),
        source="openai2025gptoss",
        kinks=("limit",),
        note="In the weights of gpt-oss gates and values alternate, the gate first: pass interleaved=True for those.",
        users="gpt-oss",
    ),
    Spec(
        name="situ_glu",
        title="SiTUGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=situ_glu,
        formula="gate_cap * tanh(x / gate_cap) / (1 + exp(-x)) * value_cap * tanh(value / value_cap)",
        parameters=(
            VALUE,
            Param(name="gate_cap", default=4.0, low=0.0, open_low=True),
            Param(name="value_cap", default=25.0, low=0.0, open_low=True),
        ),
        promises=Promises(smooth=True, zero_at_zero=True, lower_bound=-100.0, upper_bound=100.0),
        source="kimi2026k3",
        note="Near 0 it is SwiGLU up to terms of higher order, but its size stays below gate_cap * value_cap = 100.",
        users="Kimi K3",
    ),
)
