"""How a tensor lies in memory, as kernels see it: outer x channels x inner, dense."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Layout(NamedTuple):
    """A dense tensor in the order of its memory.

    Attributes:
        outer: Product of what is outside the channels.
        channels: Number of channels with parameters of their own, 1 where all share them.
        inner: Product of what is inside the channels.
        memory_format: To bring another tensor of the same shape into the same order.
    """

    outer: int
    channels: int
    inner: int
    memory_format: torch.memory_format


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
    order = [*range(x.dim())]
    if memory_format != torch.contiguous_format:
        order = [0, *order[2:], 1]
    shape = [x.shape[dim] for dim in order]
    place = order.index(channel_dim)
    return Layout(prod(shape[:place]), shape[place], prod(shape[place + 1 :]), memory_format)


def repacked(g: Tensor, memory_format: torch.memory_format) -> tuple[Tensor, bool]:
    """Return a gradient in the memory format of its input, and whether that is a copy, free to be written over.

    Elementwise loops over two different orders leave the fast path of every kernel; a copy first is several times
    cheaper.
    """
    if g.is_contiguous(memory_format=memory_format):
        return g, False
    return g.contiguous(memory_format=memory_format), True
