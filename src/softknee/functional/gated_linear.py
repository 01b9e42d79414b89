"""Gated linear units: a gate computed from one half of the input times the other half, the value."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional.gates_by_cdf import xatlu

VALUE = Param(name="value", default=1.0, given=True)


def glu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""Gated linear unit, $\sigma(x)\,v$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sigmoid(x) * value


def gtu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""Gated tanh unit, $\sigma(x) \tanh(v)$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sigmoid(x) * torch.tanh(as_tensor(value, x))


def bilinear(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""Bilinear unit, $x\,v$: a gated linear unit without a function in its gate.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return x * value


def reglu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""ReLU-gated linear unit, $\max(0, x)\,v$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative by a gate of 0 is 0.
    """
    return F.relu(x) * value


def geglu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""GELU-gated linear unit, $x\,\Phi(x)\,v$ with the normal distribution function $\Phi$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.gelu(x) * value


def geglu_tanh(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""GEGLU with the approximate GELU, $\tfrac x2 (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715 x^3)))\,v$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return F.gelu(x, approximate="tanh") * value


def swiglu(x: Tensor, value: Tensor | float = 1.0, beta: Tensor | float = 1.0) -> Tensor:
    r"""Swish-gated linear unit, $x\,\sigma(\beta x)\,v$.

    At another $\beta$ than the number 1, half precision is computed in float32.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.
        beta: $\beta$, likewise.

    Returns:
        Same shape and dtype as `x`.
    """
    if not isinstance(beta, Tensor) and beta == 1:
        return F.silu(x) * value
    return _swiglu(x, value, beta)


@widening
def xatglu(x: Tensor, value: Tensor | float = 1.0, alpha: Tensor | float = 0.0) -> Tensor:
    r"""Arctan-gated linear unit of an expanded range, $x\,((1 + 2\alpha)\,g(x) - \alpha)\,v$.

    The gate is $g(x) = \tfrac12 + \tfrac1\pi \arctan x$. Half precision is computed in float32.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.
        alpha: $\alpha$, likewise.

    Returns:
        Same shape and dtype as `x`.
    """
    return xatlu(x, alpha) * value


def dreglu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""Gated linear unit with ReLU in both halves, $\max(0, x) \max(0, v)$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; the derivative by a gate or a value of 0 is 0.
    """
    return F.relu(x) * F.relu(as_tensor(value, x))


def squared_reglu(x: Tensor, value: Tensor | float = 1.0) -> Tensor:
    r"""Gated linear unit with a squared ReLU, $\max(0, x)^2\,v$.

    Args:
        x: The gate: any shape, any floating dtype.
        value: $v$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    rectified = F.relu(x)
    # In this order, for the square alone leaves the range of half precision early.
    return rectified * (rectified * value)


@widening
def _swiglu(x: Tensor, value: Tensor | float, beta: Tensor | float) -> Tensor:
    return x * torch.sigmoid(beta * x) * value


def as_tensor(value: Tensor | float, like: Tensor) -> Tensor:
    """Return a value as a tensor, in the dtype of another where it is a number."""
    return value if isinstance(value, Tensor) else like.new_full((), value)


SPECS = (
    Spec(
        name="glu",
        title="GLU",
        family="glu",
        kind="gated",
        dim=-1,
        gate_first=False,
        function=glu,
        formula="value / (1 + exp(-x))",
        parameters=(VALUE,),
        promises=Promises(smooth=True),
        source="dauphin2017glu",
        note="As in torch.nn.GLU, the second half is the gate; most language models have it first.",
    ),
    Spec(
        name="gtu",
        title="GTU",
        family="glu",
        kind="gated",
        dim=-1,
        gate_first=False,
        function=gtu,
        formula="tanh(value) / (1 + exp(-x))",
        parameters=(VALUE,),
        promises=Promises(smooth=True, lower_bound=-1.0, upper_bound=1.0),
        source="oord2016pixelcnn",
        note="The gate is the half that goes through the sigmoid, the second one as in GLU.",
        users="PixelCNN, WaveNet",
    ),
    Spec(
        name="bilinear",
        title="Bilinear",
        family="glu",
        kind="gated",
        dim=-1,
        function=bilinear,
        formula="x * value",
        parameters=(VALUE,),
        promises=Promises(smooth=True, odd=True, zero_at_zero=True),
        source="shazeer2020glu",
        note="torch.nn.Bilinear is a layer with a weight tensor and has nothing to do with it.",
    ),
    Spec(
        name="reglu",
        title="ReGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=reglu,
        formula="max(x, 0) * value",
        parameters=(VALUE,),
        promises=Promises(zero_at_zero=True),
        source="shazeer2020glu",
        kinks=("0",),
    ),
    Spec(
        name="geglu",
        title="GEGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=geglu,
        formula="x * (1 + erf(x / sqrt(2))) / 2 * value",
        parameters=(VALUE,),
        promises=Promises(smooth=True, zero_at_zero=True),
        source="shazeer2020glu",
        note="T5 1.1 and Gemma have the tanh approximation in it; that is GEGLUTanh.",
    ),
    Spec(
        name="geglu_tanh",
        title="GEGLUTanh",
        family="glu",
        kind="gated",
        dim=-1,
        function=geglu_tanh,
        formula="x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) * value",
        parameters=(VALUE,),
        promises=Promises(smooth=True, zero_at_zero=True),
        source="shazeer2020glu",
        users="T5 1.1, Gemma",
    ),
    Spec(
        name="swiglu",
        title="SwiGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=swiglu,
        formula="x / (1 + exp(-beta * x)) * value",
        parameters=(VALUE, Param(name="beta", default=1.0)),
        promises=Promises(smooth=True, zero_at_zero=True),
        source="shazeer2020glu",
        users="PaLM, Llama, Mistral, Qwen",
    ),
    Spec(
        name="xatglu",
        title="XATGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=xatglu,
        formula="x * ((atan(x) + 2 * atan(1)) / (4 * atan(1)) * (1 + 2 * alpha) - alpha) * value",
        parameters=(VALUE, Param(name="alpha", default=0.0, trainable=True)),
        promises=Promises(smooth=True, zero_at_zero=True),
        source="huang2024gating",
    ),
    Spec(
        name="dreglu",
        title="DReGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=dreglu,
        formula="max(x, 0) * max(value, 0)",
        parameters=(VALUE,),
        promises=Promises(zero_at_zero=True, lower_bound=0.0),
        source="song2024turbosparse",
        kinks=("0",),
        note="The paper calls it dReLU, a name that displaced, dual and dynamic ReLU bear as well.",
        users="TurboSparse",
    ),
    Spec(
        name="squared_reglu",
        title="SquaredReGLU",
        family="glu",
        kind="gated",
        dim=-1,
        function=squared_reglu,
        formula="max(x, 0)**2 * value",
        parameters=(VALUE,),
        promises=Promises(zero_at_zero=True),
        source="so2021primer",
        note="The paper has the squared ReLU without a value; as a gate it is folklore.",
    ),
)
