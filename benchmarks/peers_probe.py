"""The child process of `peers.py`: one library's classes, one JSON line each, so that a class that dies ends only this.

Usage: python peers_probe.py LIBRARY FIRST EXPORT SEED
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import warnings
from functools import partial
from typing import IO, Any

import torch
from peers_checks import CLEAN, GRID, OTHER, PATIENCE, Case, exported, first_case, limited, saved, verdict
from peers_libraries import CHANNELS, Entry, attempt, by_place, find, own_output, seeded
from torch import Tensor, nn

MEMORY = 24 * 2**30
# Tensors and vectors that are read out of a module as its parameters are at most this long.
LONGEST = 64


def main() -> None:
    """Write what is found, then a start and a result line for each class from number FIRST on."""
    library, first, export, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    lines = own_output()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found, reason = attempt(partial(find, library))
    if found is None:
        _write(lines, {"failed": reason})
        return
    warm = Case(Entry("ReLU", "", exported=True, make=lambda _: nn.ReLU()), (4, CHANNELS))
    for check in (*CLEAN, exported):  # so that no class pays for the imports
        attempt(partial(check, warm))
    entries = dict(by_place(found))
    chosen = set(random.Random(seed).sample(sorted(entries), min(export, len(entries))))
    _write(lines, {"classes": [*entries], "missing": found.missing, "remark": found.remark})
    for key in [*entries][first:]:
        _write(lines, {"start": key})
        started = time.perf_counter()
        result = probe(entries[key], export=key in chosen)
        _write(lines, {"result": key, **result, "seconds": round(time.perf_counter() - started, 3)})
    _write(lines, {"end": True})


def probe(entry: Entry, *, export: bool) -> dict[str, Any]:
    """Return everything measured on one class."""
    about = {"name": entry.name, "place": entry.place, "exported": entry.exported, "aliases": entry.aliases}
    case, reason = first_case(entry)
    if case is None:
        # It may still be a gate that takes its halves apart.
        return {**about, "runs": reason, "pair": attempt(partial(_pair, entry))[0]}
    checks = {check.__name__: verdict(check, case) for check in (*CLEAN, *((exported,) if export else ()))}
    values, why = attempt(partial(_values, case))
    return {
        **about,
        "runs": "",
        "shape": case.shape,
        "checks": checks,
        "values": values,
        "why_no_values": why,
        "pair": attempt(partial(_pair, entry))[0],
        "row": attempt(partial(_row, entry))[0],
        "numbers": attempt(lambda: _numbers(case.module()))[0] or {},
        "trained": sum(p.numel() for p in case.module().parameters() if p.requires_grad),
        "saved": saved(case),
    }


def _values(case: Case) -> dict[str, Any]:
    """Return the values on the grid in the first two channels, in float64 if possible."""
    dims = len(case.shape)
    x = torch.tensor(GRID, dtype=torch.float64)
    x = x.view(-1, *[1] * (dims - 1)).expand(-1, *case.shape[1:]).contiguous()
    with limited(PATIENCE), torch.no_grad():
        y, again = (_evaluate(case.entry, x, seed) for seed in (3, 4))
    if y.shape != x.shape:
        raise ValueError(f"maps {list(x.shape)} to {list(y.shape)}")
    if not torch.equal(y.nan_to_num(), again.nan_to_num()):
        raise ValueError("random")
    channels = y.flatten(1)[:, :: y[0][0].numel() if dims > 2 else 1] if dims > 1 else y[:, None]
    return {"first": channels[:, 0].tolist(), "second": channels[:, min(1, channels.shape[1] - 1)].tolist()}


def _evaluate(entry: Entry, x: Tensor, seed: int) -> Tensor:
    y, reason = attempt(lambda: _called(seeded(entry).double(), (x,), seed))
    return _called(seeded(entry), (x.float(),), seed).double() if reason else y


def _called(module: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> Tensor:
    torch.manual_seed(seed)
    y: Tensor = module(*inputs)
    return y.double()


def _pair(entry: Entry) -> list[float]:
    """Return a gate's values where the first half of its input is GRID and the second OTHER."""
    halves = [
        torch.tensor(half, dtype=torch.float64)[:, None].expand(-1, CHANNELS).contiguous() for half in (GRID, OTHER)
    ]
    with limited(PATIENCE), torch.no_grad():
        y, reason = attempt(lambda: _called(seeded(entry).double(), (torch.cat(halves, 1),), 0))
        if reason or y.shape != halves[0].shape:
            y = _called(seeded(entry).double(), (halves[0], halves[1]), 0)
    if y.shape != halves[0].shape:
        raise ValueError("no gate")
    return y[:, 0].tolist()


def _row(entry: Entry) -> list[float]:
    """Return what becomes of one row of numbers, for functions of several entries."""
    x = torch.tensor(GRID, dtype=torch.float64)[torch.arange(4 * CHANNELS) * 23 % 64].view(4, CHANNELS)
    with limited(PATIENCE), torch.no_grad():
        y = _called(seeded(entry).double(), (x,), 0)
    return y[0].flatten().tolist()


def _numbers(module: nn.Module) -> dict[str, Any]:
    """Return the numbers that a module holds: parameters, buffers and plain attributes, its parts' too."""
    held: dict[str, Any] = {}
    for path, part in module.named_modules():
        own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False)), **vars(part)}
        held |= {f"{path}.{name}".lstrip("."): value for name, value in own.items()}
    numbers: dict[str, Any] = {}
    for name, value in held.items():
        if isinstance(value, Tensor) and value.is_floating_point() and 0 < value.numel() <= LONGEST:
            flat = value.detach().double().flatten().tolist()
            numbers[name] = flat[0] if len({*flat}) == 1 else flat
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = float(value)
    return numbers


def _write(lines: IO[str], content: dict[str, Any]) -> None:
    lines.write(json.dumps(content) + "\n")
    lines.flush()


if __name__ == "__main__":
    main()
