from __future__ import annotations

import contextlib
import pickle
import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from trees import VALUES, any_trees, tame_trees

from softknee._errors import ExpressionError
from softknee._expression.nodes import Number
from softknee._expression.parse import parse


@settings(max_examples=100, deadline=None)
@given(any_trees())
def test_a_tree_prints_as_text_that_parses_to_it(tree):
    try:
        parsed = parse(str(tree))
    except ExpressionError as error:
        assume("no finite value" not in str(error))
        raise
    assert parsed.root == tree
    assert str(parsed) == str(tree)
    assert hash(parsed) == hash(parse(str(tree)))


@settings(max_examples=60, deadline=None)
@given(tame_trees(), st.floats(-3, 3, allow_subnormal=False))
def test_evaluation_agrees_with_sympy(tree, x):
    sympy = pytest.importorskip("sympy")
    expression = parse(str(tree))
    got = expression(torch.tensor(x, dtype=torch.float64), *[VALUES[name] for name in expression.parameters])
    exact = expression.to_sympy({name: sympy.Rational(value) for name, value in {**VALUES, "x": x}.items()})
    assert got.item() == pytest.approx(float(sympy.N(exact, 30)), rel=1e-9, abs=1e-9)


PIECES = ["x", "a", "1", "2.5", "9", "exp", "max", "sum", "where", "lambda", "**", *"()()+-*/,<>=.'\"[]{}:@ \n\0#\\х"]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_whatever_the_text_is_it_is_read_or_refused(text):
    with contextlib.suppress(ExpressionError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the expression is empty"),
        ("   ", "the expression is empty"),
        ("tanh(x", "this is no formula"),
        ("x +", "this is no formula"),
        ("x; x", "this is no formula"),
        ("y = x", "this is no formula"),
        ("x.__class__", "only numbers, names"),
        ("().__class__.__bases__", "only numbers, names"),
        ("__import__('os').system('id')", "only numbers, names"),
        ("__import__(x)", "no function named '__import__'"),
        ("[x for x in x]", "only numbers, names"),
        ("(lambda: x)()", "only numbers, names"),
        ("x if x else x", r"choices are written where\(condition, then, else\)"),
        ("f'{x}'", "only numbers, names"),
        ("(x := 3)", "only numbers, names"),
        ("x[0]", "only numbers, names"),
        ("x @ x", "only numbers, names"),
        ("x % 2", "only numbers, names"),
        ("not x", "only numbers, names"),
        ("x > 0 and x < 1", r"choices are written where\(condition, then, else\)"),
        ("True", "only numbers, names"),
        ("'x'", "only numbers, names"),
        ("1j", "only numbers, names"),
        ("exp(x=x)", "exp takes no arguments by name"),
        ("exp(**x)", "exp takes no arguments by name"),
        ("exp(*x)", "only numbers, names"),
        ("1 < x < 2", "one comparison at a time"),
        ("where(x == 0, 1, x)", "comparisons are < <= > >="),
        ("x^2", r"powers are written \*\*, not \^"),
        ("1e999", "this number is too large"),
        ("9" * 400, "this number is too large"),
        ("9**9**9**9", "this constant has no finite value"),
        ("x + 1 / 0", r"this constant has no finite value\n  x \+ 1 / 0\n      \^$"),
        ("log(0 - 1)", "this constant has no finite value"),
        ("1 + tanhh(x)", r"no function named 'tanhh'; did you mean 'tanh'.*\?\n  1 \+ tanhh\(x\)\n      \^$"),
        ("exp", "exp is a function; write exp"),
        ("max(x)", "max takes 2 arguments, got 1"),
        ("exp(x, x)", "exp takes 1 argument, got 2"),
        ("where(x, 1, 2)", r"comparisons stand in the first place of where\(...\) only"),
        ("x + (x < 1)", r"comparisons stand in the first place of where\(...\) only"),
        ("x < 1", r"a comparison is no value; use where\(condition, then, else\)"),
        ("sum(x)", "runs over vector parameters, and there is none inside"),
        ("sum(index * x / terms)", "runs over vector parameters, and there is none inside"),
        ("largest(x)", "runs over vector parameters, and there is none inside"),
        ("sum(a * largest(b * x))", "cannot hold sum or largest: both would run"),
        ("x" * 100_000, "the expression has 100000 characters; at most 2000 are allowed"),
        ("(" * 400 + "x" + ")" * 400, "nested more than 60 deep"),
        ("(" * 10_000 + "x" + ")" * 10_000, "at most 2000 are allowed"),
        ("x + (1", r"the bracket is never closed\n  x \+ \(1\n      \^$"),
        ("x) + 1", r"the bracket closes nothing\n  x\) \+ 1\n   \^$"),
        ("-" * 1900 + "x", "deep|cannot be read"),
        ("x" + "**x" * 600, "deep|cannot be read"),
        ("[" * 900 + "x", "no formula|cannot be read"),
        ("lambda:" * 250 + "x", "only numbers|cannot be read"),
        ("9" * 1999, "too large|cannot be read|no formula"),
        ("1+" * 499 + "x", "nested more than 60 deep"),
        ("exp(" * 70 + "x" + ")" * 70, "nested more than 60 deep"),
        ("x\0", "character number 0 has no meaning in a formula"),
        ("x # of all", "NUMBER SIGN has no meaning in a formula"),
        ("2 * х", "CYRILLIC SMALL LETTER HA is not understood; formulas are plain ASCII"),
        ("x × 2", r"× \(MULTIPLICATION SIGN\) is not understood; write \*"),
        ("x²", r"write \*\*2"),
        ("ｘ", "FULLWIDTH LATIN SMALL LETTER X is not understood"),
        ("x\u00a0+ 1", "NO-BREAK SPACE is not understood"),
        ("sum", r"sum is a function; write sum\(...\)"),
        ("sum(a, x)", r"sum\(...\) takes one term"),
        ("sum(a * x < 1)", "a comparison is no value"),
        ("exp(*[x])", "only numbers, names"),
        ("x.real", r"only numbers.*\n  x.real\n  \^$"),
        ("None", "only numbers, names"),
    ],
)
def test_anything_else_is_refused_at_once(text, message):
    start = time.perf_counter()
    with pytest.raises(ExpressionError, match=message):
        parse(text)
    assert time.perf_counter() - start < 1


def test_names_are_parameters_in_order_of_appearance():
    assert parse("beta * x + alpha * beta + pi + e").parameters == ("beta", "alpha")


def test_text_is_made_canonical():
    assert str(parse(" x*sigmoid( 1.5*x )")) == "x * sigmoid(1.5 * x)"
    assert parse("x - (x - 1) - 2").root != parse("x - x - (1 - 2)").root


def test_a_sign_belongs_to_its_number():
    assert parse("-2 * x").root.arguments[0] == Number(-2.0)
    assert str(parse("(-2)**x - -0.5")) == "(-2)**x - -0.5"
    assert str(parse("-2**x")) == "-2**x"
    assert parse("-0.0").root == parse("0").root


def test_huge_powers_and_numbers_that_are_finite_are_allowed():
    assert parse("x**1e300")(torch.tensor(0.5)).item() == 0
    assert parse("x + 1e-320").root.arguments[1] == Number(1e-320)


def test_text_may_be_spread_over_lines():
    assert parse("\n  x +\n\t 1\n").root == parse("x + 1").root


def test_errors_are_short_also_for_long_text():
    text = "sin(x) * " * 25 + "tanhh(x)" + " * cos(x)" * 25
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    reason, shown, caret = str(caught.value).split("\n")
    assert len(shown) < 100
    assert shown[caret.index("^") :].startswith("tanhh(x)")
    assert "\n" not in caught.value.one_line
    assert caught.value.one_line.endswith(f": {reason}")
    assert ">>>tanhh(x)" in caught.value.one_line
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.one_line) == (str(caught.value), caught.value.one_line)
