"""Functions that are given by their values on a fine grid, and differentiable by these.

What must be evaluated for many tensors at once is evaluated once, on the grid, by plain operations for all of them;
each tensor is then looked up, and its gradient gathered on the grid. Outside of it the function itself is evaluated.

Where a function has a kink, its derivatives by what it depends on may jump, so that a bin is too wide for their sums.
The sharpest bins are evaluated at more places for that; what such a bin has gathered is spread over these as a linear
density with the same sum and mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import Function
from torch.nn import functional as F

from softknee._engine.fit import constant
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
# Of how many bins gradients are spread more finely, and over how many parts of each.
SHARPEST, PARTS = 32, 8
# Up to here, numbers in half precision are closer than that.
FINE = 16.0


def grid_within(reach: float) -> Grid:
    """Return the fine grid from `-reach` to `reach`, which is rounded up to a whole number of bins."""
    half = -int(-reach // STEP)
    return Grid(0.0, STEP, -half, 2 * half)


class Inner(NamedTuple):
    """Values of a function inside some bins, for its gradients.

    Attributes:
        bins: `(SHARPEST,)` int64.
        values: `(SHARPEST, PARTS - 1)` float32 between their parts.
    """

    bins: Tensor
    values: Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # kept for all, whoever asks first
def nodes(grid: Grid, device: torch.device) -> Tensor:
    """Return where a function is to be evaluated, `(bins + 1,)` float32."""
    steps = torch.arange(grid.first, grid.first + grid.bins + 1, dtype=torch.float32, device=device)
    return grid.origin + grid.step * steps


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


@torch.no_grad()
def sharpest(values: Tensor) -> Tensor:
    """Return the bins of each function with the largest second differences at their ends, `(functions, SHARPEST)`."""
    bends = F.pad(values.diff().diff().abs(), (1, 1))
    return torch.maximum(bends[:, :-1], bends[:, 1:]).topk(min(SHARPEST, bends.shape[1] - 1)).indices


def inside(grid: Grid, bins: Tensor) -> Tensor:
    """Return where functions are evaluated inside bins, `(functions, SHARPEST, PARTS - 1)` float32."""
    parts = torch.arange(1, PARTS, dtype=torch.float32, device=bins.device) / PARTS
    return grid.origin + grid.step * (grid.first + bins[..., None] + parts)


def interpolated(
    x: Tensor,
    values: Tensor,
    rows: Tensor,
    grid: Grid,
    exact: Exact,
    arguments: Sequence[Tensor],
    inner: Inner | None = None,
) -> Tensor:
    """Evaluate a function that is known at nodes, under autograd.

    Args:
        x: Any shape, of a dtype and on a device that tables take.
        values: `(bins + 1,)` float32 at the nodes.
        rows: `(bins, 4)`, from `quadratics`.
        grid: Where that is.
        exact: The function itself, of a float32 vector and `arguments`, for what lies outside.
        arguments: What it depends on.
        inner: What it is inside of some bins.

    Returns:
        Same shape and dtype as `x`. The gradient of an element is spread linearly over the nodes on its sides, and over
        more places in those bins.
    """
    x, memory_format = dense(x)
    table = Table(grid, None, rows[None], values.detach()[None], 0.0, 0.0, accurate=True)
    bins, between = (None, None) if inner is None else inner
    y: Tensor = _Interpolated.apply(x, values, between, bins, table, memory_format, exact, *arguments)
    return y


class _Interpolated(Function):
    """`y = f(x)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,  # noqa: ARG004 - what is differentiated by
        between: Tensor | None,  # noqa: ARG004 - likewise
        bins: Tensor | None,
        table: Table,
        memory_format: torch.memory_format,
        exact: Exact,
        *arguments: Tensor,
    ) -> Tensor:
        ctx.layout, ctx.table, ctx.exact, ctx.bins = layout_of(x, memory_format, None), table, exact, bins
        y = torch.empty_like(x)
        outside = look_up(table, ctx.layout, x, y)
        if outside is not None:
            points = in_memory_order(x, memory_format)[outside].float()
            in_memory_order(y, memory_format)[outside] = exact(points, *arguments).to(y.dtype)
        # What lies outside is kept as it is, for the function itself.
        fine = max(-table.grid.low, table.grid.high) <= FINE
        halved = fine and x.dtype == torch.float32 and outside is None
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
        by_values, by_between = (None, None) if moments is None else _spread(moments[0], ctx.bins)
        by_arguments: Sequence[Tensor | None] = [None] * len(arguments)
        if outside is not None:
            points = in_memory_order(x, memory_format)[outside].float()
            slopes = in_memory_order(by_x, memory_format)
            by_points, by_arguments = _pulled_back(ctx, points, slopes[outside].float(), arguments)
            slopes[outside] = by_points.to(slopes.dtype)
        return by_x, by_values, by_between, None, None, None, None, *by_arguments


def _spread(moments: Tensor, bins: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return gradients of values at the nodes, `(bins + 1,)`, and inside of some bins.

    Args:
        moments: Sums of `g`, `g t` and more in each bin, `(all bins, 4)`.
        bins: Those with values inside, if any.
    """
    total, right = moments[:, 0], moments[:, 1]
    if bins is None:
        return F.pad(total - right, (0, 1)) + F.pad(right, (1, 0)), None
    # Not a matrix product, which rounds its factors where that is allowed.
    of_total, of_right = constant(_IN_PARTS, moments.device)
    weights = total[bins, None] * of_total + right[bins, None] * of_right
    total, right = (part.index_fill(0, bins, 0.0) for part in (total, right))
    by_values = F.pad(total - right, (0, 1)) + F.pad(right, (1, 0))
    by_values.index_add_(0, bins, weights[:, 0]).index_add_(0, bins + 1, weights[:, -1])
    return by_values, weights[:, 1:-1]


def _in_parts() -> tuple[tuple[float, ...], ...]:
    """Return weights of the ends of the parts of a bin for each unit of the sums of `g` and `g t` in it.

    The density with these sums is `(4 - 6 t) * sum(g) + (12 t - 6) * sum(g t)`; each place takes its integral with the
    hat over the parts beside it.
    """
    width = 1 / PARTS
    plain = [width / 2, *[width] * (PARTS - 1), width / 2]
    edge = width**2 / 6
    linear = [edge, *(width * place / PARTS for place in range(1, PARTS)), width / 2 - edge]
    pairs = list(zip(plain, linear, strict=True))
    return tuple(4 * a - 6 * b for a, b in pairs), tuple(12 * b - 6 * a for a, b in pairs)


_IN_PARTS = _in_parts()


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
