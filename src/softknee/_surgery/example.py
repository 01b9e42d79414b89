"""What a model is called with, and whether it may be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from softknee._errors import UsageError

if TYPE_CHECKING:
    from torch import nn

# What models are wrapped in to be run by several processes or devices.
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel")


def arguments(example: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return arguments and named arguments.

    Args:
        example: A tensor, a tuple or list of arguments, a dictionary of named ones, or None.

    Returns:
        Both; both empty for None.
    """
    if example is None:
        return (), {}
    if isinstance(example, Mapping):
        return (), example
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def check_unwrapped(model: nn.Module, first: str) -> None:
    """Refuse a model that is wrapped already.

    Args:
        model: It.
        first: What is to be done before, as in "swap".

    Raises:
        UsageError: It is.
    """
    if type(model).__name__ in _WRAPPERS:
        raise UsageError(f"the model is wrapped in {type(model).__name__}; {first} first, then wrap")
