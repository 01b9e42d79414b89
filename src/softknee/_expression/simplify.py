"""A shorter tree for the same function, found by rules in bounded time.

What comes out agrees with what went in wherever that is defined, is never larger, and stays as it is if put in again.
Only derivatives at kinks may differ, and removable gaps such as that of `x / x` are closed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._expression.algebra import negated, normal, without
from softknee._expression.choices import extreme, nonnegative, taken_branch
from softknee._expression.evaluate import evaluate_constant
from softknee._expression.nodes import Call, Number, Reduction, children, names_of, rebuilt, size_of
from softknee._expression.primitives import COMPARISONS
from softknee._expression.walk import ONE, ZERO, call, is_call, is_constant, keeping_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Node

    # A rule takes the argument of a function and returns what the call is otherwise, if anything.
    Rule = Callable[[Node], Node | None]

# Each pass works from the leaves up; more than three are rarely of use.
MOST_PASSES = 12
# Results kept: a search asks for the same sub-expressions over and over.
KEPT = 10_000


def simplified(node: Node) -> Node:
    """Return a tree for the same function, no larger than this one.

    Args:
        node: The tree.

    Returns:
        The simplest that the rules find.
    """
    for _ in range(MOST_PASSES):
        better = _pass(node)
        if better == node:
            break
        node = better
    return node


@lru_cache(maxsize=KEPT)
def _pass(node: Node) -> Node:
    below = [_pass(child) for child in children(node)]
    if isinstance(node, Reduction):
        return _reduction(node, below[0])
    node = rebuilt(node, below)
    if not isinstance(node, Call) or node.primitive.name in COMPARISONS:
        return node
    shorter = _rewritten(node)
    return shorter if size_of(shorter) <= size_of(node) else node


def _reduction(node: Reduction, term: Node) -> Node:
    """Return a reduction of a simpler term that has the same names: one of them says how many terms there are."""
    if node.kind == "sum" and term == ZERO:
        return ZERO
    term = keeping_names(term, names_of(node))
    return Reduction(node.kind, term if size_of(term) <= size_of(node.term) else node.term)


def _rewritten(node: Call) -> Node:
    name = node.primitive.name
    if is_constant(node):
        value = evaluate_constant(node)
        return Number(value or 0.0) if math.isfinite(value) else node
    if name in {"max", "min", "relu"}:
        return extreme(node)
    if name == "where":
        return taken_branch(node)
    found = RULES[name](*node.arguments) if name in RULES else None
    return normal(node if found is None else found)


def _odd(name: str) -> Rule:
    return lambda u: call("neg", call(name, u.arguments[0])) if is_call(u, "neg") else None


def _odd_inverse(name: str, inverse: str) -> Rule:
    """Return the rule of an odd function that undoes another."""
    odd = _odd(name)
    return lambda u: u.arguments[0] if is_call(u, inverse) else odd(u)


def _cos(u: Node) -> Node | None:
    return call("cos", negated(u)) if _leads_negative(u) else None


def _abs(u: Node) -> Node | None:
    if nonnegative(u):
        return u
    return call("abs", negated(u)) if _leads_negative(u) else None


def _leads_negative(u: Node) -> bool:
    first = u
    while is_call(first, "*", "/", "neg", "-"):
        if is_call(first, "neg"):
            return True
        first = first.arguments[0]
    return isinstance(first, Number) and first.value < 0


def _log(u: Node) -> Node | None:
    if is_call(u, "exp"):
        return u.arguments[0]
    rest = without(u, 1.0)
    return None if rest is None else call("log1p", rest)


def _log1p(u: Node) -> Node | None:
    if is_call(u, "exp"):
        return call("softplus", u.arguments[0])
    return u.arguments[0] if is_call(u, "expm1") else None


def _sqrt(u: Node) -> Node | None:
    return call("abs", u.arguments[0]) if is_call(u, "square") else None


def _power(base: Node, exponent: Node) -> Node | None:
    if exponent == Number(0.5):
        return call("sqrt", base)
    return ONE if base == ONE or exponent == ZERO else None


RULES: Mapping[str, Callable[..., Node | None]] = MappingProxyType(
    {
        **{name: _odd(name) for name in ("sin", "tan", "atan", "tanh", "erf", "sign")},
        "sinh": _odd_inverse("sinh", "asinh"),
        "asinh": _odd_inverse("asinh", "sinh"),
        "cos": _cos,
        "abs": _abs,
        "log": _log,
        "log1p": _log1p,
        "sqrt": _sqrt,
        "**": _power,
    }
)
