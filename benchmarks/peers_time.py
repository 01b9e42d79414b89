"""The child process of `peers.py` that times: one function after the other, all its implementations in turn in one run.

Usage: python peers_time.py ROUNDS '{FUNCTION: [[LIBRARY, KEY], ...]}'
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from functools import cache, partial
from typing import Any

import torch
from peers_libraries import attempt, by_place, find, own_output, seeded
from torch import nn

from softknee._card.cost import forward_backward, interleaved, ratio, saved_bytes

SHAPE = (64, 256, 16, 16)


@cache
def entries(library: str) -> dict[str, Any]:
    """Return a library's classes."""
    return dict(by_place(find(library)))


def main() -> None:
    """Write a line for each function: `{library: [ratio to torch.nn.GELU, bytes saved for each element]}`."""
    lines = own_output()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for name, subjects in json.loads(sys.argv[2]).items():
        print(json.dumps({name: timed(subjects, x, int(sys.argv[1]))}), file=lines, flush=True)


def timed(subjects: list[list[str]], x: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Return time and memory of each implementation, or why there is none."""
    modules: dict[str, nn.Module] = {}
    result: dict[str, Any] = {}
    for library, key in subjects:
        module, reason = attempt(lambda library=library, key=key: seeded(entries(library)[key], SHAPE[1]))
        _, reason = (None, reason) if reason else attempt(forward_backward(module, x))
        result[library] = reason
        modules |= {} if reason else {library: module}
    runs = {library: forward_backward(module, x) for library, module in modules.items()}
    seconds = interleaved({"": forward_backward(nn.GELU(), x), **runs}, repeats=rounds)
    for library, module in modules.items():
        bytes_saved, _ = attempt(partial(saved_bytes, module, x))
        result[library] = [ratio(seconds[library], seconds[""]), math.nan if bytes_saved is None else bytes_saved]
    return result


if __name__ == "__main__":
    main()
