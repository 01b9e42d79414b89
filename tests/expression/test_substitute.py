from __future__ import annotations

import pytest
import torch

from softknee._errors import ExpressionError
from softknee._expression.parse import parse
from softknee._expression.substitute import substitute
from softknee._expression.tree import Number


def test_names_become_trees_all_at_once():
    swapped = substitute(parse("a * tanh(x) + b"), {"a": parse("b + 1"), "b": parse("a * x"), "x": parse("2 * x")})
    assert str(swapped) == "(b + 1) * tanh(2 * x) + a * x"
    assert swapped.parameters == ("b", "a")
    assert str(substitute(parse("x**p"), {"p": Number(-2.0), "q": Number(1.0)})) == "x**(-2)"


def test_the_result_is_the_composition():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    outer, inner = parse("where(x > 0, x, a * exp(x))"), parse("sin(3 * x) - 0.25")
    assert torch.equal(substitute(outer, {"x": inner})(x, 0.5), outer(inner(x), 0.5))


def test_inside_a_reduction():
    x, a = torch.tensor([0.5, -1.0]), (1.0, 2.0, 3.0)
    total = substitute(parse("sum(a * x**index)"), {"x": parse("x + b"), "index": parse("c")})
    assert str(total) == "sum(a * (x + b)**index)"
    assert torch.allclose(total(x, a, 0.5), parse("sum(a * x**index)")(x + 0.5, a))


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ({"x": parse("x * index")}, r"x \* index cannot stand for 'x' in sum\(a \* x\), where 'index' counts"),
        ({"a": parse("2")}, "has no vector left to run over"),
    ],
)
def test_what_would_change_its_meaning_is_refused(replacements, message):
    with pytest.raises(ExpressionError, match=message):
        substitute(parse("sum(a * x)"), replacements)
