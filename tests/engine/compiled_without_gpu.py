"""Run as a script: sends what the Triton engine does through Triton's real compiler, for GPUs that are not there.

A stand-in for the driver names the GPU, and launches stop after compiling. Prints as JSON the PTX and the size of the
machine code of each compiled kernel, by its module, function and variant; those of pairs have "pairs:" in front.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from softknee._engine.grid import Grid
from softknee._engine.layout import Halves, Layout, laid_apart, layout_of_pairs
from softknee._engine.trace import Formula
from softknee._engine.triton_pointwise import triton_kernel
from softknee._engine.triton_table import run_table

DTYPES = (torch.float32, torch.bfloat16)
SIZES = (1, 16, 17, 1024, 1025, 4096, 5000)
# Outer, channels, inner.
ROWS = ((1, 3, 64), (5, 3, 64), (7, 3, 48), (2, 7, 33), (9, 1, 50))
COLUMNS = ((9, 7, 1), (40, 7, 1), (3, 16, 1), (1, 32, 1), (7, 64, 1))

# Shapes that end in pairs of two channels in each of so many samples, and whether gates and values alternate.
PAIRS = (
    ((40, 32), False),
    ((40, 34), False),
    ((40, 32), True),
    ((40, 34), True),
    ((5, 6, 64), False),
    ((5, 6, 33), True),
)
# Shapes of gates and values that are two tensors.
APART = ((40, 32), (40, 33), (5, 6, 64), (5, 6, 33))

_run = JITFunction.run
label = ""
records: dict[str, dict[str, object]] = {}


class Driver:
    """Says which GPU there is."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compile_only(self, *args, grid, warmup, **kwargs):
    """Do what a launch does, up to the launch."""
    kernel = _run(self, *args, grid=grid, warmup=True, **kwargs)
    ptx = kernel.asm["ptx"]
    records[f"{label}{self.fn.__module__}.{self.fn.__name__} {kernel.hash}"] = {
        "ptx": ptx,
        "cubin": len(kernel.asm["cubin"]),
    }
    return kernel


def snake(x, frequency):
    return x + torch.sin(frequency * x).square() / frequency


def noisy(x, low):
    return x * (low + torch.rand_like(x))


def pointwise(function):
    """Compile all kernels of a formula for all dtypes, layouts and sizes."""
    formula = Formula(function, (None,), (True,))
    for dtype in DTYPES:
        for size in SIZES:
            call(formula, dtype, Layout(size, 1, 1, torch.contiguous_format), per_channel=False)
        for sizes in (*ROWS, *COLUMNS):
            call(formula, dtype, Layout(*sizes, torch.contiguous_format), per_channel=True)


def call(formula, dtype, layout, *, per_channel):
    """Call both kernels of a formula, results over arguments."""
    x = torch.zeros(layout.outer * layout.channels * layout.inner, dtype=dtype)
    leaves = torch.ones(1, layout.channels)
    options = {"arrays": 1, "leaves": 1, "per_channel": per_channel, "dtype": dtype}
    triton_kernel(formula.value, **options)((x,), (x,), leaves, layout, 2**61)
    triton_kernel(formula.gradient, **options)((x, x), (x,), leaves, layout, 2**61)


def swish_times(x, u, beta):
    return x * torch.sigmoid(beta * x) * u


def pairs():
    """Compile all kernels of pairs."""
    global label
    label = "pairs:"
    formula = Formula(swish_times, (None,), (True,), pairs=True)
    for dtype in DTYPES:
        for (shape, interleaved), per_channel in product(PAIRS, (False, True)):
            x, halves = torch.zeros(shape, dtype=dtype), Halves(gate_first=True, interleaved=interleaved)
            layout = layout_of_pairs(x, torch.contiguous_format, 1, interleaved=interleaved, shared=not per_channel)
            call_pairs(formula, halves.of(x, 1), layout, per_channel=per_channel)
        for shape, per_channel in product(APART, (False, True)):
            both, layout = laid_apart(*torch.zeros(2, *shape, dtype=dtype), channel_dim=1 if per_channel else None)
            call_pairs(formula, both, layout, per_channel=per_channel)
    label = ""


def call_pairs(formula, both, layout, *, per_channel):
    """Call both kernels of a formula of pairs, gradients over gates and values."""
    g, leaves = torch.zeros(both[0].shape, dtype=both[0].dtype), torch.ones(1, layout.channels)
    options = {"leaves": 1, "per_channel": per_channel, "dtype": g.dtype, "pairs": True}
    triton_kernel(formula.value, arrays=1, **options)(both, (g,), leaves, layout)
    triton_kernel(formula.gradient, arrays=2, **options)((*both, g), both, leaves, layout)


def tables():
    """Compile all lookups."""
    grid = Grid(origin=0.0, step=1 / 16, first=-64, bins=128)
    for channels, divided in product((1, 3), (False, True)):
        entries = torch.full((channels, grid.bins), 1 << 20, dtype=torch.int32) if divided else None
        table = SimpleNamespace(grid=grid, entries=entries, rows=torch.zeros(channels, grid.bins, 4))
        for dtype in DTYPES:
            for inner in (1, 5, 16):
                layout = Layout(4, channels, inner, torch.contiguous_format)
                x = torch.zeros(4 * channels * inner, dtype=dtype)
                run_table(table, layout, x, None, x, None)
                run_table(table, layout, x, x, x, None)
                run_table(table, layout, x, x, x, torch.empty_like(table.rows))


def main():
    triton.runtime.driver.set_active(Driver(int(sys.argv[1])))
    JITFunction.run = compile_only
    pointwise(snake)
    pointwise(noisy)
    pairs()
    tables()
    json.dump(records, sys.stdout)


if __name__ == "__main__":
    main()
