"""A formula as a tree of known operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._expression.primitives import Primitive

    Value = Tensor | float | Sequence[Tensor | float]

VARIABLE = "x"
# Names inside a sum: which term it is, from 0, and how many there are. Outside they are parameters like any other.
INDEX, TERMS = "index", "terms"
COUNTERS = frozenset({INDEX, TERMS})
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
    """A sum over the entries of the vector parameters in `term`, which may also use `index` and `terms`."""

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

    def __call__(self, x: Tensor, *values: Value) -> Tensor:
        """Evaluate elementwise.

        Args:
            x: Any shape, any floating dtype.
            *values: One for each of `parameters`, broadcastable to `x`; a vector parameter's along its first axis, or
                as a sequence of entries.

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


def _evaluate(node: Node, x: Tensor, values: Mapping[str, Any]) -> Tensor:
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


def _evaluate_where(node: Call, x: Tensor, values: Mapping[str, Any]) -> Tensor:
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


def _evaluate_sum(node: Sum, x: Tensor, values: Mapping[str, Any]) -> Tensor:
    first, *others = [_evaluate(node.term, x, part) for part in _parts(node, values)]
    return sum(others, first)


def _parts(node: Sum, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the values in each term of a sum: for a vector its entry, and the counters."""
    vectors = {name: values[name] for name in vectors_of(node) if _is_vector(values[name])}
    terms = max(map(len, vectors.values()))
    return [
        {**values, **{name: vector[i] for name, vector in vectors.items()}, INDEX: i, TERMS: terms}
        for i in range(terms)
    ]


def _is_vector(value: Any) -> bool:
    return value.dim() > 0 if isinstance(value, Tensor) else isinstance(value, list | tuple)


def _symbolic(node: Node, sympy: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, Number):
        return sympy.Rational(repr(node.value))
    if isinstance(node, Name):
        return sympy.sympify(values[node.name])
    if isinstance(node, Sum):
        return sympy.Add(*[_symbolic(node.term, sympy, part) for part in _parts(node, values)])
    return node.primitive.symbolic(sympy, *[_symbolic(argument, sympy, values) for argument in node.arguments])


def evaluate_constant(node: Node) -> float:
    """Return the value of a tree without names, in float64; it may be infinite or not a number."""
    return _evaluate(node, torch.zeros((), dtype=torch.float64), {}).item()


def vectors_of(node: Node) -> frozenset[str]:
    """Return the names inside sums, `x` and the counters excluded: those of vector parameters."""
    if isinstance(node, Sum):
        return frozenset(names_of(node)) - {VARIABLE}
    below = node.arguments if isinstance(node, Call) else ()
    return frozenset(name for child in below for name in vectors_of(child))


def names_of(node: Node) -> tuple[str, ...]:
    """Return the names in a tree in order of appearance, `x` included, without repetition or a sum's counters."""
    if isinstance(node, Name):
        return (node.name,)
    if isinstance(node, Sum):
        return tuple(name for name in names_of(node.term) if name not in COUNTERS)
    below = node.arguments if isinstance(node, Call) else ()
    return tuple(dict.fromkeys(name for child in below for name in names_of(child)))
