"""Requests that cannot be met: a clear sentence, and the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import X, linear, network, state, title

import softknee as sk
from softknee import UsageError


class Narrower(nn.Module):
    def forward(self, x):
        return x[..., :2]


class Moody(nn.Module):
    """Fits, but not here."""

    def forward(self, x):
        if len(x) > 2:
            raise ValueError("too many rows")
        return x


def scripted(model):
    return torch.jit.trace(model.eval(), X)


ERRORS = [
    ({"where": "geul"}, r"^where='geul' matches no activation; did you mean 'gelu'\? the model has relu, tanh, "),
    ({"where": "blocks.*.atc"}, r"^where='blocks\.\*\.atc' matches no activation[;,].* the model has relu, tanh, "),
    (
        {"where": "mish"},
        r"^where='mish' matches no activation; the model has relu, tanh, sigmoid, gelu, silu, softmax$",
    ),
    ({"where": lambda site: False}, r"^no activation to change was found; there are 11 others, such as blocks\.0#0$"),
    ({"where": nn.Mish}, r"^no activation to change was found; there are 11 others, such as blocks\.0#0$"),
    ({"where": []}, r"^where must not be an empty list$"),
    ({"where": 3}, r"^where must be a kind, a path pattern, a class or a function of a site, got 3$"),
    ({"to": "sliu"}, r"sliu.*did you mean.*silu"),
    ({"to": "x * sigmiod(x)"}, r"sigmiod"),
    ({"to": 3}, r"^to must be an activation's name, a formula, a module or what returns one; got 3$"),
    (
        {"to": F.relu},
        r"^to was called to make an activation, and raised TypeError: relu\(\): .*; it takes nothing or",
    ),
    (
        {"to": torch.tanh},
        r"^to was called to make an activation, and raised TypeError: .* a function of a tensor is",
    ),
    (
        {"where": F.relu},
        r"^where was called with blocks\.0#0, a Site, and raised TypeError: .* as in where='relu'$",
    ),
    ({"where": nn.GELU()}, r"^where must be a kind, a path pattern, a class or a function of a site, got GELU\("),
    (
        {"to": "swish", "like": "orignal"},
        r"^no activation named 'orignal'; .*; like='original' means what is",
    ),
    ({"to": lambda: 3}, r"^to must be an activation's name, a formula, a module or what returns one; got 3$"),
    (
        {"to": Narrower()},
        r"^Narrower makes \(2, 2\) of \(2, 4\) at blocks\.0#0, where relu makes \(2, 4\); limit where, o",
    ),
    (
        {"to": "swiglu"},
        r"^SwiGLU makes \(2, 2\) of \(2, 4\) at blocks\.0#0, where relu makes \(2, 4\); limit where, o",
    ),
    ({"to": nn.Linear(5, 5)}, r"^Linear cannot act at blocks\.0#0, on inputs of shape \(6, 4\): mat1 and mat2"),
    ({"to": nn.ReLU(), "per_channel": True}, r"^per_channel is for names and formulas; a module has been made alread"),
    (
        {"to": "relu", "like": "original"},
        r"^relu has no trained parameters to fit; swish, a rational function or a splin",
    ),
    ({"to": nn.ReLU(), "like": "original"}, r"^like needs a catalogued activation of single elements or a formula"),
    ({"to": "swish", "like": "geul"}, r"geul.*did you mean.*gelu"),
    (
        {"to": "swish", "per_expert": True},
        r"^blocks\.0#0 is not in a mixture of experts that run one by one; one activ",
    ),
    (
        {"to": "swish", "example_inputs": None, "per_channel": True},
        r"^swish.* needs to know the number of channels at b",
    ),
]


@pytest.mark.parametrize(("options", "message"), ERRORS, ids=title)
def test_bad_requests_are_refused_and_leave_the_model(options, message):
    model = network()
    before, output = state(model), model(X)
    with pytest.raises(UsageError, match=message):
        sk.swap(model, **{"to": "silu", "example_inputs": X, **options})
    assert state(model) == before
    assert torch.equal(model(X), output)


def test_a_replacement_that_fails_in_the_model_is_taken_out_again():
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match="^too many rows$"):
        sk.swap(model, Moody, example_inputs=X)
    assert state(model) == before


@pytest.mark.parametrize("to", [3, scripted])
def test_bad_models_are_refused(to):
    model = to if isinstance(to, int) else to(network())
    with pytest.raises(
        UsageError, match="^(model must be a torch.nn.Module, got 3|the model is scripted or frozen, and i)"
    ):
        sk.swap(model, "silu", example_inputs=X)


def test_nothing_to_change_is_an_error_unless_told_otherwise():
    model = nn.Sequential(linear(4, 4), nn.LSTM(4, 4))
    before = state(model)
    with pytest.raises(
        UsageError, match="^no activation to change was found; not seen: 1: the gates of an LSTM are inside one kernel$"
    ):
        sk.swap(model, "silu", example_inputs=X)
    assert state(model) == before
    _, report = sk.swap(model, "silu", example_inputs=X, strict=False)
    assert (report.changed, report.added_parameters, report.difference) == ((), 0, 0.0)


class All(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear(4, 4)

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return F.relu(x) + 1


def test_a_module_that_runs_all_its_parts_is_refused():
    model = nn.Sequential(All(), linear(4, 1))
    before = state(model)
    with pytest.raises(
        UsageError,
        match=r"^what was put in the place of 0#0 \(relu\) runs twice, for 0 runs all its parts; call the function in",
    ):
        sk.swap(model, "softplus", example_inputs=X)
    assert state(model) == before
