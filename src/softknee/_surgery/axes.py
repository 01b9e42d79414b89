"""In which dimension of a tensor the units are: channels of a convolution, features of a linear layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from softknee._surgery.operations import CONVOLUTIONS, LAST, MOVING, NORMS, RESHAPED, VIEWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Of tensors of unknown origin, by their number of dimensions.
_USUAL = {0: 0, 1: 0, 2: 1, 3: 2}


def usual_axis(shape: Sequence[int]) -> int:
    """Return where the units usually are: behind the batch in images, last in features and sequences of them."""
    return _USUAL.get(len(shape), 1)


def axis_after(name: str, x: Tensor, shape: Sequence[int], result: Tensor, before: int | None) -> int | None:
    """Return the dimension of the units after a function.

    Args:
        name: Of the function.
        x: The first tensor that it was called with.
        shape: That `x` had before.
        result: One of its results.
        before: The dimension in `x`, None if unknown.

    Returns:
        The dimension; None if unknown.
    """
    if name in LAST:
        return result.dim() - 1
    if name in CONVOLUTIONS:
        return result.dim() - 1 - CONVOLUTIONS[name]
    if name in NORMS and result.dim() > 1:
        return 1
    if before is None:
        return None
    if name in RESHAPED:
        # The elements keep their order, so as many of them as before come after one unit.
        inner = math.prod(shape[before + 1 :])
        after = [math.prod(result.shape[axis + 1 :]) for axis in range(result.dim())]
        return _found(result, [one == inner for one in after], shape[before])
    if name in VIEWS and result._is_view():
        # The same memory, so the next unit is as far away as before.
        step = x.stride(before)
        return _found(result, [stride == step for stride in result.stride()], shape[before])
    kept = name not in MOVING and len(shape) == result.dim()
    return before if kept else None


def _found(result: Tensor, possible: Sequence[bool], size: int) -> int | None:
    """Return the dimension that may be meant and has the right size, otherwise the last that may be."""
    axes = [axis for axis, may_be in enumerate(possible) if may_be and result.shape[axis] > 1]
    return next((axis for axis in axes if result.shape[axis] == size), axes[-1] if axes else None)
