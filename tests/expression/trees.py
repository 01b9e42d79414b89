"""Random formulas."""

from __future__ import annotations

import hypothesis.strategies as st

from softknee._expression.nodes import Call, Name, Number, Reduction
from softknee._expression.primitives import COMPARISONS, FOLDS, PRIMITIVES

PLAIN = sorted(PRIMITIVES.keys() - COMPARISONS - {"where"})
# Their values stay moderate and their derivatives finite.
TAME = ["sin", "cos", "atan", "tanh", "sigmoid", "softplus", "erf", "relu", "abs", "max", "min", "+", "-", "*"]
VALUES = {"alpha": 0.75, "beta": -1.5}


def call(name, *arguments):
    return Call(PRIMITIVES[name], arguments)


def is_text(node):
    """Whether a tree is one that text can say: a sign right before a number belongs to the number."""
    return not (node.primitive.name == "neg" and isinstance(node.arguments[0], Number) and node.arguments[0].value >= 0)


def calls(below, names=tuple(PLAIN), thresholds=None):
    """Trees of one call more."""
    plain = st.sampled_from(names).flatmap(
        lambda name: st.tuples(*[below] * PRIMITIVES[name].arity).map(lambda parts: call(name, *parts))
    )
    compared = st.tuples(below, below) if thresholds is None else st.tuples(st.just(Name("x")), thresholds)
    branch = st.tuples(st.sampled_from(sorted(COMPARISONS)), compared, below, below).map(
        lambda parts: call("where", call(parts[0], *parts[1]), parts[2], parts[3])
    )
    return st.one_of(plain.filter(is_text), plain.filter(is_text), branch)


def reductions(trees):
    return st.tuples(st.sampled_from(sorted(FOLDS)), trees).map(
        lambda parts: Reduction(parts[0], call("+", Name("gamma"), parts[1]))
    )


def trees(numbers, names=tuple(PLAIN), thresholds=None, leaves=12):
    """Trees of the given numbers and functions in `x`, `alpha` and `beta`."""
    leaf = numbers.map(Number) | st.sampled_from(["x", "x", "alpha", "beta"]).map(Name)
    return st.recursive(leaf, lambda below: calls(below, names, thresholds), max_leaves=leaves)


def any_trees():
    """Trees of everything there is, reductions in some places; none holds another."""
    simple = trees(st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: value or 0.0))
    return st.recursive(simple | reductions(simple), calls, max_leaves=4)


def tame_trees(leaves=6):
    """Trees that are defined everywhere, with kinks in few places, none of them at a number like -3."""
    numbers = st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, -2.5, 3.0]) | st.floats(-3, 3, allow_subnormal=False)
    thresholds = st.sampled_from([0.125, 0.5, -0.75]).map(Number)
    return trees(numbers.map(lambda value: value or 0.0), TAME, thresholds, leaves)
