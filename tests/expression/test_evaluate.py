from __future__ import annotations

import pytest
import torch

from softknee._errors import ExpressionError
from softknee._expression.parse import parse


def slopes(text, points, *values, dtype=torch.float32):
    x = torch.tensor(points, dtype=dtype, requires_grad=True)
    arguments = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in values]
    y = parse(text)(x, *arguments)
    return y, *torch.autograd.grad(y.sum(), [x, *arguments])


@pytest.mark.parametrize(
    ("text", "points", "expected"),
    [
        ("where(x > 0, log(x), x)", [-1.0, 0.0, 2.0], [1.0, 1.0, 0.5]),
        ("where(x > 1, log(x - 1), 0)", [-1.0, 1.0, 3.0], [0.0, 0.0, 0.5]),
        ("where(x >= 0, x, 1 / x)", [0.0, -2.0], [1.0, -0.25]),
        ("where(x > 0, x, exp(x) - 1)", [1e4, 89.0, -1.0], [1.0, 1.0, 0.36787944]),
        ("where(x > 2, sqrt(x - 2), where(x > 0, sqrt(x), 0))", [-1.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.5, 0.5]),
        ("tanh(exp(x))", [1e4, 90.0, -1e4], [0.0, 0.0, 0.0]),
        ("x * tanh(exp(x))", [1e4, 90.0], [1.0, 1.0]),
        ("tanh(sinh(x))", [1e4, -1e4, 90.0, 0.0], [0.0, 0.0, 0.0, 1.0]),
        ("asinh(sinh(x))", [2.0, 0.0, -3.0], [1.0, 1.0, 1.0]),
        ("x * tanh(softplus(x))", [1e4, -1e4], [1.0, 0.0]),
        ("1 / (1 + exp(-x))", [1e4, -1e4], [0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_gradients_are_right_where_another_branch_or_an_overflow_would_spoil_them(text, points, expected, dtype):
    _, got = slopes(text, points, dtype=dtype)
    assert torch.allclose(got.double(), torch.tensor(expected, dtype=torch.float64), atol=2e-3)


def test_parameters_get_no_gradient_from_a_branch_not_taken():
    _, _, by_a = slopes("where(x > 0, a * x, log(a * x))", [2.0, 3.0], 0.5)
    assert by_a.item() == 5.0
    _, _, by_a = slopes("where(x > 0, x, sqrt(a) * x)", [2.0, 3.0], 0.0)
    assert by_a.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_result_has_the_shape_and_dtype_of_the_input(dtype):
    for shape in ((), (0,), (2, 3)):
        x = torch.zeros(shape, dtype=dtype)
        for text in ("2", "a", "x + a", "where(x > 0, 1, 2)", "x * 1e-3"):
            y = parse(text)(x, *[1.5] * ("a" in text))
            assert (y.shape, y.dtype) == (x.shape, dtype)


def test_the_exponential_is_exact_up_to_overflow_and_stays_there():
    for dtype in (torch.float64, torch.float32):
        largest = torch.finfo(dtype).max
        x = torch.tensor([-5.0, 0.0, 3.0, 11.0, 1e4, torch.inf], dtype=dtype)
        for text, reference in (("exp(x)", torch.exp), ("expm1(x)", torch.expm1)):
            got = parse(text)(x)
            assert torch.equal(got[:4], reference(x[:4]))
            assert (got[4:] > 0.75 * largest).all()
            assert got.isfinite().all()


def test_the_hyperbolic_sine_stays_finite_on_both_sides():
    for dtype in (torch.float64, torch.float32):
        x = torch.tensor([0.0, 1e-3, 3.0, 80.0, 1e4, torch.inf], dtype=dtype)
        got = parse("sinh(x)")(x)
        assert torch.equal(got[:4], torch.sinh(x[:4]))
        assert (got[4:] > 0.3 * torch.finfo(dtype).max).all()
        assert got.isfinite().all()
        assert torch.equal(parse("sinh(x)")(-x), -got)


def test_half_precision_is_computed_in_float32():
    x = torch.tensor([-256.0, 0.5, 300.0], dtype=torch.float16, requires_grad=True)
    y = parse("x * tanh(x * sigmoid(b * x)) + exp(x) * exp(-x)")(x, torch.ones(3, dtype=torch.float16))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == slope.dtype == torch.float16
    assert torch.allclose(y[1], torch.tensor(1.1510, dtype=torch.float16), atol=2e-3)
    assert not slope.isnan().any()


def test_a_sum_runs_over_vector_parameters():
    x = torch.tensor([[0.3, -1.0]])
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.25, -1.0])
    got = parse("1 + sum(a * sin(b * x))")(x, a, b)
    expected = 1 + sum(a[i] * torch.sin(b[i] * x) for i in range(3))
    assert torch.allclose(got, expected)
    assert torch.allclose(parse("1 + sum(a * sin(b * x))")(x, tuple(a.tolist()), tuple(b)), expected)


def test_a_sum_counts_its_terms():
    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    quotient = parse("sum(a * x**index) / (1 + sum(abs(b * x**(index + 1))))")
    assert quotient.parameters == ("a", "b")
    got = quotient(x, (1.0, -3.0, 2.0), torch.tensor([0.5, -1.0], dtype=torch.float64))
    assert torch.allclose(got, (1 - 3 * x + 2 * x**2) / (1 + 0.5 * x.abs() + x**2))
    mean = parse("sum(a * where(index < 1, x, scale) / terms)")
    assert torch.allclose(mean(x, (1.0, 2.0, 3.0), torch.tensor(0.25)), (x + 0.5 + 0.75) / 3)


def test_the_largest_of_terms():
    x = torch.tensor([[-2.0, 0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([1.0, -0.5, -4.0], dtype=torch.float64, requires_grad=True)
    got = parse("largest(c + index * x)")(x, c)
    expected = torch.stack([c[i] + i * x for i in range(3)]).amax(0)
    assert torch.equal(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got.sum(), (x, c)), torch.autograd.grad(expected.sum(), (x, c)), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_the_largest_can_be_differentiated_by_sympy():
    sympy = pytest.importorskip("sympy")
    symbol = sympy.Symbol("x", real=True)
    exact = parse("largest(c + index * x)").to_sympy({"x": symbol, "c": (1, sympy.Rational(-1, 2), -4)})
    assert [exact.subs(symbol, v) for v in (-2, 2, 4)] == [1, sympy.Rational(3, 2), 4]
    assert [exact.diff(symbol).subs(symbol, v) for v in (-2, 2, 4)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [((1.0, 2.0), "got single numbers only"), (((1.0, 2.0), (1.0,)), "a has 2 entries, b has 1 entries")],
)
def test_a_reduction_needs_vectors_of_one_length(values, message):
    with pytest.raises(ExpressionError, match=message):
        parse("sum(a * x + b)")(torch.zeros(2), *values)


def test_the_counters_of_a_sum_are_ordinary_names_outside():
    expression = parse("index * x + sum(a * index) + terms")
    assert expression.parameters == ("index", "a", "terms")
    assert expression(torch.tensor(2.0), 10.0, (1.0, 1.0, 1.0), 0.5).item() == 23.5


def test_sums_agree_with_sympy():
    sympy = pytest.importorskip("sympy")
    expression = parse("sum(a * max(x - index / terms, 0)**2) + sum(b)")
    a, b, x = (0.5, -1.25, 3.0), (0.125, 0.25), 0.75
    exact = expression.to_sympy({"x": sympy.Rational(x), "a": a, "b": b})
    assert float(exact) == expression(torch.tensor(x, dtype=torch.float64), a, b).item()


def test_gradients_work_twice():
    x = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(parse("where(x > 0, x**3, exp(x) * x)"), (x,))
