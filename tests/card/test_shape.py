from __future__ import annotations

import math

import pytest
import torch

from softknee._card.card import card
from softknee._catalogue import CATALOGUE
from softknee._errors import UsageError

# Independently: steepest slope to six digits, and where.
LIPSCHITZ = {
    "relu": (1.0, 0.0),
    "elu": (1.0, 0.0),
    "tanh": (1.0, 0.0),
    "softsign": (1.0, 0.0),
    "gelu": (1.128904, math.sqrt(2)),
    "silu": (1.099839, 2.3994),
    "mish": (1.088498, 1.4906),
    "erf(x)": (1.128379, 0.0),
    "selu": (1.758099, 0.0),
    "hardswish": (1.5, 3.0),
    "sigmoid": (0.25, 0.0),
    "telu": (1.061975, 0.69656),
    "sin": (1.0, 0.0),
    "softplus": (1.0, math.inf),
}
PROMISING = [spec for spec in CATALOGUE if spec.kind == "elementwise" and spec.promises.lipschitz is not None]
# One in five; the others take a while together.
SOME = [pytest.param(spec, marks=[pytest.mark.slow] * bool(i % 5)) for i, spec in enumerate(PROMISING)]


@pytest.mark.parametrize("name", LIPSCHITZ)
def test_lipschitz_constants(name):
    slope, place = LIPSCHITZ[name]
    one = card(name)
    assert one.lipschitz == pytest.approx(slope, abs=6e-7)
    assert abs(one.lipschitz_at) == pytest.approx(place, abs=6e-5)


@pytest.mark.parametrize("spec", SOME, ids=lambda spec: spec.name)
def test_lipschitz_constants_are_those_promised(spec):
    """A promise may be rounded up, never down."""
    found = card(spec.name).lipschitz
    assert found <= spec.promises.lipschitz * (1 + 1e-12)
    assert found == pytest.approx(spec.promises.lipschitz, rel=2e-6)


@pytest.mark.parametrize(
    "name", ["squared_relu", "gcu", "finer", "slaf", "x ** 3", "exp(x)", "log(x)", "magnitude_threshold", "step_ste"]
)
def test_what_gets_ever_steeper_or_jumps_has_none(name):
    assert card(name).lipschitz == math.inf


@pytest.mark.parametrize(
    ("name", "directions", "turns"),
    [
        ("relu", ["flat", "rises"], [0.0]),
        ("hardtanh", ["flat", "rises", "flat"], [-1.0, 1.0]),
        ("tanh", ["rises"], []),
        ("gelu", ["falls", "rises"], [-0.7517915]),
        ("silu", ["falls", "rises"], [-1.2784645]),
        ("mish", ["falls", "rises"], [-1.1924312]),
        ("hardswish", ["flat", "falls", "rises"], [-3.0, -1.5]),
        ("abs", ["falls", "rises"], [0.0]),
        ("gauss", ["rises", "falls"], [0.0]),
        ("smelu", ["flat", "rises"], [-1.0]),
        ("sigmoid", ["rises"], []),
        ("step_ste", ["flat", "flat"], [0.0]),
        ("magnitude_threshold", ["rises", "flat", "rises"], [-0.5, 0.5]),
        ("x - sign(x)", ["rises", "rises"], [0.0]),
        ("x + sign(x)", ["rises"], []),
        ("exp(x)", ["rises"], []),
        ("exp(-x)", ["falls"], []),
    ],
)
def test_monotonic_pieces(name, directions, turns):
    pieces = card(name).pieces
    assert [piece.direction for piece in pieces] == directions
    assert [piece.high for piece in pieces[:-1]] == pytest.approx(turns, abs=1e-6)
    assert (pieces[0].low, pieces[-1].high) == (-math.inf, math.inf)


def test_where_numbers_end_is_no_kink():
    """exp stops at the largest float64, near 709.8."""
    one = card("exp(x)")
    assert one.kinks == ()
    assert one.lipschitz_at == math.inf
    assert one.facts["Lipschitz"] == "none: its slope grows without bound"
    assert (one.properties.minimum, one.properties.maximum) == (0, math.inf)
    assert card("exp(x) - exp(-x)").properties.odd


def test_a_function_without_values_is_refused():
    one = card("log(-1 - x * x)")
    with pytest.raises(UsageError, match="has no finite value between -1e4 and 1e4"):
        one.to_dict()


def test_extremes():
    (low,) = card("gelu").extrema
    assert low.kind == "minimum"
    assert (low.x, low.y) == pytest.approx((-0.7517915, -0.1699712), abs=1e-6)
    (high,) = card("gauss").extrema
    assert high.kind == "maximum"
    assert (high.x, high.y) == pytest.approx((0, 1), abs=1e-7)
    assert card("sin").pieces == ()


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("relu", (0, 0), (1, 0)),
        ("gelu", (0, 0), (1, 0)),
        ("tanh", (0, -1), (0, 1)),
        ("softsign", (0, -1), (0, 1)),
        ("selu", (0, -1.758099), (1.050701, 0)),
        ("elu", (0, -1), (1, 0)),
        ("atlu", (0, -1 / math.pi), (1, -1 / math.pi)),
        ("arctan", (0, -math.pi / 2), (0, math.pi / 2)),
        ("bent_identity", (0.5, -0.5), (1.5, -0.5)),
        ("log_sigmoid", (1, 0), (0, 0)),
        ("sin", None, None),
        ("squared_relu", (0, 0), None),
        ("nlrelu", (0, 0), None),
    ],
)
def test_asymptotes(name, left, right):
    for line, expected in zip(card(name).asymptotes, (left, right), strict=True):
        if expected is None:
            assert line is None
        else:
            assert (line.slope, line.intercept) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ("gelu", "smooth"),
        ("relu", "continuous; its slope jumps"),
        ("elu", "once continuously differentiable; its second derivative jumps"),
        ("magnitude_threshold", "jumps"),
        (torch.nn.Tanh(), "twice continuously differentiable, as far as seen"),
    ],
)
def test_smoothness(activation, words):
    assert card(activation).smoothness == words
