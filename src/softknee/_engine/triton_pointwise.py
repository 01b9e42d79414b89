"""Runs the Triton kernels of a graph; they stand in for `kernels.Kernel` on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softknee._engine.build import NoCompiler
from softknee._engine.emit_triton import arguments_of, triton_source
from softknee._engine.generated import import_source
from softknee._engine.graph import PAIRS, RESULTS, SINGLES
from softknee._engine.triton_check import trouble

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from softknee._engine.graph import Graph
    from softknee._engine.layout import Layout

# Elements of a program. Runs of random numbers begin where blocks do, as they do on the CPU.
BLOCK = 1024
# Widths of a block within one channel; what is narrower takes several samples at once.
WIDTHS = (16, 64, 256, BLOCK)
# Channels of a program where each element is in the next channel: a line of memory in float32.
COLUMNS = 32
# Blocks of samples whose sums by channel a program adds up.
STEPS = 8
# What Triton can say about sizes for memory to be moved in vectors.
EVEN = 16
# Vector instructions for an element from which on a thread does half as many elements, for want of registers.
HEAVY = 150


class TritonKernel:
    """A computation on a GPU, called as `kernels.Kernel` is.

    Args:
        module: As `triton_source` prints it.
        arguments: Names of the pointers its kernels take.
        sums: How many results it sums over each channel.
        per_channel: Whether each channel has leaves of its own.
        heavy: Whether it takes many instructions.
        pairs: Whether it takes pairs.
    """

    def __init__(
        self,
        module: ModuleType,
        arguments: tuple[str, ...],
        sums: int,
        *,
        per_channel: bool,
        heavy: bool,
        pairs: bool = False,
    ) -> None:
        self._module = module
        self._arguments = arguments
        self._per_channel = per_channel
        self._pairs = pairs
        # Products and sums are fused, as they are on the CPU.
        self._options = {"num_warps": 8 if heavy else 4, "enable_fp_fusion": True}
        self.sums = sums

    def __call__(
        self,
        arrays: tuple[Tensor, ...],
        results: tuple[Tensor, ...],
        leaves: Tensor | None,
        layout: Layout,
        seed: int = 0,
    ) -> Tensor | None:
        """Run it; see `Kernel`."""
        name, parts, programs, sizes = self._launch(layout)
        # Parts are written side by side and added up in a fixed order: sums do not depend on which program ends first.
        sums = torch.empty(parts, self.sums, layout.channels, device=arrays[0].device) if self.sums else None
        given: dict[str, Tensor | None] = {"leaves": leaves, "sums": sums}
        given.update(zip(PAIRS if self._pairs else SINGLES, arrays, strict=False))
        given.update(zip(RESULTS, results, strict=False))
        pointers = {f"{argument}_at": given[argument] for argument in self._arguments}
        with torch.cuda.device_of(arrays[0]):
            getattr(self._module, name)[(programs,)](**pointers, **sizes, seed=seed, **self._options)
        return None if sums is None else sums.sum(0, dtype=torch.float64).float()

    def _launch(self, layout: Layout) -> tuple[str, int, int, dict[str, Any]]:
        """Return the kernel that suits a layout, how many parts of sums and programs there are, and its sizes."""
        outer, channels, inner, run = *layout[:3], layout.run
        if not self._per_channel and run <= 1:
            count = outer * channels * inner
            blocks = _ceil(count, BLOCK)
            sizes: dict[str, Any] = {"count": count, "even": count % EVEN == 0, "apart": run + 1, "width": BLOCK}
            return "flat", blocks, blocks, sizes
        if not self._per_channel:
            outer, inner = outer // run, run
        elif channels == 1 and not run:
            outer, inner = 1, outer * inner
        sizes = {"outer": outer, "channels": channels}
        if inner == 1:
            height, steps = BLOCK // COLUMNS, STEPS if self.sums else 1
            parts = _ceil(outer, height * steps)
            sizes |= {"even": channels % EVEN == 0, "steps": steps, "height": height, "width": COLUMNS}
            sizes |= {"both": 2 if run else 1, "apart": 2 if run == 1 else 1}
            return "columns", parts, parts * _ceil(channels, COLUMNS), sizes
        width = next((width for width in WIDTHS if width >= inner), BLOCK)
        parts = _ceil(outer, BLOCK // width) * _ceil(inner, width)
        # A run as long as everything has no other before it.
        sizes |= {"inner": inner, "run": run or outer * channels * inner, "even": inner % EVEN == 0}
        sizes |= {"height": BLOCK // width, "width": width}
        return "rows", parts, parts * channels, sizes


def triton_kernel(
    graph: Graph,
    *,
    arrays: int,
    leaves: int,
    per_channel: bool,
    dtype: torch.dtype,  # noqa: ARG001 (Triton takes it from the tensors)
    pairs: bool = False,
) -> TritonKernel:
    """Prepare a graph for the GPU; Triton compiles it at the first call for each dtype.

    Args:
        graph: As `triton_source` takes it.
        arrays: How many of its outputs are stored.
        leaves: How many parameter entries there are.
        per_channel: Whether each channel has leaves of its own.
        dtype: Of the elements.
        pairs: Whether it takes gates and values.

    Returns:
        The kernel.

    Raises:
        NoCompiler: There is no Triton, or it does not work here.
    """
    found = trouble()
    if found is not None:
        raise NoCompiler(found)
    module = import_source(triton_source(graph, arrays=arrays, leaves=leaves, per_channel=per_channel, pairs=pairs))
    sums = len(graph.outputs) - arrays
    heavy = graph.price >= HEAVY
    return TritonKernel(module, arguments_of(graph, arrays), sums, per_channel=per_channel, heavy=heavy, pairs=pairs)


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
