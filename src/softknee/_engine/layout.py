"""How a tensor lies in memory, as kernels see it: outer x channels x inner, dense."""

from __future__ import annotations

import ctypes
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from softknee._engine.build import DTYPES, NATIVE, NoCompiler, load

if TYPE_CHECKING:
    from torch import Tensor

    # What an activation is applied to: one tensor, or gate and value of pairs as two.
    Input = Tensor | tuple[Tensor, ...]

# Tensors that are plain memory.
PLAIN = (torch.Tensor, torch.nn.Parameter)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Layout(NamedTuple):
    """A dense tensor in the order of its memory.

    Attributes:
        outer: Product of what is outside the channels.
        channels: Number of channels with parameters of their own, 1 where all share them.
        inner: Product of what is inside the channels.
        memory_format: To bring another tensor of the same shape into the same order.
        run: Of pairs, how many gates lie together before as many values, or the other way round; the other numbers
            then speak of the output. 0 where all gates lie together, and for what is no pair.
    """

    outer: int
    channels: int
    inner: int
    memory_format: torch.memory_format
    run: int = 0


class Halves(NamedTuple):
    """Where gates and values of pairs are in the dimension that holds both.

    Attributes:
        gate_first: Whether the gate comes before its value.
        interleaved: Whether gates and values alternate; else all of the one come before all of the other.
    """

    gate_first: bool
    interleaved: bool

    def of(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Return gates and values as views.

        Args:
            x: Of even size in `dim`.
            dim: The dimension, not negative.

        Returns:
            Both, of half that size.
        """
        if self.interleaved:
            first, second = x.unflatten(dim, (x.shape[dim] // 2, 2)).unbind(dim + 1)
        else:
            first, second = x.chunk(2, dim)
        return (first, second) if self.gate_first else (second, first)


def as_tuple(inputs: Input) -> tuple[Tensor, ...]:
    """Return the tensors that an activation is applied to."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def dense(x: Tensor) -> tuple[Tensor, torch.memory_format]:
    """Return `x` in one of PyTorch's memory formats, a copy only where it is in none, and that format."""
    if x.is_contiguous():
        return x, torch.contiguous_format
    channels_last = _CHANNELS_LAST.get(x.dim())
    if channels_last is not None and x.is_contiguous(memory_format=channels_last):
        return x, channels_last
    return x.contiguous(), torch.contiguous_format


def layout_of(x: Tensor, memory_format: torch.memory_format, channel_dim: int | None) -> Layout:
    """Return the layout of a dense tensor.

    Args:
        x: As `dense` returns it.
        memory_format: Likewise.
        channel_dim: Dimension of the channels, not negative; None where all elements share their parameters.

    Returns:
        The layout.
    """
    if channel_dim is None:
        return Layout(x.numel(), 1, 1, memory_format)
    shape, place = x.shape, channel_dim
    if memory_format != torch.contiguous_format:
        order = _order(x, memory_format)
        shape, place = torch.Size(shape[dim] for dim in order), order.index(channel_dim)
    return Layout(prod(shape[:place]), shape[place], prod(shape[place + 1 :]), memory_format)


def _order(x: Tensor, memory_format: torch.memory_format) -> list[int]:
    """Return the dimensions of a tensor in the order of its memory, the outermost first."""
    return [*range(x.dim())] if memory_format == torch.contiguous_format else [0, *range(2, x.dim()), 1]


def layout_of_pairs(
    x: Tensor, memory_format: torch.memory_format, dim: int, *, interleaved: bool, shared: bool
) -> Layout:
    """Return the layout of what comes out of a dense tensor of pairs.

    Args:
        x: As `dense` returns it, of even size in `dim`.
        memory_format: Likewise.
        dim: Dimension that holds gates and values, not negative; that of the channels of the output.
        interleaved: Whether gates and values alternate.
        shared: Whether all channels share their parameters.

    Returns:
        The layout.
    """
    outer, both, inner = layout_of(x, memory_format, dim)[:3]
    run = inner if interleaved else both // 2 * inner
    if shared:
        return Layout(x.numel() // 2, 1, 1, memory_format, run)
    return Layout(outer, both // 2, inner, memory_format, run)


def laid_apart(gate: Tensor, value: Tensor, *, channel_dim: int | None) -> tuple[tuple[Tensor, Tensor], Layout]:
    """Return gates and values that are tensors of their own as kernels can read them, and their layout.

    Dense ones stay where they are, and so do halves of dense tensors; others are copied.

    Args:
        gate: Not empty.
        value: Of the same shape and dtype.
        channel_dim: As in `layout_of`.

    Returns:
        Both.
    """
    channels_last = _CHANNELS_LAST.get(gate.dim())
    for memory_format in (torch.contiguous_format, *([channels_last] if channels_last else [])):
        layout, run = layout_of(gate, memory_format, channel_dim), _run_of(gate, memory_format)
        if run is None or run != _run_of(value, memory_format):
            continue
        if _takes(run, gate, value, layout, shared=channel_dim is None):
            return (gate, value), layout._replace(run=run)
    gate, memory_format = dense(gate)
    return (gate, value.contiguous(memory_format=memory_format)), layout_of(gate, memory_format, channel_dim)


def _run_of(x: Tensor, memory_format: torch.memory_format) -> int | None:
    """Return how many elements lie together before a gap as long, 0 where there is no gap, None for all other ways."""
    run, together = 0, 1
    for dim in reversed(_order(x, memory_format)):
        size, stride = x.shape[dim], x.stride(dim)
        if size == 1:
            continue
        if not run and stride == 2 * together:
            run = together
        if stride != (2 if run else 1) * together:
            return None
        together *= size
    return run


def _takes(run: int, gate: Tensor, value: Tensor, layout: Layout, *, shared: bool) -> bool:
    """Whether kernels take such runs; where channels have parameters of their own, those of one channel or of all."""
    if run == 1 and abs(gate.data_ptr() - value.data_ptr()) != gate.element_size():
        return False  # they alternate with something else
    return shared or run in {0, layout.inner, layout.channels * layout.inner}


def halves_like(gate: Tensor, value: Tensor, *, run: int) -> tuple[Tensor, Tensor]:
    """Return memory for two tensors that lie as gates and values do in runs, both in one tensor.

    Args:
        gate: As `laid_apart` returns it.
        value: Likewise.
        run: Of their layout.

    Returns:
        Both.
    """
    both = torch.empty(2 * gate.numel(), dtype=gate.dtype, device=gate.device)
    offsets = (0, run) if gate.data_ptr() < value.data_ptr() else (run, 0)
    first, second = (
        both.as_strided(x.shape, x.stride(), offset) for x, offset in zip((gate, value), offsets, strict=True)
    )
    return first, second


def repacked(g: Tensor, memory_format: torch.memory_format) -> tuple[Tensor, bool]:
    """Return a gradient in the memory format of its input, and whether that is a copy, free to be written over.

    Elementwise loops over two different orders leave the fast path of every kernel, and torch's own copies between
    them do too; a tiled copy first is several times cheaper.
    """
    if type(g) not in PLAIN:  # a result that is on its way from other processes, say
        plain = torch.empty(g.shape, dtype=g.dtype, device=g.device, memory_format=memory_format)
        return plain.copy_(g), True
    # Signs and zeros that are only noted are no memory.
    g = torch.zeros_like(g) if g._is_zerotensor() else g.resolve_neg()
    if g.is_contiguous(memory_format=memory_format):
        return g, False
    tiled = _tiled(g, memory_format)
    return (g.contiguous(memory_format=memory_format) if tiled is None else tiled), True


def _tiled(g: Tensor, memory_format: torch.memory_format) -> Tensor | None:
    """Return a copy by native code, None where `g` is not in the other memory format or there is none."""
    other = _CHANNELS_LAST.get(g.dim())
    if other is None or g.device.type != "cpu" or not g.numel():
        return None
    to_last = memory_format == other
    if not g.is_contiguous(memory_format=torch.contiguous_format if to_last else other):
        return None
    library = _library(g.dtype)
    if library is None:
        return None
    out = torch.empty_like(g, memory_format=memory_format)
    inner = g[0, 0].numel()
    rows, columns = (g.shape[1], inner) if to_last else (inner, g.shape[1])
    library.sk_repack(g.data_ptr(), out.data_ptr(), g.shape[0], rows, columns, torch.get_num_threads())
    return out


@cache
def _library(dtype: torch.dtype) -> Any:
    """Return the native copy for a dtype, None without a compiler or for another dtype."""
    if dtype not in DTYPES:
        return None
    try:
        library = load((NATIVE / "repack.c").read_text(encoding="utf-8"), defines=(DTYPES[dtype],))
    except NoCompiler:
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    library.sk_repack.argtypes = [pointer, pointer, long, long, long, ctypes.c_int]
    library.sk_repack.restype = None
    return library
