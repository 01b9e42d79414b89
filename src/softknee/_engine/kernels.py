"""Compiled kernels of one formula, each built when it is first needed."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from softknee._engine.build import DTYPES, load
from softknee._engine.emit_c import kernel_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._engine.graph import Graph
    from softknee._engine.layout import Layout
    from softknee._engine.trace import Formula

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long
_ARGUMENTS: Any = (*[_POINTER] * 8, *[_LONG] * 4, ctypes.c_uint64, ctypes.c_int)


class Kernel(Protocol):
    """A compiled computation."""

    def __call__(
        self,
        arrays: tuple[Tensor, ...],
        results: tuple[Tensor, ...],
        leaves: Tensor | None,
        layout: Layout,
        seed: int = 0,
    ) -> Tensor | None:
        """Run it.

        Args:
            arrays: `x`, and `g` and `v` where it takes them, all in the order of the layout. Of pairs, the views of
                gates and values, and `g`.
            results: Where to write, in the same order; may be one of `arrays`. Two for pairs are views as these.
            leaves: `(entries, channels)` float32, contiguous.
            layout: Of the arrays.
            seed: Of random numbers.

        Returns:
            The sums over each channel, `(sums, channels)` float32, None where it has none.
        """


class NativeKernel:
    """A computation compiled for the CPU.

    Args:
        run: `sk_run` of its library.
        sums: How many results it sums over each channel.
        pairs: Whether it takes pairs.
    """

    def __init__(self, run: Callable[..., int], sums: int, *, pairs: bool = False) -> None:
        self._run = run
        self.sums = sums
        self._pairs = pairs

    def __call__(
        self,
        arrays: tuple[Tensor, ...],
        results: tuple[Tensor, ...],
        leaves: Tensor | None,
        layout: Layout,
        seed: int = 0,
    ) -> Tensor | None:
        """Run it; see `Kernel`.

        Raises:
            MemoryError: There is none left for partial sums.
        """
        total = torch.empty(self.sums, layout.channels, dtype=torch.float32, device="cpu") if self.sums else None
        x, y = arrays[0].data_ptr(), results[0].data_ptr()
        second = arrays[1].data_ptr() if len(arrays) > 1 else None
        third = arrays[2].data_ptr() if len(arrays) > 2 else None
        u, g, v = (second, third, None) if self._pairs else (None, second, third)
        z = results[1].data_ptr() if len(results) > 1 else None
        pointer = None if leaves is None else leaves.data_ptr()
        sums = None if total is None else total.data_ptr()
        threads = torch.get_num_threads()
        if self._run(x, u, g, v, y, z, pointer, sums, *layout[:3], layout.run, seed, threads):
            raise MemoryError("no memory left for the partial sums of an activation's gradient")
        return total


def native_kernel(
    graph: Graph, *, arrays: int, leaves: int, per_channel: bool, dtype: torch.dtype, pairs: bool = False
) -> Kernel:
    """Compile a graph for the CPU.

    Args:
        graph: As `kernel_source` takes it.
        arrays: How many of its outputs are stored.
        leaves: How many parameter entries there are.
        per_channel: Whether each channel has leaves of its own.
        dtype: Of the elements.
        pairs: Whether it takes gates and values.

    Returns:
        The kernel.

    Raises:
        NoCompiler: There is no compiler, or it failed.
    """
    source = kernel_source(graph, arrays=arrays, leaves=leaves, per_channel=per_channel, pairs=pairs)
    run = load(source, defines=(DTYPES[dtype],)).sk_run
    run.argtypes, run.restype = _ARGUMENTS, ctypes.c_int
    return NativeKernel(run, len(graph.outputs) - arrays, pairs=pairs)


class Kernels:
    """The kernels of one formula for one dtype and kind of device.

    Args:
        formula: What they compute.
        dtype: Of the elements.
        device: `"cpu"` or `"cuda"`.
        per_channel: Whether parameters differ between channels.
    """

    def __init__(self, formula: Formula, dtype: torch.dtype, device: str, *, per_channel: bool) -> None:
        self.formula = formula
        self._dtype = dtype
        self._device = device
        self._per_channel = per_channel

    @cached_property
    def value(self) -> Kernel:
        """`x`, and the value of pairs, to `y`."""
        return self._build(self.formula.value, 1)

    @cached_property
    def slope(self) -> Kernel:
        """`x, g` to `g f'`; of pairs, gate, value and `g` to the gradients of the two."""
        return self._build(self.formula.slope, len(self.formula.elements))

    @cached_property
    def gradient(self) -> Kernel:
        """As `slope`, summing the gradients of the trained entries."""
        return self._build(self.formula.gradient, len(self.formula.elements))

    @cached_property
    def second(self) -> Kernel:
        """`x, g, v` to the derivatives of `v g f'` by `g` and `x`, summing those by the trained entries."""
        return self._build(self.formula.second, 2)

    def _build(self, graph: Graph, arrays: int) -> Kernel:
        build = native_kernel
        if self._device == "cuda":
            from softknee._engine.triton_pointwise import triton_kernel as build
        return build(
            graph,
            arrays=arrays,
            leaves=self.formula.leaves,
            per_channel=self._per_channel,
            dtype=self._dtype,
            pairs=self.formula.pairs,
        )
