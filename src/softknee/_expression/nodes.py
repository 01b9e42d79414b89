"""What formulas are made of: numbers, names, calls of primitives and reductions over vector parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._expression.primitives import Primitive

VARIABLE = "x"
# Names inside a reduction: which term it is, from 0, and how many there are. Outside they are names like any other.
INDEX, TERMS = "index", "terms"
COUNTERS = frozenset({INDEX, TERMS})
# Binding strength of the operators when printed; calls and names bind strongest.
PRECEDENCE = {"<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}
ATOM = 5
# Whole numbers up to it are printed without a point.
LARGEST_WHOLE = 1e15


@dataclass(frozen=True)
class Number:
    """A constant, finite."""

    value: float

    def __str__(self) -> str:
        whole = self.value.is_integer() and abs(self.value) < LARGEST_WHOLE
        return str(int(self.value)) if whole else repr(self.value)


@dataclass(frozen=True)
class Name:
    """The variable `x` or a parameter."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Reduction:
    """A sum, or the largest, of one term for each entry of the vector parameters in it.

    Attributes:
        kind: Key of `FOLDS`.
        term: May use `index` and `terms` beside the vectors.
    """

    kind: str
    term: Node

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.term))

    def __str__(self) -> str:
        return f"{self.kind}({self.term})"


@dataclass(frozen=True)
class Call:
    """A primitive applied to arguments."""

    primitive: Primitive
    arguments: tuple[Node, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # kept, because every step of simplifying asks for those of whole trees
        return hash((self.primitive.name, self.arguments))

    @property
    def shown(self) -> tuple[Node, ...]:
        """The arguments without those at the end that would be the same if left out."""
        shown = self.arguments
        for param in reversed(self.primitive.parameters):
            if param.default is None or shown[-1] != Number(param.default):
                break
            shown = shown[:-1]
        return shown

    def __str__(self) -> str:
        name = self.primitive.name
        if name == "neg":
            return f"-{inside(self.arguments[0], PRECEDENCE['neg'])}"
        if name not in PRECEDENCE:
            return f"{name}({', '.join(map(str, self.shown))})"
        own = PRECEDENCE[name]
        # Operators group to the left, the power to the right.
        left, right = (own + 1, own) if name == "**" else (own, own + 1)
        gap = " " if own < PRECEDENCE["**"] else ""
        return f"{inside(self.arguments[0], left)}{gap}{name}{gap}{inside(self.arguments[1], right)}"


Node = Number | Name | Reduction | Call


def inside(node: Node, binding: int) -> str:
    """Return the text of an operand, in brackets where the operator around it binds tighter."""
    return f"({node})" if binding_of(node) < binding else str(node)


def binding_of(node: Node) -> int:
    """Return how strongly the parts of a node hold together when printed."""
    if isinstance(node, Call):
        return PRECEDENCE.get(node.primitive.name, ATOM)
    # The sign of a number is an operator like any other.
    return PRECEDENCE["neg"] if isinstance(node, Number) and node.value < 0 else ATOM


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below."""
    if isinstance(node, Call):
        return node.arguments
    return (node.term,) if isinstance(node, Reduction) else ()


def rebuilt(node: Node, below: Sequence[Node]) -> Node:
    """Return the same operation on other nodes."""
    if isinstance(node, Call):
        return Call(node.primitive, tuple(below))
    return Reduction(node.kind, below[0]) if isinstance(node, Reduction) else node


def subtrees(node: Node) -> Iterator[Node]:
    """Yield every node of a tree, those above before those below."""
    yield node
    for child in children(node):
        yield from subtrees(child)


def size_of(node: Node) -> int:
    """Return the number of nodes."""
    return 1 + sum(map(size_of, children(node)))


def names_of(node: Node) -> tuple[str, ...]:
    """Return the names in a tree in order of appearance, `x` included, without repetition or a reduction's counters."""
    if isinstance(node, Name):
        return (node.name,)
    if isinstance(node, Reduction):
        return tuple(name for name in names_of(node.term) if name not in COUNTERS)
    return tuple(dict.fromkeys(name for child in children(node) for name in names_of(child)))


def vectors_of(node: Node) -> frozenset[str]:
    """Return the names inside reductions, `x` and the counters excluded: those of vector parameters."""
    if isinstance(node, Reduction):
        return frozenset(names_of(node)) - {VARIABLE}
    return frozenset(name for child in children(node) for name in vectors_of(child))
