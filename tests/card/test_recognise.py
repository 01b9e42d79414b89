from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from softknee._card.recognise import recognise
from softknee._cli import run
from softknee._expression.parse import parse
from softknee.functional import SPECS
from softknee.nn.formula import FUNCTIONS

FEW = [
    spec for spec in SPECS if spec.name in {"relu", "gelu", "silu", "tanh", "swish", "leaky_relu", "hardtanh", "snake"}
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x * sigmoid(x)", "silu"),
        ("x / (1 + exp(-x))", "silu"),
        ("x * (1 + erf(x / sqrt(2))) / 2", "gelu"),
        ("x * tanh(log(1 + exp(x)))", "mish"),
        ("where(x > 0, x, 0)", "relu"),
        ("x", "identity"),
        ("max(x, 0) + 0.25 * min(x, 0)", "prelu"),
        ("x * sigmoid(1.3 * x)", "swish with beta = 1.3"),
        ("max(x, 0.03 * x)", "leaky_relu with negative_slope = 0.03"),
        ("x + sin(2 * x)**2 / 2", "snake with a = 2"),
        ("2 * gelu(x) + 1", "2 * gelu(x) + 1"),
        ("0.25 - tanh(x)", "-tanh(x) + 0.25"),
    ],
)
def test_known_functions_are_recognised(text, expected):
    match = recognise(text)
    assert str(match) == expected
    assert match.difference < 1e-12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5 * silu(3 * x) - 1", "0.5 * silu(3 * x) - 1"),
        ("gelu(-2 * x)", "gelu(-2 * x)"),
        ("min(max(x, -2), 3)", "hardtanh with min_value = -2, max_value = 3"),
        ("x * sigmoid(beta * x)", "swish with beta = 0.3"),
    ],
)
def test_scales_of_the_input_and_parameters_are_found(text, expected):
    expression = parse(text, FUNCTIONS)
    match = recognise(expression, FEW, **dict.fromkeys(expression.parameters, 0.3))
    assert str(match) == expected


@pytest.mark.parametrize(
    "text", ["x * sin(x)", "3", "sqrt(x)", "exp(exp(x))", "gelu_tanh(x) + 1e-6 * x", "x * tanh(2 * x)"]
)
def test_others_are_not(text):
    assert recognise(text, FEW) is None


def test_close_is_not_the_same():
    assert recognise(lambda x: F.gelu(x, approximate="tanh"), FEW) is None
    assert recognise(lambda x: F.gelu(x) + 1e-7 * torch.sin(x), FEW) is None
    assert recognise(F.gelu, FEW).name == "gelu"


def is_comparable(spec):
    # The quotient of exponentials in the formula of soft clipping overflows at the points compared.
    plain = spec.kind == "elementwise" and not spec.channelwise and spec.name != "soft_clipping"
    return plain and not any(param.vector for param in spec.parameters)


@pytest.mark.parametrize("spec", [*filter(is_comparable, SPECS)], ids=lambda spec: spec.name)
def test_everything_that_can_be_compared_is_recognised_by_its_formula(spec):
    match = recognise(spec.formula, [spec], **{param.name: param.default for param in spec.parameters})
    assert str(match) == spec.name


def test_show_says_so(capsys):
    assert run(["show", "x*sigmoid(beta*x)[beta=1]"]) == 0
    assert "the same function as silu" in capsys.readouterr().out
    assert run(["show", "x*sin(3*x)"]) == 0
    assert "the same function" not in capsys.readouterr().out


def test_a_bad_formula_is_pointed_at_on_one_line(capsys):
    assert run(["show", "x * tanhh(x)"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("softknee: x * >>>tanhh(x): no function named 'tanhh'")
    assert error.count("\n") == 1
