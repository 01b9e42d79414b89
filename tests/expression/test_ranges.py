from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from trees import VALUES, tame_trees

from softknee._expression.parse import parse
from softknee._expression.ranges import range_of
from softknee._expression.simplify import simplified
from softknee._expression.tree import Expression
from softknee.nn.formula import FUNCTIONS

X = torch.linspace(-40, 40, 401, dtype=torch.float64)


@settings(max_examples=300, deadline=None)
@given(tame_trees(leaves=12))
def test_values_stay_inside(tree):
    expression = Expression.of(tree)
    y = expression(X, *[VALUES[name] for name in expression.parameters])
    low, high = range_of(tree)
    slack = 1e-12 * (1 + y.abs())
    assert bool(((y >= low - slack) & (y <= high + slack)).all())


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("x", -math.inf, math.inf),
        ("3 - 2 * sigmoid(x)", 1, 3),
        ("sinh(min(max(x, -2), 1))", math.sinh(-2), math.sinh(1)),
        ("-abs(x) * square(x)", -math.inf, 0),
        ("1 / (1 + exp(x))", 0, 1),
        ("1 / x", -math.inf, math.inf),
        ("1 / -softplus(x)", -math.inf, 0),
        ("square(sin(x) - 3)", 4, 16),
        ("min(max(x, -2), 1)**2", 0, 4),
        ("(cos(x) - 2)**3", -27, -1),
        ("abs(x)**a", 0, math.inf),
        ("exp(x)**-1", 0, math.inf),
        ("where(x > 0, atan(x), tanh(x))", -1, math.pi / 2),
        ("sqrt(max(x, 0.25))", 0.5, math.inf),
        ("log(x)", -math.inf, math.inf),
        ("sum(abs(b) * erf(x))", -math.inf, math.inf),
        ("sum(abs(b) + square(x))", 0, math.inf),
        ("largest(sigmoid(b * x))", 0, 1),
        ("elu(x, 2)", -2, math.inf),
        ("elu(min(x, -1))", -1, math.expm1(-1)),
        ("swish(x, x)", -math.inf, math.inf),
        ("where(x <= 1, min(x, 3), 1 / x)", -math.inf, 1),
        ("exp(1000 + relu(x)) - exp(1000 + relu(-x))", -math.inf, math.inf),
    ],
)
def test_limits(text, low, high):
    assert range_of(parse(text, FUNCTIONS).root) == pytest.approx((low, high), rel=1e-15)


def test_small_limits_have_all_their_digits():
    tree = parse("sigmoid(min(x, -50))", FUNCTIONS).root
    assert range_of(tree)[1] == pytest.approx(math.exp(-50), rel=1e-15, abs=0)
    assert str(simplified(parse("max(sigmoid(min(x, -50)), 0)", FUNCTIONS).root)) == "sigmoid(min(x, -50))"
