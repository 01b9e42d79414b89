"""Sums and products in a normal form: like terms together, numbers together, everything in one order.

A product is a number times powers with whole exponents, a sum is a number plus multiples of products. Fractional powers
stay as they are, for merging them would define a function where it was not.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

from softknee._expression.nodes import VARIABLE, Call, Name, Number, size_of
from softknee._expression.walk import TWO, ZERO, call, is_call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softknee._expression.nodes import Node

    Factors = dict[Node, int]
    Terms = dict[Node, float]

# Largest exponent that is taken apart; far above it, powers overflow anyway.
LARGEST_EXPONENT = 1000
# Numbers whose inverse is whole and no larger than this are printed as divisions.
LARGEST_DIVISOR = 1e6
# Results kept: without them, the work would double with every function inside another.
KEPT = 10_000


class Unsafe(Exception):
    """Numbers would overflow or vanish if they were put together."""


def order(node: Node) -> tuple[int, int, str]:
    """Return the place of a node among others: parameters, `x`, then by size and text."""
    if isinstance(node, Name):
        return (1 if node.name == VARIABLE else 0, 1, node.name)
    return (3 if isinstance(node, Number) else 2, size_of(node), str(node))


@lru_cache(maxsize=KEPT)
def normal(node: Node) -> Node:
    """Return a sum or product in normal form.

    Args:
        node: Anything.

    Returns:
        The same function; the node itself where numbers would overflow.
    """
    try:
        return _built_sum(*_sum(node))
    except (Unsafe, OverflowError):
        return node


def negated(node: Node) -> Node:
    """Return the negative of a node in normal form."""
    return normal(call("neg", node))


def without(node: Node, number: float) -> Node | None:
    """Return `u` of a sum `u + number` in normal form, None if it is no such sum."""
    if number and is_call(node, "+") and node.arguments[1] == Number(number):
        return node.arguments[0]
    return None


def split(node: Node) -> tuple[float, Factors]:
    """Take a product apart.

    Args:
        node: Anything.

    Returns:
        A number and the other factors with their exponents, none of them 0.

    Raises:
        Unsafe: The number is out of range.
    """
    if isinstance(node, Number):
        return node.value, {}
    if is_call(node, "neg"):
        return _times(split(node.arguments[0]), (-1.0, {}), 1)
    if is_call(node, "*", "/"):
        left, right = map(split, node.arguments)
        return _times(left, right, 1 if node.primitive.name == "*" else -1)
    exponent = _whole_exponent(node)
    if exponent is None or not isinstance(node, Call):
        return 1.0, {node: 1}
    number, factors = split(node.arguments[0])
    if len(factors) > 1:  # a power of a product stays one, but for its number
        factors = {_built_product(1.0, factors): 1}
    return _times((1.0, {}), (number, factors), exponent)


def _whole_exponent(node: Node) -> int | None:
    if is_call(node, "square"):
        return 2
    if is_call(node, "**") and isinstance(node.arguments[1], Number):
        value = node.arguments[1].value
        return int(value) if value.is_integer() and abs(value) <= LARGEST_EXPONENT else None
    return None


def _times(left: tuple[float, Factors], right: tuple[float, Factors], exponent: int) -> tuple[float, Factors]:
    """Multiply a product by a power of another.

    Raises:
        Unsafe: The number is out of range.
    """
    if right[0] == 0 and exponent < 0:
        raise Unsafe
    number = left[0] * right[0] ** exponent
    if not math.isfinite(number) or (number == 0 and left[0] and right[0]):
        raise Unsafe
    factors = dict(left[1])
    for base, own in right[1].items():
        factors[base] = factors.get(base, 0) + own * exponent
    return number, {base: own for base, own in factors.items() if own}


def _built_product(number: float, factors: Factors) -> Node:
    """Return a product as a tree."""
    factors = _known_products(factors)
    if number == 0:
        return ZERO
    above = [_raised(base, factors[base]) for base in sorted(factors, key=order) if factors[base] > 0]
    below = [_raised(base, -factors[base]) for base in sorted(factors, key=order) if factors[base] < 0]
    size, divisor = abs(number), _divisor(number)
    divided = [Number(divisor)] if above and not below and divisor is not None else []
    if above and (divided or size == 1):
        above[0] = call("neg", above[0]) if number < 0 else above[0]
    else:
        above.insert(0, Number(number))
    below = [*divided, *below]
    return call("/", _product(above), _product(below)) if below else _product(above)


def _divisor(number: float) -> float | None:
    """Return the whole number that a number is the inverse of, but for its sign."""
    if not 1 / LARGEST_DIVISOR <= abs(number) < 1:
        return None
    divisor = float(round(1 / abs(number)))
    return divisor if 1 / divisor == abs(number) else None


def _raised(base: Node, exponent: int) -> Node:
    if exponent == 1:
        return base
    return call("square", base) if exponent == 2 else call("**", base, Number(float(exponent)))


def _product(parts: Iterable[Node]) -> Node:
    return reduce(lambda left, right: call("*", left, right), parts)


def _known_products(factors: Factors) -> Factors:
    """Return factors with quotients of exponentials as the functions that they are."""
    known: Factors = {}
    for base, exponent in factors.items():
        inner = without(base, 1.0)
        if exponent < 0 and is_call(inner, "exp"):  # 1 / (exp(u) + 1) = sigmoid(-u)
            gate = call("sigmoid", negated(inner.arguments[0]))
            known[gate] = known.get(gate, 0) - exponent
        elif is_call(base, "abs") and exponent % 2 == 0:
            known[base.arguments[0]] = known.get(base.arguments[0], 0) + exponent
        else:
            known[base] = known.get(base, 0) + exponent
    gated = any(is_call(base, "sigmoid") for base in known)
    for base in [base for base in known if gated and is_call(base, "expm1")]:
        gate = call("sigmoid", negated(base.arguments[0]))
        if known[base] == known.get(gate, 0) > 0:  # (exp(u) - 1) sigmoid(-u) = tanh(u / 2)
            half = call("tanh", normal(call("/", base.arguments[0], TWO)))
            known[half] = known.get(half, 0) + known.pop(base)
            del known[gate]
    return {base: exponent for base, exponent in known.items() if exponent}


def _sum(node: Node, factor: float = 1.0) -> tuple[float, Terms]:
    """Take a multiple of a sum apart: a number, and what each product in it is multiplied by."""
    if is_call(node, "+", "-"):
        sign = factor if node.primitive.name == "+" else -factor
        return _plus(_sum(node.arguments[0], factor), _sum(node.arguments[1], sign))
    number, factors = split(node)
    product = _built_product(1.0, factors)
    if isinstance(product, Number):
        return number * factor * product.value, {}
    if abs(number) == 1 and is_call(product, "+", "-"):
        return _sum(product, factor * number)
    return 0.0, {product: number * factor} if number else {}


def _plus(left: tuple[float, Terms], right: tuple[float, Terms]) -> tuple[float, Terms]:
    """Add two sums.

    Raises:
        Unsafe: A number is out of range.
    """
    terms = dict(left[1])
    for product, number in right[1].items():
        terms[product] = terms.get(product, 0.0) + number
    total = left[0] + right[0]
    if not all(map(math.isfinite, (total, *terms.values()))):
        raise Unsafe
    return total, {product: number for product, number in terms.items() if number}


def _built_sum(number: float, terms: Terms) -> Node:
    """Return a sum as a tree: positive terms, negative ones, the number last unless it is the only positive one."""
    number, terms = _known_sums(number, terms)
    ordered = sorted(terms, key=order)
    plus = [_multiple(product, terms[product]) for product in ordered if terms[product] > 0]
    minus = [_multiple(product, -terms[product]) for product in ordered if terms[product] < 0]
    if not terms:
        return Number(number or 0.0)
    if number:
        (plus if number > 0 else minus).append(Number(abs(number)))
    if plus:
        return reduce(lambda left, right: call("-", left, right), minus, _total(plus))
    return _multiple(ordered[0], terms[ordered[0]]) if len(minus) == 1 else call("neg", _total(minus))


def _total(parts: Iterable[Node]) -> Node:
    return reduce(lambda left, right: call("+", left, right), parts)


def _multiple(product: Node, number: float) -> Node:
    own, factors = split(product)
    return _built_product(own * number, factors)


def _known_sums(number: float, terms: Terms) -> tuple[float, Terms]:
    """Return a sum with a pair of a number and a function as the one function that they are."""
    for product, times in terms.items():
        if not isinstance(product, Call) or len(product.arguments) != 1:
            continue
        name, inner = product.primitive.name, product.arguments[0]
        found: tuple[Node, float] | None = None
        if name == "exp" and number == -times:
            found = call("expm1", inner), times
        elif name == "expm1" and number == times:
            found = call("exp", inner), times
        elif name == "sigmoid" and number == -times:
            found = call("sigmoid", negated(inner)), -times
        elif name == "sigmoid" and number == -times / 2:
            found = call("tanh", normal(call("/", inner, TWO))), times / 2
        if found is not None:
            others = {other: value for other, value in terms.items() if other != product}
            return _plus((0.0, others), (0.0, dict([found])))
    return number, terms
