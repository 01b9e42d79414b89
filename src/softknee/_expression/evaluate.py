"""The value of a tree: as tensors, as a number, or as a sympy expression."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._errors import ExpressionError
from softknee._expression.nodes import INDEX, TERMS, VARIABLE, Call, Name, Number, Reduction, vectors_of
from softknee._expression.primitives import FOLDS, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Node


def evaluate(node: Node, x: Tensor, values: Mapping[str, Any]) -> Tensor:
    """Return the value of a tree, of a shape that broadcasts to that of `x`.

    Args:
        node: The tree.
        x: Any shape, any floating dtype.
        values: Of the other names: numbers and tensors, for vectors one for each entry.

    Returns:
        The value.

    Raises:
        ExpressionError: A reduction has nothing to run over, or vectors of several lengths.
    """
    if isinstance(node, Number):
        return _number(node.value, x)
    if isinstance(node, Name):
        value = x if node.name == VARIABLE else values[node.name]
        return value if isinstance(value, Tensor) else _number(value, x)
    if isinstance(node, Reduction):
        first, *others = [evaluate(node.term, x, part) for part in _parts(node, values)]
        for other in others:
            first = FOLDS[node.kind].combine(first, other)
        return first
    if node.primitive.name == "where":
        return _where(node, x, values)
    return node.primitive.function(*_arguments(node, x, values))


def _arguments(node: Call, x: Tensor, values: Mapping[str, Any]) -> list[Any]:
    """Return the values of arguments; parameters broadcast to what they belong to, numbers among them stay numbers."""
    parameters = node.primitive.parameters
    plain = [evaluate(argument, x, values) for argument in node.arguments[: len(node.arguments) - len(parameters)]]
    if not parameters:
        return plain
    others: list[Any] = [
        # As numbers, they lead to torch's own functions.
        (int(argument.value) if param.integer else argument.value)
        if isinstance(argument, Number)
        else evaluate(argument, x, values)
        for param, argument in zip(parameters, node.arguments[len(plain) :], strict=True)
    ]
    shapes = [value.shape for value in others if isinstance(value, Tensor)]
    return [*(value.expand(torch.broadcast_shapes(value.shape, *shapes)) for value in plain), *others]


def _number(value: float, x: Tensor) -> Tensor:
    """Return a number in the dtype of `x`, infinite where it has none so large."""
    return x.new_full((), math.copysign(math.inf, value) if abs(value) > torch.finfo(x.dtype).max else value)


def _where(node: Call, x: Tensor, values: Mapping[str, Any]) -> Tensor:
    condition, chosen, other = node.arguments
    vectors = vectors_of(node)
    kept = [name for name, value in values.items() if isinstance(value, Tensor) and name not in vectors]

    def on(branch: Node) -> Callable[..., Tensor]:
        return lambda x, *own: evaluate(branch, x, {**values, **dict(zip(kept, own, strict=True))})

    return choose(evaluate(condition, x, values), on(chosen), on(other), x, *(values[name] for name in kept))


def _parts(node: Reduction, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the values in each term of a reduction: for a vector its entry, and the counters.

    Raises:
        ExpressionError: There is no vector, or there are vectors of several lengths.
    """
    vectors = {name: values[name] for name in sorted(vectors_of(node)) if _is_vector(values[name])}
    lengths = {len(vector) for vector in vectors.values()}
    if len(lengths) != 1:
        found = ", ".join(f"{name} has {len(vector)} entries" for name, vector in vectors.items())
        raise ExpressionError(f"{node} runs over vectors of one length, got {found or 'single numbers only'}")
    terms = lengths.pop()
    return [
        {**values, **{name: vector[i] for name, vector in vectors.items()}, INDEX: i, TERMS: terms}
        for i in range(terms)
    ]


def _is_vector(value: Any) -> bool:
    return value.dim() > 0 if isinstance(value, Tensor) else isinstance(value, list | tuple)


def symbolic(node: Node, sympy: Any, values: Mapping[str, Any]) -> Any:
    """Return a tree as a sympy expression; arguments as in `evaluate`, `x` among the values."""
    if isinstance(node, Number):
        return sympy.Rational(repr(node.value))
    if isinstance(node, Name):
        return sympy.sympify(values[node.name])
    if isinstance(node, Reduction):
        return FOLDS[node.kind].symbolic(sympy, [symbolic(node.term, sympy, part) for part in _parts(node, values)])
    return node.primitive.symbolic(sympy, *[symbolic(argument, sympy, values) for argument in node.arguments])


def evaluate_constant(node: Node) -> float:
    """Return the value of a tree without names, in float64; it may be infinite or not a number."""
    return evaluate(node, torch.zeros((), dtype=torch.float64, device="cpu"), {}).item()
