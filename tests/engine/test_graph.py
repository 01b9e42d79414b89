from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from interpret import OPERATIONS, interpret, same

from softknee._engine.graph import PRICES, Builder, Operation

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.1, 1e300, 5e-324, math.inf, -math.inf, math.nan]) | st.floats()
FOLDED = ("add", "sub", "mul", "neg")
ARITHMETIC = ("add", "sub", "mul", "div", "neg", "abs", "max", "min", "floor", "sqrt", "tanh", "where")
TRUTHS = ("lt", "ge", "eq", "and", "or", "not")
ARITIES = {
    **dict.fromkeys(("neg", "abs", "floor", "sqrt", "tanh", "not"), 1),
    **dict.fromkeys(("add", "sub", "mul", "div", "max", "min", "lt", "ge", "eq", "and", "or"), 2),
    "where": 3,
}


def tensor(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@given(NUMBERS, NUMBERS, st.sampled_from(FOLDED))
def test_constants_are_folded_to_what_torch_computes(a, b, name):
    to = Builder()
    arguments = (a,) if name == "neg" else (a, b)
    folded = to.value_of(to.add(name, *map(float, arguments)))
    assert folded is not None
    assert same(tensor(folded), OPERATIONS[name](*map(tensor, arguments)))


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_constants_are_shared_only_with_their_like(values):
    to = Builder()
    places = [to.constant(value) for value in values]
    for place, value in zip(places, values, strict=True):
        for other, number in zip(places, values, strict=True):
            assert (place == other) == same(tensor(value), tensor(number))
        assert same(tensor(to.value_of(place)), tensor(value))


@st.composite
def programs(draw):
    """Lists of operations on two inputs and constants, each with positions of earlier results of the right kind."""
    steps: list[tuple[str, tuple[int, ...] | float]] = [("x", ()), ("g", ())]
    numbers, truths = [0, 1], []
    for _ in range(draw(st.integers(1, 12))):
        possible = ["constant", *ARITHMETIC[: None if truths else -1], *TRUTHS[: None if truths else 3]]
        name = draw(st.sampled_from(possible))
        if name == "constant":
            steps.append((name, draw(NUMBERS)))
        else:
            kinds = [numbers] * ARITIES[name]
            if name in {"and", "or", "not"}:
                kinds = [truths] * ARITIES[name]
            elif name == "where":
                kinds = [truths, numbers, numbers]
            steps.append((name, tuple(draw(st.sampled_from(kind)) for kind in kinds)))
        (truths if name in TRUTHS else numbers).append(len(steps) - 1)
    outputs = draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=3))
    return steps, tuple(outputs)


def run(steps, inputs):
    """Step by step, without a graph."""
    results = []
    for name, what in steps:
        if name in inputs:
            results.append(inputs[name])
        elif name == "constant":
            results.append(torch.full_like(inputs["x"], what))
        else:
            results.append(OPERATIONS[name](*[results[place] for place in what]))
    return results


def build(steps, outputs):
    to = Builder()
    places = []
    for name, what in steps:
        if name in {"x", "g"}:
            places.append(to.input(name))
        else:
            places.append(to.constant(what) if name == "constant" else to.add(name, *[places[k] for k in what]))
    return to.finish(tuple(places[output] for output in outputs))


@given(programs(), st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_a_graph_computes_what_its_operations_do_one_by_one(program, points):
    steps, outputs = program
    inputs = dict(zip("xg", torch.tensor(points, dtype=torch.float64).unbind(1), strict=True))
    graph = build(steps, outputs)
    results = run(steps, inputs)
    for got, output in zip(interpret(graph, inputs), outputs, strict=True):
        assert same(got, results[output])


@given(programs())
def test_a_graph_has_no_operation_twice_and_none_that_is_not_needed(program):
    graph = build(*program)
    assert len(set(graph.operations)) == len(graph.operations)
    needed = set(graph.outputs)
    for position, operation in reversed([*enumerate(graph.operations)]):
        assert position in needed
        assert all(argument < position for argument in operation.arguments)
        needed.update(operation.arguments)


def test_what_is_left_out_and_what_is_not():
    to = Builder()
    x, g = to.input("x"), to.input("g")
    assert to.input("x") == x
    for same_as_x in (to.add("mul", x, 1.0), to.add("mul", 1.0, x), to.add("div", x, 1.0), to.add("sub", x, 0.0)):
        assert same_as_x == x
    assert to.add("where", to.add("lt", x, g), x, x) == x
    # Each of these changes -0.0, NaN or infinity.
    for other in (to.add("add", x, 0.0), to.add("sub", x, -0.0), to.add("mul", x, 0.0), to.add("sub", 0.0, x)):
        assert other != x
        assert to.value_of(other) is None
    assert to.add("add", x, g) == to.add("add", x, g) != to.add("add", g, x)


def test_price_and_inputs_of_a_graph():
    to = Builder()
    x, p = to.input("x"), to.input("p0")
    to.add("exp", to.input("unused"))
    graph = to.finish((to.add("mul", to.add("exp", x), p), x))
    assert graph.inputs == ("x", "p0")
    assert graph.price == PRICES["exp"] + 1
    assert [operation.name for operation in graph.operations] == ["input", "input", "exp", "mul"]
    assert graph.outputs == (3, 0)


@pytest.mark.parametrize(
    ("name", "truth"), [("lt", True), ("and", True), ("not", True), ("add", False), ("where", False)]
)
def test_kinds_of_results(name, truth):
    assert Operation(name, (0, 1)).is_truth is truth
    to = Builder()
    place = to.add(name, *[to.input(letter) for letter in "xgv"[: ARITIES[name]]])
    assert to.is_truth(place) is truth
    assert not to.is_truth(1.0)
