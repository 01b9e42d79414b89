"""Evaluates activations in a process of its own, whose environment decides about compilers and instruction sets."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from subjects import CHANNELS, Subject, normal, run, subject

from softknee._engine import build
from softknee._engine.select import engine

CASES = [
    *(subject(name) for name in ("tanh", "sigmoid", "softplus", "telu", "mish", "isru", "selu", "relu", "rational")),
    *(subject(name, per_channel=True) for name in ("swish", "snake", "srelu", "staf", "bspline", "pelu")),
]
ENGINES = ("fused", "table", "auto")


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Most of them within the reach of tables, some not."""
    return normal(90, CHANNELS, 11, scale=3.0), normal(90, CHANNELS, 11, seed=2)


def engines(case: Subject) -> tuple[str, ...]:
    """Those that are accurate: a kink within a bin leaves a table inaccurate there."""
    return tuple(how for how in ENGINES if how != "table" or case.spec.name != "srelu")


def penalty(module, x: torch.Tensor) -> torch.Tensor:
    """The gradient of a gradient penalty."""
    x = x.detach().requires_grad_()
    (by_x,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    return torch.autograd.grad(by_x.square().sum(), x)[0]


def results() -> dict[str, Any]:
    """What each engine gives for each activation, which engine it was, and the parameters."""
    x, g = inputs()
    found: dict[str, Any] = {}
    for case in CASES:
        for how in engines(case):
            module = case.module(engine=how)
            found[f"{case} {how}"] = (module.engine_for(x), *run(module, x, g))
            found[f"{case} state"] = module.state_dict()
    with engine("table"):
        found["penalty"] = penalty(subject("softplus").module(), x)
    noisy = subject("rrelu").module().train()
    found["noise"] = run(noisy, x, g)[:2]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        everything = {"results": results(), "level": build.level(), "compiler": build.compiler()}
    everything["warnings"] = [(note.category.__name__, str(note.message)) for note in noted]
    torch.save(everything, sys.argv[1])
