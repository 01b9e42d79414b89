"""Evaluates a graph with torch, one operation at a time: what every kernel made from it should give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._engine.graph import Graph

OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "abs", "sign", "sqrt", "floor")},
    **{name: getattr(torch, name) for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "tanh")},
    **{name: getattr(torch, name) for name in ("sigmoid", "erf", "hypot", "remainder", "pow", "where")},
    **{name: getattr(torch, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    "max": torch.maximum,
    "min": torch.minimum,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
}


def interpret(graph: Graph, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The outputs of a graph, in the dtype of its inputs."""
    like = next(iter(inputs.values()))
    results: list[Tensor] = []
    for operation in graph.operations:
        if operation.name == "input":
            results.append(inputs[operation.text])
        elif operation.name == "constant":
            results.append(torch.full_like(like, float(operation.text)))
        else:
            results.append(OPERATIONS[operation.name](*[results[argument] for argument in operation.arguments]))
    return tuple(results[output] for output in graph.outputs)


def same(got: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors hold the same numbers, zeros of the same sign, and NaN in the same places."""
    equal = (got == wanted) & (got.signbit() == wanted.signbit()) | (got.isnan() & wanted.isnan())
    return got.shape == wanted.shape and bool(equal.all())
