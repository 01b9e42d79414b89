from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from trees import VALUES, tame_trees

from softknee._errors import ExpressionError
from softknee._expression.parse import parse
from softknee._expression.primitives import COMPARISONS, PRIMITIVES
from softknee._expression.tree import Expression
from softknee.functional import SPECS
from softknee.nn.formula import FUNCTIONS

# Off the kinks of `tame_trees`, whose numbers are round.
X = torch.tensor([-2.71, -1.13, -0.37, 0.21, 0.83, 1.57, 2.39], dtype=torch.float64)


def slope(expression, name, values):
    """The derivative by autograd."""
    point = {one: torch.full_like(X, value, requires_grad=True) for one, value in values.items()}
    point["x"] = X.clone().requires_grad_()
    y = expression(point["x"], *[point[one] for one in expression.parameters])
    if not y.requires_grad:
        return torch.zeros_like(X)
    return torch.autograd.grad(y.sum(), point[name], materialize_grads=True, allow_unused=True)[0]


def at(expression, values):
    return expression(X, *[values[one] for one in expression.parameters])


@settings(max_examples=150, deadline=None)
@given(tame_trees(leaves=8))
def test_it_agrees_with_autograd(tree):
    expression = Expression.of(tree)
    for name in ("x", "beta"):
        expected = slope(expression, name, VALUES)
        # At a tie of two arguments of a maximum autograd takes the mean of their derivatives.
        moved = slope(expression, name, {one: value + 1e-9 for one, value in VALUES.items()})
        assume(torch.allclose(expected, moved, rtol=1e-6, atol=1e-6))
        got = at(expression.derivative(name), VALUES)
        assert torch.allclose(got, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", sorted(PRIMITIVES.keys() - COMPARISONS - {"where"}))
def test_of_every_primitive(name):
    arguments = {1: "alpha * x / 4 + 1.5", 2: "x / 4 + 1.5, alpha * x"}[PRIMITIVES[name].arity]
    first, _, second = arguments.partition(", ")
    text = f"{name}({arguments})" if name.isidentifier() else f"({first}) {name} ({second})"
    expression = parse("-(x * alpha)" if name == "neg" else text)
    values = {"alpha": 0.7}
    for by in ("x", "alpha"):
        assert torch.allclose(at(expression.derivative(by), values), slope(expression, by, values), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x**3", "3 * square(x)"),
        ("a * x + 1", "a"),
        ("exp(-x**2 / 2)", "-x * exp(-square(x) / 2)"),
        ("tanh(2 * x)", "2 * (1 - square(tanh(2 * x)))"),
        ("softplus(x)", "sigmoid(x)"),
        ("abs(x)", "sign(x)"),
        ("relu(x)", "where(x > 0, 1, 0)"),
        ("max(x, a)", "where(x >= a, 1, 0)"),
        ("min(x, 2 * x)", "where(x > 2 * x, 2, 1)"),
        ("where(x > a, x**2, x)", "where(x > a, 2 * x, 1)"),
        ("sign(x) + 3", "0"),
        ("1 / x", "-1 / square(x)"),
        ("sum(a * sin(b * x))", "sum(a * b * cos(b * x))"),
        ("sum(a + x)", "sum(1 + 0 * a)"),
        ("sum(a) * x", "sum(a)"),
    ],
)
def test_what_it_looks_like(text, expected):
    assert str(parse(text).derivative()) == expected


def test_a_sum_of_powers_has_a_derivative_at_zero():
    slope = parse("sum(a * x**index)").derivative()
    assert slope(torch.tensor([0.0, 2.0]), (5.0, 3.0, 1.0)).tolist() == [3.0, 7.0]
    total = parse("sum(c * a * x**index) - c").derivative("c")
    assert total(torch.tensor([2.0]), (5.0, 3.0, 1.0)).tolist() == [14.0]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("sum(a * x)", "a", r"a in sum\(a \* x\) is a vector"),
        ("largest(a * x)", "x", r"the derivative of largest\(a \* x\) is no formula"),
    ],
)
def test_what_is_no_formula_is_refused(text, name, message):
    with pytest.raises(ExpressionError, match=message):
        parse(text).derivative(name)


def test_catalogued_functions_are_differentiated_through_their_definitions():
    expression = parse("swish(x, b) + 2 * gelu(x)", FUNCTIONS)
    values = {"b": 1.5}
    for by in ("x", "b"):
        assert torch.allclose(at(expression.derivative(by), values), slope(expression, by, values), atol=1e-12)


def test_functions_in_functions_grow_slowly():
    nested = parse("gelu(" * 20 + "x" + ")" * 20, FUNCTIONS)
    assert len(str(nested.derivative())) < 20_000
    assert torch.allclose(at(nested.derivative(), {}), slope(nested, "x", {}), atol=1e-12)
    assert len(nested.to_javascript()) < 1000


CLOSED = [spec for spec in SPECS if spec.kind == "elementwise" and not any(param.vector for param in spec.parameters)]


@pytest.mark.parametrize("spec", CLOSED, ids=lambda spec: spec.name)
def test_it_agrees_with_sympy_on_the_catalogue(spec):
    sympy = pytest.importorskip("sympy")
    expression = parse(spec.formula)
    x = sympy.Symbol("x", real=True)
    defaults = {param.name: param.default for param in spec.parameters} | {"channel": 1}
    values = {name: defaults[name] or 0.25 for name in expression.parameters}
    exact = expression.to_sympy({"x": x, **{name: sympy.Rational(value) for name, value in values.items()}}).diff(x)
    got = at(expression.derivative(), values)
    for point, mine in zip(X.tolist()[::3], got.tolist()[::3], strict=True):
        theirs = complex(sympy.N(exact.subs(x, sympy.Rational(point)), 30))
        assert mine == pytest.approx(theirs.real, rel=1e-9, abs=1e-9)
