from __future__ import annotations

import pytest
from hypothesis import given, settings
from trees import any_trees

from softknee._expression.parse import parse
from softknee._expression.tree import Expression
from softknee.nn.formula import FUNCTIONS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x * sigmoid(beta * x)", r"x \, \sigma(\beta x)"),
        ("x * (1 + erf(x / sqrt(2))) / 2",
         r"\frac{x \left(1 + \operatorname{erf}\left(\frac{x}{\sqrt{2}}\right)\right)}{2}"),
        ("x / 2 * (1 + tanh(x))", r"\frac{x}{2} (1 + \tanh(x))"),
        ("max(x, 0) + a * min(x, 0)", r"\max(x, 0) + a \min(x, 0)"),
        ("where(x > 0, x, alpha * (exp(x) - 1))",
         r"\begin{cases} x & \text{if } x > 0 \\ \alpha (e^{x} - 1) & \text{otherwise} \end{cases}"),
        ("where(x < 0, 0, where(x <= 1, x, 1))",
         r"\begin{cases} 0 & \text{if } x < 0 \\ x & \text{if } x \le 1 \\ 1 & \text{otherwise} \end{cases}"),
        ("sum(a * sin(b * x + c))", r"\sum_{i} a_{i} \sin(b_{i} x + c_{i})"),
        ("sum(a + x)", r"\sum_{i} (a_{i} + x)"),
        ("sum(a * x**index) / (1 + sum(abs(b * x**(index + 1))))",
         r"\frac{\sum_{i=0}^{n-1} a_{i} x^{i}}{1 + \sum_{i=0}^{n-1} \left|b_{i} x^{i + 1}\right|}"),
        ("sum(a * x) * 2", r"\left(\sum_{i} a_{i} x\right) \cdot 2"),
        ("s * sum(a * s * x)", r"s \left(\sum_{i} a_{i} s x\right)"),
        ("largest(c + index * x)", r"\max_{0 \le i < n} (c_{i} + i x)"),
        ("exp(-x**2 / 2)", r"e^{-\frac{x^{2}}{2}}"),
        ("-2 * x / 3", r"-\frac{2 x}{3}"),
        ("tanh(x)**2 + square(x) + square(sigmoid(x))", r"\tanh^{2}(x) + x^{2} + \sigma(x)^{2}"),
        ("(x + 1)**a - (-x)**3 - -2", r"(x + 1)^{a} - (-x)^{3} - (-2)"),
        ("x - (a - 1) - -a", r"x - (a - 1) - (-a)"),
        ("2 * 3 * x * 4 * x**2", r"2 \cdot 3 x \cdot 4 x^{2}"),
        ("x + -3 + 1e-5 * x + 2.5e30", r"x - 3 + 10^{-5} x + 2.5 \cdot 10^{30}"),
        ("sqrt(2 / pi) * p1 + left_slope * theta_2", r"\sqrt{\frac{2}{\pi}} p_{1} + \text{left slope} \, \theta_{2}"),
        ("1.4142135623730951 * x", r"\sqrt{2} x"),
        ("softplus(x) - log1p(x) - relu(x) - expm1(x)", r"\ln(1 + e^{x}) - \ln(1 + x) - \max(0, x) - (e^{x} - 1)"),
        ("sign(x) * atan(x) * tan(x)", r"\operatorname{sgn}(x) \arctan(x) \tan(x)"),
        ("square(sinh(x)) - asinh(x)", r"\sinh^{2}(x) - \operatorname{arsinh}(x)"),
        ("gelu(x) + leaky_relu(x, 0.2)", r"\operatorname{gelu}(x) + \operatorname{leaky relu}(x, 0.2)"),
    ],
)  # fmt: skip
def test_what_it_looks_like(text, expected):
    assert parse(text, FUNCTIONS).to_latex() == expected


@settings(max_examples=100, deadline=None)
@given(any_trees())
def test_brackets_and_braces_come_in_pairs(tree):
    tex = Expression.of(tree).to_latex()
    assert tex.count("{") == tex.count("}")
    assert tex.count("(") == tex.count(")")
    assert tex.count(r"\left") == tex.count(r"\right")
    assert tex.count(r"\begin{cases}") == tex.count(r"\end{cases}")
