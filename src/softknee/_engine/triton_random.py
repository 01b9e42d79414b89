"""The uniform numbers of `native/random.h` for Triton kernels: the same for the same seed and position."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def key_of(seed, start):
    """Return the 64-bit key of a run of elements.

    Args:
        seed: Any integer.
        start: Position of the run's first element; a block of positions gives a block of keys.

    Returns:
        As uint64.
    """
    h = seed.to(tl.uint64) + (start + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB
    return h ^ (h >> 31)


@triton.jit
def _times(h, factor: tl.constexpr):
    """Return the low half of a product; formed in 64 bits, because Triton may be told to trap on overflow."""
    return (h.to(tl.uint64) * factor).to(tl.uint32)


@triton.jit
def _hash(h):
    h = _times(h ^ (h >> 16), 0x7FEB352D)
    h = _times(h ^ (h >> 15), 0x846CA68B)
    return h ^ (h >> 16)


@triton.jit
def uniform(key, position):
    """Return numbers in [0, 1), multiples of 2^-24.

    Args:
        key: As `key_of` returns it.
        position: Of elements within their run.

    Returns:
        As float32.
    """
    h = _hash(_hash(position.to(tl.uint32) ^ key.to(tl.uint32)) ^ (key >> 32).to(tl.uint32))
    return (h >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
