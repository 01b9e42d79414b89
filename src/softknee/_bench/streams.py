"""Independent random streams of one run, so that runs that differ in one thing stay paired in all others."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a stream is for; the numbers are part of every result and never change."""

    WEIGHTS = 0
    ACTIVATION = 1
    ORDER = 2
    NOISE = 3


def stream_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """Return a 63-bit seed for `stream` of run `seed`; `index` counts epochs where a stream restarts with each."""
    (word,) = np.random.SeedSequence([seed, stream, index]).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))


def stream_generator(seed: int, stream: Stream, index: int = 0) -> torch.Generator:
    """Return a CPU generator seeded by `stream_seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, stream, index))
