from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

from softknee._errors import ExpressionError
from softknee._expression.parse import parse
from softknee._expression.primitives import COMPARISONS, PRIMITIVES
from softknee._expression.tree import Call, Name, Number, Sum

OPERATORS = ["+", "-", "*", "/", "**"]
NUMBERS = st.floats(0, 1e6, allow_nan=False).map(abs).map(Number)
NAMES = st.sampled_from(["x", "x", "beta", "alpha"]).map(Name)
FUNCTIONS = st.sampled_from(
    [p for p in PRIMITIVES.values() if p.name not in {*COMPARISONS, "where"}],
)


def calls(below):
    plain = FUNCTIONS.flatmap(lambda p: st.tuples(*[below] * p.arity).map(lambda arguments: Call(p, arguments)))
    comparison = st.tuples(st.sampled_from(sorted(COMPARISONS)), below, below).map(
        lambda parts: Call(PRIMITIVES[parts[0]], parts[1:])
    )
    branch = st.tuples(comparison, below, below).map(lambda arguments: Call(PRIMITIVES["where"], arguments))
    total = below.map(lambda term: Sum(Call(PRIMITIVES["+"], (Name("beta"), term))))
    return st.one_of(plain, plain, branch, total)


TREES = st.recursive(NUMBERS | NAMES, calls, max_leaves=12)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_a_tree_prints_as_text_that_parses_to_it(tree):
    try:
        parsed = parse(str(tree))
    except ExpressionError as error:
        assume("no finite value" not in str(error))
        raise
    assert parsed.root == tree
    assert str(parsed) == str(tree)
    assert hash(parsed) == hash(parse(str(tree)))


WELL_BEHAVED = ["sin", "cos", "atan", "tanh", "sigmoid", "softplus", "erf", "relu", "abs", "max", "min", "+", "-", "*"]


def well_behaved(below):
    chosen = st.sampled_from([PRIMITIVES[name] for name in WELL_BEHAVED])
    plain = chosen.flatmap(lambda p: st.tuples(*[below] * p.arity).map(lambda arguments: Call(p, arguments)))
    at_edge = st.tuples(st.sampled_from(sorted(COMPARISONS)), st.sampled_from([0.125, 0.5, 0.75])).map(
        lambda parts: Call(PRIMITIVES[parts[0]], (Name("x"), Number(parts[1])))
    )
    branch = st.tuples(at_edge, below, below).map(lambda arguments: Call(PRIMITIVES["where"], arguments))
    return plain | branch


SMALL_TREES = st.recursive(st.floats(0, 3).map(Number) | NAMES, well_behaved, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(SMALL_TREES, st.floats(-3, 3, allow_subnormal=False))
def test_evaluation_agrees_with_sympy(tree, x):
    sympy = pytest.importorskip("sympy")
    values = {"alpha": 0.75, "beta": -1.5}
    expression = parse(str(tree))
    got = expression(torch.tensor(x, dtype=torch.float64), *[values[name] for name in expression.parameters])
    exact = expression.to_sympy({name: sympy.Rational(value) for name, value in {**values, "x": x}.items()})
    assert got.item() == pytest.approx(float(sympy.N(exact, 30)), rel=1e-9, abs=1e-9)


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
        ("x if x else x", "only numbers, names"),
        ("f'{x}'", "only numbers, names"),
        ("(x := 3)", "only numbers, names"),
        ("x[0]", "only numbers, names"),
        ("x @ x", "only numbers, names"),
        ("x % 2", "only numbers, names"),
        ("not x", "only numbers, names"),
        ("True", "only numbers, names"),
        ("'x'", "only numbers, names"),
        ("1j", "only numbers, names"),
        ("exp(x=x)", "only numbers, names"),
        ("exp(*x)", "only numbers, names"),
        ("1 < x < 2", "only numbers, names"),
        ("1e999", "this number is too large"),
        ("9" * 400, "this number is too large"),
        ("9**9**9**9", "this constant has no finite value"),
        ("x + 1 / 0", r"x \+ >>>1 / 0: this constant has no finite value"),
        ("log(0 - 1)", "this constant has no finite value"),
        ("1 + tanhh(x)", r"1 \+ >>>tanhh\(x\): no function named 'tanhh'; did you mean 'tanh'"),
        ("exp", "exp is a function; write exp"),
        ("max(x)", "max takes 2 arguments, got 1"),
        ("exp(x, x)", "exp takes 1 argument, got 2"),
        ("where(x, 1, 2)", r"comparisons stand in the first place of where\(...\) only"),
        ("x + (x < 1)", r"comparisons stand in the first place of where\(...\) only"),
        ("x < 1", r"a comparison is no value; use where\(condition, then, else\)"),
        ("sum(x)", "runs over vector parameters, and there is none inside"),
        ("sum(index * x / terms)", "runs over vector parameters, and there is none inside"),
        ("x" * 1001, "the expression has 1001 characters; at most 1000 are allowed"),
        ("(" * 400 + "x" + ")" * 400, "x"),
        ("-" * 900 + "x", "deep|cannot be read"),
        ("1+" * 499 + "x", "nested more than 60 deep"),
        ("exp(" * 70 + "x" + ")" * 70, "nested more than 60 deep"),
        ("x\0", "x"),
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
