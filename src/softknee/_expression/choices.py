"""Maxima, minima and branches in a normal form."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from softknee._expression.algebra import negated, order
from softknee._expression.evaluate import evaluate_constant
from softknee._expression.nodes import VARIABLE, Call, Name, Number, children, rebuilt, subtrees
from softknee._expression.ranges import range_of
from softknee._expression.walk import ZERO, call, is_call, is_constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._expression.nodes import Node

# Comparisons from the other side, and with the branches exchanged.
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
OPPOSITE = {"<": ">=", "<=": ">"}
# Functions that are not defined everywhere.
PARTIAL = ("/", "**", "log", "log1p", "sqrt", "tan")


def nonnegative(node: Node) -> bool:
    """Whether a node is certainly at least 0 wherever it is defined."""
    return range_of(node)[0] >= 0


def extreme(node: Call) -> Node:
    """Return a maximum, minimum or ReLU without what cannot matter, its arguments in order.

    Args:
        node: A call of `max`, `min` or `relu`.

    Returns:
        The same function.
    """
    is_max = node.primitive.name != "min"
    parts = [*dict.fromkeys(_flat(node, "max" if is_max else "min"))]
    parts = _reaching(parts, is_max=is_max)
    limit = next((part.value for part in parts if isinstance(part, Number)), None)
    others = sorted((part for part in parts if not isinstance(part, Number)), key=order)
    if limit is None and len(others) == 2 and others[0] == negated(others[1]):
        size = call("abs", min(others, key=order))
        return size if is_max else call("neg", size)
    if limit == 0 and is_max and others:
        return call("relu", _folded("max", others))
    return _folded("max" if is_max else "min", [*others, *([] if limit is None else [Number(limit)])])


def _flat(node: Node, kind: str) -> Iterator[Node]:
    """Yield the arguments of nested calls of one kind; a ReLU is a maximum with 0."""
    if is_call(node, kind):
        for argument in node.arguments:
            yield from _flat(argument, kind)
    elif kind == "max" and is_call(node, "relu"):
        yield from _flat(node.arguments[0], kind)
        yield ZERO
    else:
        yield node


def _reaching(parts: Sequence[Node], *, is_max: bool) -> list[Node]:
    """Return the arguments that can be the maximum (or minimum): of numbers the extreme one, if that."""
    ranges = {part: range_of(part) for part in parts}
    if not is_max:
        ranges = {part: (-high, -low) for part, (low, high) in ranges.items()}
    floor = max(low for low, _ in ranges.values())
    above = [part for part in parts if ranges[part][1] > floor]
    if any(ranges[part][0] >= floor for part in above):
        return above
    # None of them is certainly as large as the one that is always the floor; a number, if there is one.
    level = [part for part in parts if ranges[part] == (floor, floor)]
    return [*above, next((part for part in level if isinstance(part, Number)), level[0])]


def _folded(kind: str, parts: Sequence[Node]) -> Node:
    return reduce(lambda left, right: call(kind, left, right), parts)


def taken_branch(node: Call) -> Node:
    """Return a choice in normal form, or the one branch that is ever taken.

    Args:
        node: A call of `where`.

    Returns:
        The same function.
    """
    condition, chosen, other = node.arguments
    assert isinstance(condition, Call)  # noqa: S101 (so says the parser)
    if is_constant(condition):
        return chosen if evaluate_constant(condition) else other
    name, (left, right) = condition.primitive.name, condition.arguments
    if _side(left) > _side(right):
        name, left, right = MIRRORED[name], right, left
    # A comparison with what is not a number never holds, nor does its opposite.
    total = not any(is_call(below, *PARTIAL) for below in subtrees(condition))
    if total and name in OPPOSITE:
        name, chosen, other = OPPOSITE[name], other, chosen
    condition = call(name, left, right)
    chosen, other = _assuming(chosen, condition, holds=True), _assuming(other, condition, holds=False)
    if chosen == other or (total and _always(name, left, right)):
        return chosen
    if total and left == right:
        return other
    return (_as_extreme(left, right, chosen, other) if total else None) or call("where", condition, chosen, other)


def _side(node: Node) -> tuple[bool, bool, tuple[int, int, str]]:
    """Return where a node stands in a comparison: `x` on the left, numbers on the right."""
    return is_constant(node), node != Name(VARIABLE), order(node)


def _always(name: str, left: Node, right: Node) -> bool:
    if name == ">=":
        return left == right or (right == ZERO and nonnegative(left))
    return isinstance(right, Number) and right.value < 0 and nonnegative(left)


def _as_extreme(left: Node, right: Node, chosen: Node, other: Node) -> Node | None:
    """Return `where(left > right, chosen, other)` as a maximum, minimum or absolute value if it is one."""
    if (chosen, other) in {(left, right), (right, left)}:
        return extreme(call("max" if chosen == left else "min", left, right))
    if right == ZERO and left in {chosen, other} and other == negated(chosen):
        return call("abs", left) if chosen == left else call("neg", call("abs", left))
    return None


def _assuming(node: Node, condition: Node, *, holds: bool) -> Node:
    """Return a branch with choices by the same condition decided."""
    if is_call(node, "where") and node.arguments[0] == condition:
        return _assuming(node.arguments[1 if holds else 2], condition, holds=holds)
    return rebuilt(node, [_assuming(child, condition, holds=holds) for child in children(node)])
