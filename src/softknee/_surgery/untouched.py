"""Runs models so that nothing of it remains."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from softknee._surgery.trace import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How a tensor is told that it requires gradients.
_SETTERS = (Tensor.requires_grad_, Tensor.requires_grad.__set__)  # type: ignore[attr-defined]


class _Looks(threading.local):
    depth = 0


# How many looks at models are going on in this thread: what runs then is no training, for whoever watches one.
LOOKS = _Looks()


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run a model without gradients; its buffers and the random states are afterwards as before."""
    with torch.no_grad(), restored(model):
        yield


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Run a model; its buffers and the random states are afterwards as before."""
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    values = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    states = random.getstate(), np.random.get_state()
    LOOKS.depth += 1
    try:
        with torch.random.fork_rng([device.index or 0 for device in devices]):
            yield
    finally:
        LOOKS.depth -= 1
        random.setstate(states[0])
        np.random.set_state(states[1])
        for now, before in buffers:
            now.clear()
            now.update(before)
        with torch.no_grad():
            for buffer, value in values:
                # One that is the same may be needed as it is, by a backward pass to come.
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


@contextlib.contextmanager
def gradients_on_demand(*inputs: Any) -> Iterator[None]:
    """Run a model with gradients from where it asks for them, for it may differentiate in its forward.

    Args:
        *inputs: What it is called with, which may ask already.
    """
    asked = any(one.requires_grad for one in tensors_in(inputs))
    with torch.set_grad_enabled(asked), _OnDemand():
        yield


class _OnDemand(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and turn gradients on if it makes a tensor that requires them."""
        kwargs = kwargs or {}
        if kwargs.get("requires_grad", func in _SETTERS and args[1:] != (False,)):
            torch.set_grad_enabled(True)
        return func(*args, **kwargs)
