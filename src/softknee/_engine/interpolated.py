"""Functions that are given by their values on a fine grid, and differentiable by these.

What must be evaluated for many tensors at once is evaluated once, on the grid, by plain operations for all of them;
each tensor is then looked up, and its gradient gathered on the grid. Outside of it the function itself is evaluated.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import Function
from torch.nn import functional as F

from softknee._engine.grid import Grid, Table
from softknee._engine.layout import dense, layout_of, repacked
from softknee._engine.lookup import in_memory_order, look_up, look_up_gradient
from softknee._engine.ownership import counts, is_unshared
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    # A function of a vector and of what else it depends on.
    Exact = Callable[..., Tensor]

# Width of a bin: kinks are where they are to so much.
STEP = 1 / 64


def grid_within(reach: float) -> Grid:
    """Return the fine grid from `-reach` to `reach`, which is rounded up to a whole number of bins."""
    half = -int(-reach // STEP)
    return Grid(0.0, STEP, -half, 2 * half)


@lru_cache(maxsize=64)
def nodes(grid: Grid, device: torch.device) -> Tensor:
    """Return where a function is to be evaluated, `(bins + 1,)` float32."""
    return grid.origin + grid.step * torch.arange(grid.first, grid.first + grid.bins + 1, device=device)


@torch.no_grad()
def quadratics(values: Tensor) -> Tensor:
    """Return what tables hold of functions with some values at the nodes.

    In each bin the second difference of that end is taken where it is smaller, so that kinks at nodes stay kinks and
    others spoil no more than their bin.

    Args:
        values: `(functions, bins + 1)` float32.

    Returns:
        `(functions, bins, 4)` coefficients of 1, t, t^2, t^3.
    """
    rises = values.diff()
    bends = F.pad(rises.diff()[:, None], (1, 1), mode="replicate")[:, 0]
    left, right = bends[:, :-1], bends[:, 1:]
    half = torch.where(left.abs() < right.abs(), left, right) / 2
    return torch.stack((values[:, :-1], rises - half, half, torch.zeros_like(half)), -1)


def interpolated(
    x: Tensor, values: Tensor, rows: Tensor, grid: Grid, exact: Exact, arguments: Sequence[Tensor]
) -> Tensor:
    """Evaluate a function that is known at nodes, under autograd.

    Args:
        x: Any shape, of a dtype and on a device that tables take.
        values: `(bins + 1,)` float32 at the nodes.
        rows: `(bins, 4)`, from `quadratics`.
        grid: Where that is.
        exact: The function itself, of a float32 vector and `arguments`, for what lies outside.
        arguments: What it depends on.

    Returns:
        Same shape and dtype as `x`. The gradient of an element is spread linearly over the nodes on its sides.
    """
    x, memory_format = dense(x)
    table = Table(grid, None, rows[None], values[None], 0.0, 0.0, accurate=True)
    y: Tensor = _Interpolated.apply(x, values, table, memory_format, exact, *arguments)
    return y


class _Interpolated(Function):
    """`y = f(x)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,  # noqa: ARG004 - what is differentiated by
        table: Table,
        memory_format: torch.memory_format,
        exact: Exact,
        *arguments: Tensor,
    ) -> Tensor:
        ctx.layout, ctx.table, ctx.exact = layout_of(x, memory_format, None), table, exact
        y = torch.empty_like(x)
        outside = look_up(table, ctx.layout, x, y)
        if outside is not None:
            points = in_memory_order(x, memory_format)[outside].float()
            in_memory_order(y, memory_format)[outside] = exact(points, *arguments).to(y.dtype)
        # Half precision is finer than bins are; what lies outside is kept as it is, for the function itself.
        halved = x.dtype == torch.float32 and outside is None
        ctx.save_for_backward(x.half() if halved else x, *arguments)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        owners = counts(g)
        if torch.is_grad_enabled():
            raise UsageError(
                "what is looked up in a table of values can be differentiated once; for more, evaluate it within "
                "softknee.engine('eager')"
            )
        x, *arguments = ctx.saved_tensors
        memory_format = ctx.layout.memory_format
        x = x.contiguous(memory_format=memory_format)
        g, ours = repacked(g, memory_format)
        by_x = g if ours or is_unshared(owners) else torch.empty_like(g)
        moments = torch.empty_like(ctx.table.rows) if ctx.needs_input_grad[1] else None
        outside = look_up_gradient(ctx.table, ctx.layout, x, g, by_x, moments)
        by_values = None if moments is None else _spread(moments[0])
        by_arguments: Sequence[Tensor | None] = [None] * len(arguments)
        if outside is not None:
            points = in_memory_order(x, memory_format)[outside].float()
            slopes = in_memory_order(by_x, memory_format)
            by_points, by_arguments = _pulled_back(ctx, points, slopes[outside].float(), arguments)
            slopes[outside] = by_points.to(slopes.dtype)
        return by_x, by_values, None, None, None, *by_arguments


def _spread(moments: Tensor) -> Tensor:
    """Return the gradient of the values, `(bins + 1,)`, from sums of `g` and `g t` in each bin."""
    all_of_it, right = moments[:, 0], moments[:, 1]
    return F.pad(all_of_it - right, (0, 1)) + F.pad(right, (1, 0))


@torch.enable_grad()
def _pulled_back(
    ctx: Any, points: Tensor, g: Tensor, arguments: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Return the gradients of points and arguments of the function itself."""
    points = points.requires_grad_()
    needed = ctx.needs_input_grad[-len(arguments) :] if arguments else ()
    leaves = [one.detach().requires_grad_(need) for one, need in zip(arguments, needed, strict=True)]
    wanted = [one for one in leaves if one.requires_grad]
    by_points, *found = torch.autograd.grad(ctx.exact(points, *leaves), [points, *wanted], g, materialize_grads=True)
    rest = iter(found)
    return by_points, [next(rest) if one.requires_grad else None for one in leaves]
