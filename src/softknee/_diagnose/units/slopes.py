"""Slopes of the function that acts at a place, by autograd, without a trace in the run that is observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[Tensor], Tensor]

# Where the steepest slope of a function is looked for.
SPAN, POINTS = 10.0, 401


def slope_of(function: Function, x: Tensor) -> Tensor:
    """Return the derivative of a function of single elements at each element of its input, of the same shape.

    Args:
        function: A module, whose hooks are not called, or a function.
        x: Floating point.
    """
    call = function.forward if isinstance(function, nn.Module) else function
    x = x.clone() if x.is_inference() else x.detach()
    # Hooks of the surroundings, such as checkpointing's, count what is saved; they see nothing of this.
    with torch.enable_grad(), saved_tensors_hooks(_same, _same):
        x.requires_grad_()
        # A view would do for what overwrites its input, but not for what refuses to overwrite views of leaves.
        output = call(x.clone() if may_overwrite(function) else x)
        if not output.requires_grad:
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(output, x, torch.ones_like(output), allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def steepest(function: Function, like: Tensor, axis: int | None) -> Tensor:
    """Return the largest absolute slope of a function between -10 and 10.

    Args:
        function: Of single elements; it may differ between units.
        like: An input of it.
        axis: Dimension of the units.

    Returns:
        Of each unit, or one number for all of them; shape `(1, units, 1)` or `(1, 1, 1)`.
    """
    slopes = slope_of(function, _narrow(function, _grid(like, axis, POINTS, -SPAN, SPAN), axis))
    size = 1 if axis is None else slopes.shape[axis]
    return slopes.float().abs().nan_to_num(0.0, 0.0, 0.0).amax(0).reshape(1, size, 1)


def curve_of(function: Function, like: Tensor, axis: int | None, low: float, high: float, points: int) -> Tensor:
    """Return the values of a function at equally spaced points, the mean over the units where they differ.

    Args:
        function: Of single elements; it may differ between units.
        like: An input of it.
        axis: Dimension of the units.
        low: First point.
        high: Last point.
        points: Their number.

    Returns:
        `(points,)`, float64.
    """
    call = function.forward if isinstance(function, nn.Module) else function
    with torch.no_grad():
        grid = _narrow(function, _grid(like, axis, points, low, high), axis)
        return call(grid.clone()).reshape(points, -1).double().mean(1)


def _grid(like: Tensor, axis: int | None, points: int, low: float, high: float) -> Tensor:
    """Return points along the first dimension, repeated for each unit along theirs."""
    values = torch.linspace(low, high, points, dtype=torch.float32, device=like.device).to(like.dtype)
    shape = [1] * max(like.dim(), 1)
    shape[0] = points
    grid = values.reshape(shape)
    if axis:
        shape[axis] = like.shape[axis]
    return grid.expand(shape).contiguous()


def _narrow(function: Function, grid: Tensor, axis: int | None) -> Tensor:
    """Leave one unit where the function is the same for all of them: where it has no parameter."""
    same = not isinstance(function, nn.Module) or next(function.parameters(), None) is None
    return grid.narrow(axis, 0, 1).contiguous() if axis and same else grid


def may_overwrite(function: Function) -> bool:
    """Return whether a function may overwrite its input."""
    return not isinstance(function, nn.Module) or bool(getattr(function, "inplace", False))


def _same(x: Tensor) -> Tensor:
    return x
