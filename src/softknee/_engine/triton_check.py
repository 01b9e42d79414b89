"""Whether Triton works on this machine: it needs a driver, a C compiler and a GPU that it knows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from softknee._engine import triton_math

COUNT = 16


@triton.jit
def _exponentials(y_at, count: tl.constexpr):
    place = tl.arange(0, count)
    tl.store(y_at + place, triton_math.exp(place.to(tl.float32)))


def check() -> str | None:
    """Compile and run a small kernel.

    Returns:
        What is wrong, None where nothing is.
    """
    if not torch.cuda.is_available():
        # Then this is Triton's interpreter, which needs nothing.
        return None
    y = torch.empty(COUNT, device="cuda")
    try:
        _exponentials[(1,)](y, count=COUNT)
        right = torch.allclose(y.cpu(), torch.arange(COUNT, dtype=torch.float32).exp(), rtol=1e-6, atol=0)
    except Exception as error:  # Triton, its compilers and the driver fail in many ways.
        return f"Triton does not work here: {type(error).__name__}: {error}"
    return None if right else "Triton computes wrong numbers here"
