from __future__ import annotations

import ast

import pytest
import torch
from hypothesis import given, settings
from trees import VALUES, any_trees, call, tame_trees

from softknee._errors import UsageError
from softknee._expression.nodes import Name, Number
from softknee._expression.parse import parse
from softknee._expression.tree import Expression
from softknee.nn.formula import FUNCTIONS

X = torch.tensor([[-200.0, -2.7, -0.5], [0.0, 0.4, 150.0]], dtype=torch.float64)


def executed(source, name="f"):
    """What the source defines, where there is nothing but Python and torch."""
    assert "softknee" not in source.partition("\n")[2]
    namespace = {"__name__": "printed"}
    exec(compile(source, "printed", "exec"), namespace)
    return namespace[name]


def with_gradients(function, x, values):
    x = x.clone().requires_grad_()
    values = [torch.tensor(value, dtype=x.dtype, requires_grad=True) for value in values]
    y = function(x, *values)
    assert y.shape == x.shape
    if not y.requires_grad:
        return [y]
    return [y.detach(), *torch.autograd.grad(y.sum(), [x, *values], materialize_grads=True, allow_unused=True)]


def assert_same(expression, values, x=X):
    function = executed(expression.to_python())
    for got, expected in zip(with_gradients(function, x, values), with_gradients(expression, x, values), strict=True):
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(tame_trees())
def test_random_trees_evaluate_to_the_same(tree):
    expression = Expression.of(tree)
    assert_same(expression, [VALUES[name] for name in expression.parameters], X / 50)


@settings(max_examples=100, deadline=None)
@given(any_trees())
def test_any_tree_prints_as_python(tree):
    ast.parse(Expression.of(tree).to_python())


VECTORS = (1.0, -0.5, 2.0), (0.25, 1.5, -1.0)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3", []),
        ("a", [2.0]),
        ("exp(a) * sqrt(b)", [0.5, 2.0]),
        ("exp(x) + expm1(x) + softplus(x)", []),
        ("tanh(exp(x)) * x", []),
        ("where(x > 0, log(x), a * x)", [0.5]),
        ("where(x > 0, x, a)", [0.5]),
        ("where(x > 0, 0.1, 0.2) * x", []),
        ("where(1 < 2, x, exp(x))", []),
        ("exp(where(1 < 2, 1, x) + 2) * where(x < 1, where(2 < 1, x, 3), 4) * x", []),
        ("where(x > 1, sqrt(x - 1), where(x < -1, log(-x), x**3))", []),
        ("max(x, 0) - min(1, a) + 2**x / 3 - abs(-2) * -x", [0.25]),
        ("sum(a * sin(b * x))", VECTORS),
        ("sum(abs(a))", VECTORS[:1]),
        ("sum(a * x**index / terms) / (1 + sum(abs(b * x**(index + 1))))", VECTORS),
        ("sum(a * where(index < 1, x, exp(-x**2)))", VECTORS[:1]),
        ("largest(a + b * x)", VECTORS),
        ("largest(a + sqrt(index) * x)", VECTORS[:1]),
        ("torch * x + math * zip + _b + _exp", [1.0, 2.0, 3.0, 4.0, 5.0]),
        ("index * x + sum(a * index)", [2.0, (1.0, 2.0)]),
        ("swish(x, b) + gelu(x) + elu(1, b)", [1.5]),
        ("telu(x) + sgt(x)", []),
        ("softplus(x, 2) + hardtanh(x, -a, a)", [0.5]),
        ("sinh(x) + asinh(a * x)", [0.5]),
        ("gelu(1) + a", [0.5]),
    ],
)
def test_formulas_evaluate_to_the_same(text, values):
    assert_same(parse(text, FUNCTIONS), values)


def test_constants_without_a_finite_value_print_too():
    for tree in (call("log", Number(0.0)), call("+", Name("x"), call("sqrt", Number(-1.0)))):
        assert_same(Expression.of(tree), [])


def test_half_precision_and_numbers_as_parameters():
    expression = parse("x * sigmoid(b * x) + exp(x)")
    function = executed(expression.to_python("gate"), "gate")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.tensor([-3.0, 0.5, 8.0], dtype=dtype)
        # The printed function computes in the dtype it is given.
        assert torch.allclose(function(x, 1.5), expression(x, 1.5), rtol=4 * torch.finfo(dtype).eps)


def test_source_for_reading():
    assert parse("x * sigmoid(beta * x)").to_python("swish") == (
        "from __future__ import annotations\n\nimport torch\nfrom torch import Tensor\n\n\n"
        "def swish(x: Tensor, beta: Tensor | float) -> Tensor:\n"
        '    """Return x * sigmoid(beta * x)."""\n'
        "    beta = torch.as_tensor(beta, dtype=x.dtype, device=x.device)\n"
        "    return x * torch.sigmoid(beta * x)\n"
    )


def test_it_compiles_and_works_under_vmap():
    expression = parse("where(x > 0, log1p(x), a * expm1(x))")
    function = executed(expression.to_python())
    x = torch.linspace(-2, 2, 7)
    assert torch.allclose(torch.compile(function, fullgraph=True, backend="aot_eager")(x, 0.5), expression(x, 0.5))
    assert torch.allclose(torch.func.vmap(function, (0, None))(x, torch.tensor(0.5)), expression(x, 0.5))


@pytest.mark.parametrize("name", ["", "1f", "lambda", "a", "x", "f g", "naïve", "torch", "choose", "_exp"])
def test_names_are_checked(name):
    for printed in (Expression.to_python, Expression.to_javascript, Expression.to_module_source):
        if printed is not Expression.to_module_source or name != "a":  # a class has its parameters inside
            with pytest.raises(UsageError, match="name must be a Python name that the source does not use"):
                printed(parse("a * x"), name)


@pytest.mark.parametrize("name", ["var", "Math", "erf"])
def test_javascript_has_words_of_its_own(name):
    with pytest.raises(UsageError, match="name must be a Python name that the source does not use"):
        parse("a * x").to_javascript(name)
