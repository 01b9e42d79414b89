"""Half precision, and squares, where a formula's intermediate results leave the range of its dtype."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Function = TypeVar("Function", bound=Callable[..., Tensor])


def widened(x: Tensor) -> Tensor:
    """Return half precision as float32, any other dtype as it is; the caller casts its result back.

    A parameter is widened once, so that the parts of its gradient add up before they are rounded to half precision.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        The same numbers, in float32 or wider.
    """
    return x.float() if x.dtype in {torch.float16, torch.bfloat16} else x


def widening(function: Function) -> Function:
    """Compute a function of `x` and parameters in float32 where `x` has half precision, and cast its result back.

    For functions whose products leave half precision's range, or cancel in it.

    Args:
        function: `f(x, *parameters)`, each parameter a number or a tensor.

    Returns:
        The same function, for every floating dtype.
    """

    @wraps(function)
    def computed(x: Tensor, *parameters: Any, **named: Any) -> Tensor:
        wide = [_widened(value) for value in parameters]
        result = function(widened(x), *wide, **{name: _widened(value) for name, value in named.items()})
        return result.to(x.dtype)

    return computed  # type: ignore[return-value]


def _widened(value: Tensor | float) -> Tensor | float:
    return widened(value) if isinstance(value, Tensor) else value


def hypotenuse(a: Tensor, b: Tensor) -> Tensor:
    r"""Return $\sqrt{a^2 + b^2}$ without squaring large numbers; `torch.hypot` cannot be exported to ONNX.

    Args:
        a: Any shape, any floating dtype.
        b: Broadcastable to `a`; one of them is not 0.

    Returns:
        In their common shape.
    """
    # The result does not depend on the scale, so nor do its derivatives.
    size = torch.maximum(a.detach().abs(), b.detach().abs())
    return size * torch.sqrt((a / size).square() + (b / size).square())
