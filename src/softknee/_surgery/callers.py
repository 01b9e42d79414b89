"""What of Python stands between a model and the function of torch that it calls."""

from __future__ import annotations

import sys
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from torch import overrides
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# Why what is called in some way cannot be replaced, by the module whose code stands between.
_BETWEEN = {
    "torch.utils.checkpoint": "it is called inside a checkpointed function, which runs again without its module; "
    "put it into a module of its own",
    "torch.autograd.function": "it is called inside a torch.autograd.Function, whose backward is written for what was "
    "there; put another in its place",
    "torch._dynamo.eval_frame": "it is called inside a compiled function; swap before compiling",
}
# Where functions of torch are written that call other ones.
_FUNCTIONS = "torch.nn.functional"
# Where the code of a module is entered.
_ENTRY = "torch.nn.modules.module"


def hidden(*, by_hook: bool = False) -> str:
    """Return what stands between the running module and what it calls and keeps that from being replaced.

    Args:
        by_hook: Whether a hook of the module that it calls asks.
    """
    callers = _callers()
    if by_hook:
        # Where that module is entered.
        callers = dropwhile(lambda name: name == _ENTRY, dropwhile(lambda name: name != _ENTRY, callers))
    found = next((name for name in callers if name in _BETWEEN or name == _ENTRY), _ENTRY)
    return _BETWEEN.get(found, "")


def outermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of torch that the model called, which compilers see: `F.tanh` rather than what is in it."""
    for frame in dropwhile(_is_between, _frames()):
        if _module_of(frame) != _FUNCTIONS:
            break
        function = getattr(F, frame.f_code.co_name, function)
    return function


def _is_between(frame: FrameType) -> bool:
    """Return whether it is our code that is running, or torch's that calls it."""
    return _module_of(frame).startswith((f"{__package__}.", overrides.__name__))


def _callers() -> Iterator[str]:
    """Yield the names of the modules of Python whose code is running, innermost first."""
    return map(_module_of, _frames())


def _module_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
