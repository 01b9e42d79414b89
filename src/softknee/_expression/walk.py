"""Small helpers on trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from softknee._errors import ExpressionError
from softknee._expression.nodes import (
    COUNTERS,
    VARIABLE,
    Call,
    Name,
    Number,
    Reduction,
    children,
    names_of,
    rebuilt,
    subtrees,
    vectors_of,
)
from softknee._expression.primitives import PRIMITIVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from softknee._expression.nodes import Node

ZERO, ONE, TWO = Number(0.0), Number(1.0), Number(2.0)


def call(name: str, *arguments: Node) -> Call:
    """Return a primitive of the language applied to arguments."""
    return Call(PRIMITIVES[name], arguments)


def is_call(node: Node | None, *names: str) -> TypeGuard[Call]:
    """Whether a node is a call of one of these."""
    return isinstance(node, Call) and node.primitive.name in names


def is_constant(node: Node) -> bool:
    """Whether there is no name in a tree, not even a reduction's counter."""
    return not any(isinstance(below, Name) for below in subtrees(node))


def vector_names(node: Node) -> frozenset[str]:
    """Return the names that only occur inside reductions: those of vectors, for outside they would mean nothing."""
    return vectors_of(node) - {*_names_outside(node)}


def _names_outside(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.name
    if not isinstance(node, Reduction):
        for child in children(node):
            yield from _names_outside(child)


def replace_names(node: Node, trees: Mapping[str, Node]) -> Node:
    """Replace names by trees, all at once.

    Args:
        node: The tree.
        trees: By name; names that are not there are passed over.

    Returns:
        The tree with them.

    Raises:
        ExpressionError: A tree would mean something else inside a reduction, or leave it nothing to run over.
    """
    if isinstance(node, Name):
        return trees.get(node.name, node)
    if not isinstance(node, Reduction):
        return rebuilt(node, [replace_names(child, trees) for child in children(node)])
    # Inside a reduction, its counters are not the names they are outside.
    used = {name: trees[name] for name in names_of(node) if name in trees}
    for name, tree in used.items():
        taken = COUNTERS & set(names_of(tree))
        if taken:
            raise ExpressionError(f"{tree} cannot stand for {name!r} in {node}, where {min(taken)!r} counts the terms")
    result = Reduction(node.kind, replace_names(node.term, used))
    if set(names_of(result)) <= {VARIABLE}:
        raise ExpressionError(f"{result} has no vector left to run over")
    return result


def keeping_names(term: Node, names: Iterable[str]) -> Node:
    """Return the term of a reduction, with `0 * name` added for names it lacks: only a vector says how many terms."""
    for lost in [name for name in names if name not in {*names_of(term), VARIABLE}]:
        term = call("+", term, call("*", ZERO, Name(lost)))
    return term
