"""Swaps that fail at some places, are interrupted, or are undone in another order."""

from __future__ import annotations

import contextlib
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, X, linear, network, state

import softknee as sk
from softknee import UsageError
from softknee._surgery import install


class Interrupted:
    """Raises an error at one line of the code that puts activations in."""

    def __init__(self, line):
        self.line = line
        self.count = 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _):
        if frame.f_code.co_filename != install.__file__ or frame.f_code.co_name in {"undo", "_undo"}:
            return None
        self.count += event == "line"
        if event == "line" and self.count == self.line:
            raise KeyboardInterrupt
        return self.trace


def test_an_interruption_anywhere_leaves_the_model():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    shared = nn.ReLU()
    inner = Written(lambda s, x: s.act(s.a(s.act(x))), a=linear(4, 4), act=shared)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1), inner, network())
    before = state(model)
    sk.swap(model, "swish", example_inputs=X[None])
    recipe = sk.Recipe.of(model)
    sk.unswap(model)
    assert state(model) == before
    for line in range(1, 5000, 3):
        with contextlib.suppress(KeyboardInterrupt), Interrupted(line):
            recipe.apply(model)
            break
        assert state(model) == before, line
    assert line > 300
    sk.unswap(model)
    assert state(model) == before


def test_what_does_not_fit_is_left_where_that_is_allowed():
    def forward(s, x):
        return s.a(F.glu(torch.cat([x, F.relu(x)], 1)))

    model = Written(forward, a=linear(4, 4), asleep=nn.Tanh())
    before = state(model)
    with pytest.raises(
        UsageError, match=r"^GELU makes \(2, 8\) of \(2, 8\) at model#1, where glu makes \(2, 4\); limit wh"
    ):
        sk.swap(model, "gelu", example_inputs=X)
    assert state(model) == before
    for options, reason in (
        ({"per_channel": True}, "swish needs to know the number of channels"),
        ({"like": "original"}, "like needs the range of inputs"),
    ):
        _, report = sk.swap(model, "swish", example_inputs=X, strict=False, **options)
        assert [change.site.kind for change in report.changed] == ["relu"]
        assert [(one.site.kind, one.reason.split(" at ")[0]) for one in report.missed if one.site] == [
            ("glu", "Swish makes (2, 8) of (2, 8)"),
            ("tanh", reason),
        ]
        assert not report.left
        sk.unswap(model)
    assert state(model) == before


def outer_and_inner():
    inner = Written(lambda s, x: torch.tanh(F.relu(s.a(x))) + 1, a=linear(4, 4))
    return nn.Sequential(inner, linear(4, 4)), inner


@pytest.mark.parametrize("where", ["softplus", "tanh"])
def test_a_part_that_was_swapped_later_is_undone_first(where):
    model, inner = outer_and_inner()
    before, output = state(model), model(X)
    sk.swap(model, "softplus", where="relu", example_inputs=X)
    between = state(model)
    sk.swap(inner, "swish", where=where, example_inputs=X)
    changed = state(model)
    with pytest.raises(UsageError, match="was changed since the swap; undo first what was done after it$"):
        sk.unswap(model)
    assert state(model) == changed
    sk.unswap(inner)
    assert state(model) == between
    sk.unswap(model)
    assert state(model) == before
    assert torch.equal(model(X), output)


def test_a_whole_that_was_swapped_later_is_undone_first():
    model, inner = outer_and_inner()
    before = state(model)
    sk.swap(inner, "softplus", where="relu", example_inputs=X)
    sk.swap(model, "swish", example_inputs=X)
    with pytest.raises(UsageError, match="was changed since the swap; undo first what was done after it$"):
        sk.unswap(inner)
    sk.unswap(model)
    sk.unswap(inner)
    assert state(model) == before


def test_a_recipe_is_for_a_model_without_swaps():
    model, inner = outer_and_inner()
    sk.swap(model, "softplus", example_inputs=X)
    recipe = sk.Recipe.of(model)
    with pytest.raises(UsageError, match="^the model is swapped already; a recipe is for a model built anew$"):
        recipe.apply(model)
    sk.unswap(model)
    sk.swap(inner, "softplus", example_inputs=X)
    with pytest.raises(UsageError, match="^0 is swapped already; a recipe is for a model built anew$"):
        recipe.apply(model)
