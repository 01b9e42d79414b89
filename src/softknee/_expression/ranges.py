"""Between which numbers a formula stays, as far as simple rules tell."""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._expression.nodes import VARIABLE, Call, Name, Number, Reduction, names_of
from softknee._expression.walk import replace_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Node

    Range = tuple[float, float]

ANYTHING: Range = (-math.inf, math.inf)
LARGEST = sys.float_info.max
# Results kept: simplifying asks for the same sub-expressions over and over.
KEPT = 10_000


@lru_cache(maxsize=KEPT)
def range_of(node: Node, x: Range = ANYTHING) -> Range:
    """Return a lower and an upper limit of the values of a node, wherever it is defined.

    Args:
        node: Anything but a comparison.
        x: Limits of `x`.

    Returns:
        The limits, infinite where the rules know none.
    """
    if isinstance(node, Number):
        return node.value, node.value
    if isinstance(node, Name):
        return x if node.name == VARIABLE else ANYTHING
    low, high = _of_reduction(node, x) if isinstance(node, Reduction) else _of_call(node, x)
    # Limits beyond the largest number may have met one another with opposite signs.
    return (low, high) if low <= high else ANYTHING


def _of_reduction(node: Reduction, x: Range) -> Range:
    low, high = range_of(node.term, x)
    if node.kind == "largest":
        return low, high
    # Nothing is known about the number of terms.
    return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)


def _of_call(node: Call, x: Range) -> Range:
    name, arguments = node.primitive.name, node.arguments
    if node.primitive.definition is not None:
        return _of_catalogued(node, x)
    if name == "where":
        return _of_choice(node, x)
    ranges = [range_of(argument, x) for argument in arguments]
    if name == "**":
        return _power(ranges[0], arguments[1])
    if name in RISING:
        return _rising(RISING[name], *ranges[0])
    return RULES[name](*ranges) if name in RULES else ANYTHING


def _of_catalogued(node: Call, x: Range) -> Range:
    """Return the range of a catalogued function by its definition; its parameters must not depend on `x`."""
    first, *others = node.arguments
    if node.primitive.definition is None or any(VARIABLE in names_of(other) for other in others):
        return ANYTHING
    names = [param.name for param in node.primitive.parameters]
    body = replace_names(node.primitive.definition(), dict(zip(names, others, strict=True)))
    return range_of(body, range_of(first, x))


def _of_choice(node: Call, x: Range) -> Range:
    """Return the range of either branch, with what a comparison of `x` with a number says about it."""
    condition, *branches = node.arguments
    limits = [x, x]
    if isinstance(condition, Call) and condition.arguments[0] == Name(VARIABLE):
        edge = condition.arguments[1]
        if isinstance(edge, Number):
            above, below = (max(x[0], edge.value), x[1]), (x[0], min(x[1], edge.value))
            limits = [above, below] if condition.primitive.name in {">", ">="} else [below, above]
    # A branch that is never taken has limits the wrong way round.
    ranges = [range_of(one, limit) for one, limit in zip(branches, limits, strict=True) if limit[0] <= limit[1]]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _rising(function: Callable[[float], float], low: float, high: float) -> Range:
    """Return the range of an increasing function; where it overflows it may saturate instead."""

    def at(value: float, overflow: Range) -> float:
        try:
            return function(value)
        except OverflowError:
            return overflow[value > 0]

    return at(low, (-math.inf, LARGEST)), at(high, (-LARGEST, math.inf))


def _sum(a: Range, b: Range) -> Range:
    return a[0] + b[0], a[1] + b[1]


def _negative(a: Range) -> Range:
    return -a[1], -a[0]


def _product(a: Range, b: Range) -> Range:
    # 0 times a limit that is never reached is 0.
    corners = [0.0 if 0 in pair else pair[0] * pair[1] for pair in product(a, b)]
    return min(corners), max(corners)


def _quotient(a: Range, b: Range) -> Range:
    if b[0] < 0 < b[1]:
        return ANYTHING
    sign = -1.0 if b[0] < 0 else 1.0
    small, large = sorted((abs(b[0]), abs(b[1])))
    inverse = (1 / large if large else math.inf), (1 / small if small else math.inf)
    return _product(a, inverse if sign > 0 else _negative(inverse))


def _size(a: Range) -> Range:
    low, high = sorted((abs(a[0]), abs(a[1])))
    return (0.0 if a[0] <= 0 <= a[1] else low), high


def _power(base: Range, exponent: Node) -> Range:
    if isinstance(exponent, Number) and exponent.value > 0 and exponent.value.is_integer():
        power = exponent.value
        return _rising(lambda value: math.pow(value, power), *(base if power % 2 else _size(base)))
    even = isinstance(exponent, Number) and exponent.value % 2 == 0
    return (0.0, math.inf) if even or base[0] >= 0 else ANYTHING


def _from_zero(function: Callable[[float], float], least: float) -> Callable[[float], float]:
    """Return an increasing function of numbers from `least` on, continued by its limit there."""
    return lambda value: function(value) if value > least else -math.inf


def _sigmoid(value: float) -> float:
    grown = math.exp(-abs(value))
    return (1.0 if value >= 0 else grown) / (1 + grown)


RISING: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "exp": math.exp,
        "expm1": math.expm1,
        "log": _from_zero(math.log, 0.0),
        "log1p": _from_zero(math.log1p, -1.0),
        "sqrt": lambda value: math.sqrt(max(value, 0.0)),
        "sign": lambda value: float((value > 0) - (value < 0)),
        "atan": math.atan,
        "tanh": math.tanh,
        "sinh": math.sinh,
        "asinh": math.asinh,
        "erf": math.erf,
        "sigmoid": _sigmoid,
        "softplus": lambda value: max(value, 0.0) + math.log1p(math.exp(-abs(value))),
        "relu": lambda value: max(value, 0.0),
    }
)
RULES: Mapping[str, Callable[..., Range]] = MappingProxyType(
    {
        "+": _sum,
        "-": lambda a, b: _sum(a, _negative(b)),
        "*": _product,
        "/": _quotient,
        "neg": _negative,
        "abs": _size,
        "square": lambda a: _power(a, Number(2.0)),
        "sin": lambda _: (-1.0, 1.0),
        "cos": lambda _: (-1.0, 1.0),
        "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
        "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    }
)
