"""A formula as a tree of known operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.primitives import Primitive

VARIABLE = "x"
# Binding strength of the operators when printed; calls and names bind strongest.
PRECEDENCE = {"<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}
ATOM = 5


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float

    def __str__(self) -> str:
        return str(int(self.value)) if self.value == int(self.value) and abs(self.value) < 1e15 else repr(self.value)


@dataclass(frozen=True)
class Name:
    """The variable `x` or a parameter."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Sum:
    """A sum over the entries of the vector parameters in `term`."""

    term: Node

    def __str__(self) -> str:
        return f"sum({self.term})"


@dataclass(frozen=True)
class Call:
    """A primitive applied to arguments."""

    primitive: Primitive
    arguments: tuple[Node, ...]

    def __str__(self) -> str:
        name = self.primitive.name
        if name == "neg":
            return f"-{_inside(self.arguments[0], PRECEDENCE['neg'])}"
        if name not in PRECEDENCE:
            return f"{name}({', '.join(map(str, self.arguments))})"
        own = PRECEDENCE[name]
        # Operators group to the left, the power to the right.
        left, right = (own + 1, own) if name == "**" else (own, own + 1)
        gap = " " if own < PRECEDENCE["**"] else ""
        return f"{_inside(self.arguments[0], left)}{gap}{name}{gap}{_inside(self.arguments[1], right)}"


Node = Number | Name | Sum | Call


def _inside(node: Node, binding: int) -> str:
    own = PRECEDENCE.get(node.primitive.name, ATOM) if isinstance(node, Call) else ATOM
    return f"({node})" if own < binding else str(node)


@dataclass(frozen=True)
class Expression:
    """A formula that can be evaluated, printed and hashed; its text brings it back.

    Attributes:
        root: The tree.
        parameters: Names other than `x`, in order of appearance.
    """

    root: Node
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.root)

    def __call__(self, x: Tensor, *values: Tensor | float) -> Tensor:
        """Evaluate elementwise.

        Args:
            x: Any shape, any floating dtype.
            *values: One for each of `parameters`, broadcastable to `x`; a vector parameter's along its first axis.

        Returns:
            Same shape and dtype as `x`.
        """
        names = dict(zip(self.parameters, values, strict=True))
        return _evaluate(self.root, x, names).to(x.dtype).expand_as(x)

    def to_sympy(self, values: Mapping[str, Any]) -> Any:
        """Return the formula as a sympy expression.

        Args:
            values: Sympy objects for `x` and each parameter, a sequence of them for a vector parameter.

        Returns:
            A sympy expression, piecewise where the formula is.
        """
        import sympy

        return _symbolic(self.root, sympy, values)


def _evaluate(node: Node, x: Tensor, values: Mapping[str, Tensor | float]) -> Tensor:
    if isinstance(node, Number):
        return x.new_full((), node.value)
    if isinstance(node, Name):
        value = x if node.name == VARIABLE else values[node.name]
        return value if isinstance(value, Tensor) else x.new_full((), value)
    if isinstance(node, Sum):
        return _evaluate_sum(node, x, values)
    if node.primitive.name == "where":
        return _evaluate_where(node, x, values)
    return node.primitive.function(*[_evaluate(argument, x, values) for argument in node.arguments])


def _evaluate_where(node: Call, x: Tensor, values: Mapping[str, Tensor | float]) -> Tensor:
    """Evaluate both branches, with gradients only from the places where each is taken: elsewhere they may be NaN."""
    condition, chosen, other = node.arguments
    mask = _evaluate(condition, x, values)
    vectors = vectors_of(node)

    def only(taken: Tensor, branch: Node) -> Tensor:
        kept = {
            name: torch.where(taken, value, value.detach())
            if isinstance(value, Tensor) and name not in vectors
            else value
            for name, value in values.items()
        }
        return _evaluate(branch, torch.where(taken, x, x.detach()), kept)

    return torch.where(mask, only(mask, chosen), only(~mask, other))


def _evaluate_sum(node: Sum, x: Tensor, values: Mapping[str, Tensor | float]) -> Tensor:
    vectors = {name: value for name, value in values.items() if name in names_of(node.term)}
    terms = min(len(value) for value in vectors.values() if isinstance(value, Tensor))
    parts = [
        _evaluate(
            node.term, x, {**values, **{name: v[i] if isinstance(v, Tensor) else v for name, v in vectors.items()}}
        )
        for i in range(terms)
    ]
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def _symbolic(node: Node, sympy: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, Number):
        return sympy.Rational(repr(node.value))
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, Sum):
        vectors = {name: values[name] for name in names_of(node.term) if isinstance(values[name], (list, tuple))}
        terms = len(next(iter(vectors.values())))
        parts = [{**values, **{name: vector[i] for name, vector in vectors.items()}} for i in range(terms)]
        return sympy.Add(*[_symbolic(node.term, sympy, part) for part in parts])
    return node.primitive.symbolic(sympy, *[_symbolic(argument, sympy, values) for argument in node.arguments])


def evaluate_constant(node: Node) -> float:
    """Return the value of a tree without names, in float64; it may be infinite or not a number."""
    return _evaluate(node, torch.zeros((), dtype=torch.float64), {}).item()


def vectors_of(node: Node) -> frozenset[str]:
    """Return the names inside sums, `x` excluded: those of vector parameters."""
    if isinstance(node, Sum):
        return frozenset(names_of(node.term)) - {VARIABLE}
    below = node.arguments if isinstance(node, Call) else ()
    return frozenset(name for child in below for name in vectors_of(child))


def names_of(node: Node) -> tuple[str, ...]:
    """Return the names in a tree in order of appearance, `x` included, without repetition."""
    if isinstance(node, Name):
        return (node.name,)
    below = node.arguments if isinstance(node, Call) else (node.term,) if isinstance(node, Sum) else ()
    return tuple(dict.fromkeys(name for child in below for name in names_of(child)))
