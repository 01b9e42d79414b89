"""Lets a loss be differentiated twice where torch's fastest kernels cannot be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Run models by kernels that have second derivatives, with the same results up to rounding.

    Beside attention, recurrent layers run without cuDNN, and Hardsigmoid by clamping: the gradients of torch's own
    kernels for these have no gradients.
    """
    with plain_attention(), torch.backends.cudnn.flags(enabled=False), _ByClamping():
        yield


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Run attention by its formula and encoder layers by their parts: `vmap` and second derivatives know no others."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _ByClamping(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, Hardsigmoid as clamped straight line."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        return _hardsigmoid(name, *args, **kwargs) if name in _HARDSIGMOIDS else func(*args, **kwargs)


_HARDSIGMOIDS = frozenset({"hardsigmoid", "hardsigmoid_"})


def _hardsigmoid(name: str, input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002 (torch's name)
    value = F.relu6(input + 3) / 6
    return input.copy_(value) if inplace or name.endswith("_") else value
