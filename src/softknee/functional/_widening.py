"""Functions that are computed in float32 where they are given half precision."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor

from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Function = TypeVar("Function", bound=Callable[..., Tensor])


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
