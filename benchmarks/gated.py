"""Gated pairs: one pass by our kernels against the same as a composition of torch's functions, and against `F.glu`.

Everything in a row is timed in turn in one process on one thread; ratios are medians over the rounds of the ratios
within a round. Forward and backward go through autograd, with the gradient of the input. `F.glu`, torch's one fused
pair, is another function than most rows and stands for what one pass costs. In rows with `(a, b)` gate and value are
tensors of their own, half as wide; `F.glu` has them in one. Memory is what is kept for the backward pass, in bytes an
element of the inputs.

Usage: python benchmarks/gated.py [--shape 8x1024x4096] [--dtype float32 bfloat16] [--rounds 9]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee import nn
from softknee._card.cost import interleaved, ratio
from softknee._glu import glu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Pair = Callable[..., Tensor]


def composed(gate: Pair, *, interleaved: bool = False) -> Pair:
    """Return a pair as one would write it."""

    def pair(x: Tensor) -> Tensor:
        a, b = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        return gate(a) * b

    return pair


def chunked(pair: Pair) -> Pair:
    """Return a pair that is given views of halves."""

    def of_one(x: Tensor) -> Tensor:
        return pair(*x.chunk(2, -1))

    return of_one


def product(gate: Pair) -> Pair:
    """Return a pair of two tensors as models have it."""

    def pair(a: Tensor, b: Tensor) -> Tensor:
        return gate(a) * b

    return pair


# Ours, and the composition.
SUBJECTS: Mapping[str, tuple[Pair, Pair]] = {
    "swiglu": (nn.SwiGLU(), composed(F.silu)),
    "geglu": (nn.GEGLU(), composed(F.gelu)),
    "reglu": (nn.ReGLU(), composed(F.relu)),
    'glu("mish")': (glu("mish"), composed(F.mish)),
    "glu (gate second)": (nn.GLU(), F.glu),
    "swiglu, interleaved": (nn.SwiGLU(interleaved=True), composed(F.silu, interleaved=True)),
    "swiglu_oai, interleaved": (nn.SwiGLUOAI(interleaved=True), nn.SwiGLUOAI(interleaved=True, engine="eager")),
    "swiglu(*x.chunk(2))": (chunked(nn.SwiGLU()), composed(F.silu)),
}
# Of two tensors.
PRODUCTS: Mapping[str, tuple[Pair, Pair]] = {
    "swiglu(a, b)": (nn.SwiGLU(), product(F.silu)),
    'glu("mish")(a, b)': (glu("mish"), product(F.mish)),
}


def forward(pair: Pair, inputs: Sequence[Tensor]) -> Callable[[], Any]:
    """Return what runs a pair without gradients."""

    def run() -> Tensor:
        with torch.no_grad():
            return pair(*inputs)

    return run


def both(pair: Pair, inputs: Sequence[Tensor]) -> Callable[[], Any]:
    """Return what runs a pair forward and backward."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    g = torch.randn_like(pair(*leaves))

    def run() -> None:
        torch.autograd.backward(pair(*leaves), g)
        for leaf in leaves:
            leaf.grad = None

    return run


def kept(pair: Pair, inputs: Sequence[Tensor]) -> float:
    """Return the bytes kept for the backward pass for each element of the input; what is shared counts once."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pair(*(x.detach().requires_grad_() for x in inputs))
    return sum(found.values()) / sum(x.numel() for x in inputs)


def row(ours: Pair, theirs: Pair, inputs: Sequence[Tensor], whole: Tensor, rounds: int) -> list[float]:
    """Return ratios of ours to both, forward and forward with backward, and the memory of both."""
    cells = []
    for way in (forward, both):
        runs = {"ours": way(ours, inputs), "theirs": way(theirs, inputs), "glu": way(F.glu, [whole])}
        seconds = interleaved(runs, repeats=rounds)
        cells += [ratio(seconds["ours"], seconds[name]) for name in ("theirs", "glu")]
    return [*cells, kept(theirs, inputs), kept(ours, inputs)]


def rows(x: Tensor) -> Iterator[tuple[str, tuple[Pair, Pair], Sequence[Tensor]]]:
    """Yield the name of each row, the pairs in it and their inputs."""
    for name, pairs in SUBJECTS.items():
        yield name, pairs, [x]
    for name, pairs in PRODUCTS.items():
        yield name, pairs, [half.contiguous() for half in x.chunk(2, -1)]


def main() -> None:
    """Print a Markdown table for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8x1024x4096")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for dtype in options.dtype:
        x = torch.randn(*map(int, options.shape.split("x"))).to(getattr(torch, dtype))
        print(f"## {options.shape}, {dtype}\n")
        print("| pair | forward / composition | / F.glu | f+b / composition | / F.glu | kept, composition | kept |")
        print("|---|---|---|---|---|---|---|")
        for name, (ours, theirs), inputs in rows(x):
            cells = " | ".join(f"{cell:.2f}" for cell in row(ours, theirs, inputs, x, options.rounds))
            print(f"| {name} | {cells} |", flush=True)
        print()


if __name__ == "__main__":
    main()
