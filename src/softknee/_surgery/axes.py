"""In which dimension of a tensor the units are: channels of a convolution, features of a linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from softknee._surgery.operations import CONVOLUTIONS, LAST, MOVING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Of tensors of unknown origin, by their number of dimensions.
_USUAL = {0: 0, 1: 0, 2: 1, 3: 2}


def usual_axis(shape: Sequence[int]) -> int:
    """Return where the units usually are: behind the batch in images, last in features and sequences of them."""
    return _USUAL.get(len(shape), 1)


def axis_after(name: str, args: tuple[Any, ...], result: Tensor, before: int | None) -> int | None:
    """Return the dimension of the units after a function.

    Args:
        name: Of the function.
        args: What it was called with.
        result: One of its results.
        before: The dimension in the first argument, None if unknown.

    Returns:
        The dimension; None if unknown.
    """
    if name in LAST:
        return result.dim() - 1
    if name in CONVOLUTIONS:
        return result.dim() - 1 - CONVOLUTIONS[name]
    kept = name not in MOVING and isinstance(args[0], Tensor) and args[0].dim() == result.dim()
    return before if kept else None
