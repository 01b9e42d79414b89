from __future__ import annotations

import pytest
from torch import nn

import softknee
from softknee._card.source import source
from softknee._errors import UnknownActivation, UsageError
from softknee._expression.parse import parse
from softknee._spec import Spec
from softknee.nn import Vector


@pytest.mark.parametrize(
    ("activation", "name", "error", "message"),
    [
        ("gleu", None, UnknownActivation, "no activation named 'gleu'"),
        ("x +", None, UsageError, "no formula"),
        ("silu", "silu x", UsageError, "name must be a Python name"),
        ("forward * x", None, UsageError, "'forward' cannot name a parameter"),
        ("trainable * x", None, UsageError, "'trainable' cannot name a parameter"),
        ("maxout", "maxout", UsageError, "maxout cannot be printed: maxout would mean two things"),
        ("frelu", "a class", UsageError, "name must be a Python name"),
        (softknee.create("swish").to("meta"), None, UsageError, "Swish is on the meta device and has no values"),
        (nn.ReLU(), None, UsageError, "must be a name, a formula or a module of softknee, got ReLU"),
    ],
)
def test_bad_requests_are_refused(activation, name, error, message):
    with pytest.raises(error, match=message):
        source(activation, name=name)


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        (softknee.nn.Swish, {}, "Mine has a forward of its own and cannot be printed"),
        (softknee.nn.FReLU, {"channels": 2}, "Mine has a network of its own and cannot be printed"),
    ],
)
def test_classes_that_compute_something_else_are_refused(base, options, message):
    other = type("Mine", (base,), {"forward": lambda _, x: 2 * x})
    with pytest.raises(UsageError, match=message):
        source(other(**options))


def test_vectors_need_a_function_with_source():
    function = type("Own", (), {"__call__": lambda _, x, dim: x.flip(dim)})()
    spec = Spec(name="own", title="Own", family="own", kind="vector", function=function, formula="in reverse")
    module = type("Own", (Vector,), {"spec": spec})()
    with pytest.raises(UsageError, match="own cannot be printed: .* is not defined at the top of a module"):
        source(module)


def test_unknown_values_are_refused():
    with pytest.raises(UsageError, match="has no parameter 'c'; it has a"):
        parse("a * x").to_module_source("Line", c=1.0)
