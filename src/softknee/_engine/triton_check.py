"""Whether Triton works on this machine: it needs a driver, a C compiler and a GPU that it knows."""

from __future__ import annotations

from functools import lru_cache

import torch

COUNT = 16


@lru_cache(maxsize=1)
def trouble() -> str | None:
    """Compile and run a small kernel on the present GPU, once a process.

    Returns:
        Why Triton cannot be used, None where it can.
    """
    try:
        from softknee._engine.triton_math import exponentials
    except ImportError as error:
        return f"there is no Triton: {error}"
    if not torch.cuda.is_available():
        # Then whoever asks runs Triton's interpreter, which needs nothing.
        return None
    y = torch.empty(COUNT, device="cuda")
    try:
        exponentials[(1,)](y, count=COUNT, enable_fp_fusion=True)
        right = torch.allclose(y.cpu(), torch.arange(COUNT, dtype=torch.float32).exp(), rtol=1e-6, atol=0)
    except Exception as error:  # Triton, its compilers and the driver fail in many ways.
        return f"Triton does not work here: {type(error).__name__}: {error}"
    return None if right else "Triton computes wrong numbers here"
