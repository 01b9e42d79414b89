"""Derivatives as trees.

At a kink the derivative is that of a neighbour: `abs` has the derivative `sign(x)`, ReLU that of the left, `max`, `min`
and `where` that of the branch they take.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._errors import ExpressionError
from softknee._expression.nodes import COUNTERS, VARIABLE, Name, Number, Reduction, names_of, subtrees
from softknee._expression.simplify import simplified
from softknee._expression.walk import ONE, TWO, ZERO, call, keeping_names, replace_names, vector_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Call, Node


def derivative(node: Node, name: str) -> Node:
    """Return the derivative of a tree by a name, simplified.

    Args:
        node: The tree.
        name: `x` or a parameter.

    Returns:
        A tree; derivatives of catalogued functions are made of primitives.

    Raises:
        ExpressionError: The name is only inside reductions, as those of vectors are, or it is inside `largest`.
    """
    vectors = vector_names(node)
    if name in vectors:
        raise ExpressionError(f"{name} in {node} is a vector; the derivative by one of its entries is no formula")
    return simplified(_by(node, name, vectors))


def _by(node: Node, name: str, vectors: frozenset[str]) -> Node:
    if isinstance(node, Name):
        return ONE if node.name == name else ZERO
    if isinstance(node, Number) or name not in names_of(node):
        return ZERO
    if isinstance(node, Reduction):
        return _reduction(node, name, vectors)
    if node.primitive.definition is not None:
        return _catalogued(node, name, vectors)
    rule = RULES.get(node.primitive.name)
    if rule is not None:
        return rule(*node.arguments, *(_by(argument, name, vectors) for argument in node.arguments))
    if node.primitive.name == "where":
        condition, chosen, other = node.arguments
        return call("where", condition, _by(chosen, name, vectors), _by(other, name, vectors))
    (argument,) = node.arguments
    return _product(OUTER[node.primitive.name](argument), _by(argument, name, vectors))


def _catalogued(node: Call, name: str, vectors: frozenset[str]) -> Node:
    """Differentiate a catalogued function by the chain rule; definitions inside definitions would grow without end."""
    names = (VARIABLE, *(param.name for param in node.primitive.parameters))
    arguments = dict(zip(names, node.arguments, strict=True))
    total: Node = ZERO
    for one, argument in arguments.items():
        change = _by(argument, name, vectors)
        if change != ZERO and node.primitive.definition is not None:
            slope = replace_names(_slope(node.primitive.definition, one), arguments)
            total = _plus(total, _product(slope, change))
    return total


@lru_cache(maxsize=1024)
def _slope(definition: Callable[[], Node], name: str) -> Node:
    return simplified(_by(definition(), name, frozenset()))


def _reduction(node: Reduction, name: str, vectors: frozenset[str]) -> Node:
    """Differentiate a sum term by term.

    Raises:
        ExpressionError: It is the largest of terms, whose place is no formula.
    """
    if node.kind != "sum":
        raise ExpressionError(f"the derivative of {node} is no formula, for it depends on which term is the largest")
    term = simplified(_by(node.term, name, vectors))
    if term == ZERO:
        return ZERO
    return Reduction(node.kind, keeping_names(term, [one for one in names_of(node) if one in vectors]))


def _product(left: Node, right: Node) -> Node:
    if ZERO in {left, right}:
        return ZERO
    return left if right == ONE else right if left == ONE else call("*", left, right)


def _plus(left: Node, right: Node) -> Node:
    return right if left == ZERO else left if right == ZERO else call("+", left, right)


def _minus(left: Node, right: Node) -> Node:
    return left if right == ZERO else call("-", left, right)


def _quotient(a: Node, b: Node, by_a: Node, by_b: Node) -> Node:
    change = call("/", _product(a, by_b), call("square", b)) if by_b != ZERO else ZERO
    return _minus(call("/", by_a, b) if by_a != ZERO else ZERO, change)


def _power(base: Node, exponent: Node, by_base: Node, by_exponent: Node) -> Node:
    less_one = Number(exponent.value - 1) if isinstance(exponent, Number) else call("-", exponent, ONE)
    slope = call("*", exponent, call("**", base, less_one))
    if any(isinstance(below, Name) and below.name in COUNTERS for below in subtrees(exponent)):
        # At an exponent of 0 and a base of 0 it would be 0 / 0.
        slope = call("where", call(">", call("abs", exponent), ZERO), slope, ZERO)
    growth = call("*", call("**", base, exponent), call("log", base))
    return _plus(_product(slope, by_base), _product(growth, by_exponent))


def _step(name: str) -> Callable[[Node, Node, Node, Node], Node]:
    return lambda a, b, by_a, by_b: call("where", call(name, a, b), by_a, by_b)


# From the arguments and their derivatives.
RULES: Mapping[str, Callable[..., Node]] = MappingProxyType(
    {
        "+": lambda a, b, by_a, by_b: _plus(by_a, by_b),  # noqa: ARG005
        "-": lambda a, b, by_a, by_b: _minus(by_a, by_b),  # noqa: ARG005
        "*": lambda a, b, by_a, by_b: _plus(_product(by_a, b), _product(a, by_b)),
        "/": _quotient,
        "**": _power,
        "neg": lambda a, by_a: call("neg", by_a),  # noqa: ARG005
        "max": _step(">="),
        "min": _step("<="),
    }
)
# The derivative of a function at its argument; sigmoids rather than quotients, which would overflow.
OUTER: Mapping[str, Callable[[Node], Node]] = MappingProxyType(
    {
        "exp": lambda u: call("exp", u),
        "expm1": lambda u: call("exp", u),
        "log": lambda u: call("/", ONE, u),
        "log1p": lambda u: call("/", ONE, call("+", u, ONE)),
        "sqrt": lambda u: call("/", Number(0.5), call("sqrt", u)),
        "square": lambda u: call("*", TWO, u),
        "abs": lambda u: call("sign", u),
        "sign": lambda u: ZERO,  # noqa: ARG005
        "sin": lambda u: call("cos", u),
        "cos": lambda u: call("neg", call("sin", u)),
        "tan": lambda u: call("+", call("square", call("tan", u)), ONE),
        "atan": lambda u: call("/", ONE, call("+", call("square", u), ONE)),
        "tanh": lambda u: call("-", ONE, call("square", call("tanh", u))),
        "sinh": lambda u: call("/", call("+", call("exp", u), call("exp", call("neg", u))), TWO),
        "asinh": lambda u: call("/", ONE, call("sqrt", call("+", call("square", u), ONE))),
        "erf": lambda u: call("*", Number(2 / math.sqrt(math.pi)), call("exp", call("neg", call("square", u)))),
        "sigmoid": lambda u: call("*", call("sigmoid", u), call("sigmoid", call("neg", u))),
        "softplus": lambda u: call("sigmoid", u),
        "relu": lambda u: call("where", call(">", u, ZERO), ONE, ZERO),
    }
)
