"""Whether an incoming gradient is in nobody else's hands, so that its memory may take the outgoing one.

Fresh memory is most of what a backward pass costs on a CPU. What a tensor's reference counts are when it is unshared
depends on versions of Python and PyTorch, so it is not assumed but found out once, from a gradient that surely is.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

Counts = tuple[int, int, int]
UNKNOWN = sys.maxsize


def counts(g: Tensor) -> Counts:
    """Return how many hold a tensor, its memory, and its Python object; to be called from a `backward` itself."""
    storage = g.untyped_storage()
    try:
        # Memory that cannot be resized is not torch's own: numpy's, say, whose holders nobody counts.
        holders = torch._C._storage_Use_Count(storage._cdata) if storage.resizable() else UNKNOWN
        return g._use_count(), holders, sys.getrefcount(g)  # type: ignore[attr-defined]
    except AttributeError:  # a PyTorch without these counts
        return UNKNOWN, UNKNOWN, UNKNOWN


def is_unshared(found: Counts) -> bool:
    """Return whether `counts`, called from a `backward` on its gradient, are those of one that nobody else holds."""
    return all(one <= other for one, other in zip(found, _unshared(), strict=True))


@lru_cache(maxsize=1)
def _unshared() -> Counts:
    x = torch.zeros(1, device="cpu", requires_grad=True)
    seen: list[Counts] = []
    with torch.enable_grad():
        y = _Probe.apply(x * 1, seen).exp()
    y.backward()
    return (0, 0, 0) if UNKNOWN in seen[0] else seen[0]


class _Probe(Function):
    """Notes the counts of its gradient, which `exp` has just made for it alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[Counts]) -> Tensor:
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        ctx.seen.append(counts(g))
        return g.clone(), None
