"""Maps tensors through a table: by native code, or by torch operations that give the same numbers."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.build import DTYPES, NATIVE, NoCompiler, load
from softknee._engine.division import ROW_BITS, ROW_MASK
from softknee._engine.triton_check import trouble

if TYPE_CHECKING:
    from softknee._engine.grid import Table
    from softknee._engine.layout import Layout

_POINTER, _LONG, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_RUN: Any = (*[_POINTER] * 6, _FLOAT, _FLOAT, _INT, _INT, *[_LONG] * 4, _INT)
_OUTSIDE: Any = (_POINTER, _POINTER, _FLOAT, _FLOAT, _INT, _INT, _LONG)


def look_up(table: Table, layout: Layout, x: Tensor, y: Tensor) -> Tensor | None:
    """Write the values of a tabulated function.

    Args:
        table: The function.
        layout: Of `x` and `y`.
        x: Dense.
        y: In the same order; zero where `x` is outside the grid.

    Returns:
        Flat positions, in memory order, of the elements outside, None where there are none.
    """
    return _run(table, layout, x, None, y, None)


def look_up_gradient(
    table: Table, layout: Layout, x: Tensor, g: Tensor, out: Tensor, moments: Tensor | None
) -> Tensor | None:
    """Write `g` times the slopes of a tabulated function.

    Args:
        table: The function.
        layout: Of the tensors.
        x: Dense; may be float16, whatever the others are.
        g: In the same order.
        out: In the same order, may be `g`; receives `g` itself where `x` is outside the grid.
        moments: `(channels, rows, 4)` float32; receives the sums of `g`, `g t` and `g t^2` over each bin or cell.

    Returns:
        As `look_up`.
    """
    return _run(table, layout, x, g, out, moments)


def _run(table: Table, layout: Layout, x: Tensor, g: Tensor | None, y: Tensor, moments: Tensor | None) -> Tensor | None:
    if x.is_cuda and trouble() is None:
        from softknee._engine.triton_table import run_table

        return run_table(table, layout, x, g, y, moments)
    library = None if x.is_cuda else _library(y.dtype, x.dtype)
    if library is None:
        return _run_in_torch(table, layout, x, g, y, moments)
    grid = table.grid
    place = (grid.origin, 1 / grid.step, grid.first, grid.bins)
    outside = library.sk_table_run(
        x.data_ptr(),
        None if g is None else g.data_ptr(),
        y.data_ptr(),
        table.rows.data_ptr(),
        None if table.entries is None else table.entries.data_ptr(),
        None if moments is None else moments.data_ptr(),
        *place,
        table.rows.shape[1],
        layout.outer,
        layout.channels,
        layout.inner,
        torch.get_num_threads(),
    )
    if outside < 0:
        raise MemoryError("no memory left for the moments of an activation's gradient")
    if not outside:
        return None
    positions = torch.empty(outside, dtype=torch.int64, device="cpu")
    library.sk_table_outside(x.data_ptr(), positions.data_ptr(), *place, x.numel())
    return positions


@cache
def _library(dtype: torch.dtype, kept: torch.dtype) -> ctypes.CDLL | None:
    """Return the native lookup for a dtype, and for inputs of that or, in half the memory, of float16.

    Without a compiler, there is none.
    """
    defines = (DTYPES[dtype],) if kept == dtype else (DTYPES[dtype], "SK_INPUT_FLOAT16")
    try:
        library = load((NATIVE / "table.c").read_text(encoding="utf-8"), defines=defines)
    except NoCompiler:
        return None
    library.sk_table_run.argtypes, library.sk_table_run.restype = _RUN, _LONG
    library.sk_table_outside.argtypes, library.sk_table_outside.restype = _OUTSIDE, None
    return library


def _run_in_torch(
    table: Table, layout: Layout, x: Tensor, g: Tensor | None, y: Tensor, moments: Tensor | None
) -> Tensor | None:
    shape = (layout.outer, layout.channels, layout.inner)
    flat = in_memory_order(x, layout.memory_format)
    channel = torch.arange(layout.channels, device=x.device).view(-1, 1).expand(shape).reshape(-1)
    inside, row, t, per_width = located(table, flat.float(), channel)
    c0, c1, c2, c3 = table.rows.view(-1, 4)[row].unbind(1)
    kept = torch.zeros_like(t)
    if g is None:
        result = c0 + t * (c1 + t * (c2 + t * c3))
    else:
        weight = in_memory_order(g, layout.memory_format).float() * inside
        result = weight * per_width * (c1 + t * (2 * c2 + t * (3 * c3)))
        kept = in_memory_order(g, layout.memory_format).float()
        if moments is not None:
            parts = torch.stack([weight, weight * t, weight * t * t, torch.zeros_like(t)], 1)
            moments.copy_(
                torch.zeros(moments.numel() // 4, 4, dtype=torch.float64, device=x.device)
                .index_add_(0, row, parts.double())
                .view_as(moments)
            )
    in_memory_order(y, layout.memory_format).copy_(torch.where(inside, result, kept))
    outside = (~inside).nonzero()[:, 0]
    return outside if len(outside) else None


def located(table: Table, x: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find elements in a table.

    Args:
        table: With one table for each channel.
        x: `(elements,)` float32.
        channel: `(elements,)` of each.

    Returns:
        Whether each element is inside the grid, its row, its place in the bin or cell of that, from 0 to 1, and one
        over the width of it.
    """
    grid = table.grid
    u = (x - grid.origin) * (1 / grid.step)
    inside = (u >= grid.first) & (u <= grid.first + grid.bins)
    u = torch.where(inside, u, float(grid.first))
    whole = u.floor().clamp(max=grid.first + grid.bins - 1)
    bins, t = whole.long() - grid.first, u - whole
    if table.entries is None:
        return inside, bins + channel * grid.bins, t, torch.full_like(t, 1 / grid.step)
    entries = table.entries.view(-1)[bins + channel * grid.bins]
    parts = (entries >> ROW_BITS).float()
    cell = torch.minimum((t * parts).floor(), parts - 1)
    return inside, (entries & ROW_MASK).long() + cell.long(), t * parts - cell, parts / grid.step


def in_memory_order(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return a dense tensor as a vector in the order of its memory, without a copy."""
    if memory_format == torch.contiguous_format:
        return x.view(-1)
    return x.permute(0, *range(2, x.dim()), 1).view(-1)
