"""Activations that the code of a model writes out, and what only looks like one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, X, gradients, kinds, linear, numbers, seen

import softknee as sk

C = math.sqrt(2 / math.pi)
EXPRESSIONS = {
    "silu": (lambda x: x * torch.sigmoid(x), "silu"),
    "silu, turned": (lambda x: x.sigmoid() * x, "silu"),
    "silu, divided": (lambda x: x / (1 + torch.exp(-x)), "silu"),
    "silu, in place": (lambda x: (y := x * 1).mul_(y.sigmoid()), "silu"),
    "silu, by name": (lambda x: torch.mul(input=x, other=torch.sigmoid(input=x)), "silu"),
    "silu, other operand by name": (lambda x: torch.mul(torch.sigmoid(x), other=x), "silu"),
    "silu, two kinds of division": (lambda x: (x / 2) * (2 / (1 + torch.exp(-x))), "silu"),
    "swish": (lambda x: x * torch.sigmoid(1.5 * x), "expression"),
    "quick_gelu": (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu"),
    "gelu": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), "gelu"),
    "gelu, factor first": (lambda x: 0.5 * x * (1 + (x / 2**0.5).erf()), "gelu"),
    "gelu, factor last": (lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2, "gelu"),
    "gelu, special": (lambda x: x * (torch.special.erf(x * 0.5**0.5) + 1) * 0.5, "gelu"),
    "gelu_tanh": (lambda x: 0.5 * x * (1.0 + torch.tanh(C * (x + 0.044715 * torch.pow(x, 3.0)))), "gelu_tanh"),
    "gelu_tanh, cubed": (lambda x: 0.5 * x * (1 + (C * (x + 0.044715 * x**3)).tanh()), "gelu_tanh"),
    "gelu_tanh, a number as tensor": (
        # Rounded to float32, so it is another function in float64.
        lambda x: 0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2 / math.pi)) * (x + 0.044715 * x * x * x))),
        "expression",
    ),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), "mish"),
    "mish, written out": (lambda x: x * torch.tanh(torch.log1p(torch.exp(x))), "mish"),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, "hardswish"),
    "hardswish, clamped": (lambda x: x * ((x + 3).clamp(0, 6) / 6), "hardswish"),
    "hardsigmoid": (lambda x: F.relu6(x + 3.0) / 6.0, "hardsigmoid"),
    "tanh of sigmoid": (lambda x: 2 * torch.sigmoid(2 * x) - 1, "tanh"),
    "softsign": (lambda x: x / (1 + x.abs()), "softsign"),
    "relu squared": (lambda x: F.relu(x).square(), "squared_relu"),
    "relu to the power of 2": (lambda x: torch.relu(x) ** 2, "squared_relu"),
    "relu, pow": (lambda x: torch.pow(x.relu(), 2), "squared_relu"),
    "relu times itself": (lambda x: (r := F.relu(x)) * r, "squared_relu"),
    "something new": (lambda x: x * torch.tanh(x) * torch.sigmoid(x), "expression"),
}


def model_of(function):
    return Written(lambda s, x: s.out(function(s.layer(x))), layer=linear(4, 6), out=linear(6, 3, 5))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_one_activation_and_is_replaced_as_a_whole(name):
    function, kind = EXPRESSIONS[name]
    model, x = model_of(function), numbers(5, 4)
    found = sk.sites(model, x)
    assert seen(found) == [("", 0, kind, "activation", "expression")]
    inner = model.layer(x).detach()
    assert (found[0].low, found[0].high) == (float(inner.min()), float(inner.max()))
    assert (found[0].shape, found[0].unit_axis) == ((5, 6), 1)
    sk.swap(model, "softplus", example_inputs=x)
    for one, wanted in zip(gradients(model, x), gradients(model_of(F.softplus), x), strict=True):
        torch.testing.assert_close(one, wanted)


def test_a_new_formula_fits_the_expression_it_replaces():
    model, x = model_of(lambda x: x * torch.sigmoid(1.5 * x)), numbers(64, 4)
    before = model(x)
    _, report = sk.swap(model, "swish", like="original", example_inputs=x)
    assert float(model.softknee_0.beta) == pytest.approx(1.5, abs=1e-5)
    assert report.changed[0].error < 1e-6
    torch.testing.assert_close(model(x), before)


def _after(s, x):
    gate = torch.sigmoid(x)
    return x * gate + gate.mean()


def _kept(s, x):
    s.__dict__["gate"] = torch.sigmoid(x)
    return x * s.gate


def _returned(s, x):
    gate = torch.sigmoid(x)
    return x * gate + 1, gate


def _overwritten_between(s, x):
    x = x * 1
    gate = torch.sigmoid(x)
    x[:, 0] = 0
    return x * gate + 1


def _overwritten_through_a_view(s, x):
    x = x * 1
    gate = torch.sigmoid(x)
    x[:, :2].zero_()
    return x * gate + 1


def _part_overwritten(s, x):
    gate = torch.sigmoid(x)
    gate.mul_(x)
    return gate + 1


def _part_named(s, x):
    h = F.relu(x)
    h.square_()
    return h + 1


NOT_JOINED = {
    "another input": (lambda s, x: x * torch.sigmoid(s.layer(x)) + 1, ["sigmoid"]),
    "an outside tensor inside": (lambda s, x: x * torch.sigmoid(x * s.outside) + 1, ["sigmoid"]),
    "an outside tensor of one element": (lambda s, x: x * torch.sigmoid(x * x.abs().mean()) + 1, ["sigmoid"]),
    "a trained tensor": (lambda s, x: x * torch.sigmoid(x * s.weight) + 1, ["sigmoid"]),
    "used after": (_after, ["sigmoid"]),
    "kept as an attribute": (_kept, ["sigmoid"]),
    "returned as well": (_returned, ["sigmoid"]),
    "a shape between": (lambda s, x: x * torch.sigmoid(x.mean(-1, keepdim=True)) + 1, ["sigmoid"]),
    "another dtype between": (lambda s, x: x * torch.sigmoid(x.double()).float() + 1, ["sigmoid"]),
    "overwritten between": (_overwritten_between, ["sigmoid"]),
    "overwritten through a view": (_overwritten_through_a_view, ["sigmoid"]),
    "halves": (lambda s, x: x[:, :2] * torch.sigmoid(x[:, 2:]) + 1, ["sigmoid"]),
    "chunks": (lambda s, x: torch.mul(*(lambda a, b: (F.silu(a), b))(*x.chunk(2, -1))) + 1, ["silu"]),
    "a part overwritten": (_part_overwritten, ["sigmoid"]),
    "a part overwritten with its square": (_part_named, ["relu"]),
    "another owner": (lambda s, x: x * s.inner(x) + 1, ["sigmoid"]),
    "an activation module": (lambda s, x: x * s.act(x) + 1, ["sigmoid"]),
    "relu and a number": (lambda s, x: F.relu(x) - 0.4, ["relu"]),
    "a norm": (lambda s, x: x / x.square().sum(-1, keepdim=True).sqrt() + 1, []),
}


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return torch.sigmoid(self.layer(x)) + 0 * x.mean()


@pytest.mark.parametrize("name", NOT_JOINED)
def test_what_needs_more_than_its_input_is_not_joined(name):
    function, wanted = NOT_JOINED[name]
    model = Written(function, layer=linear(4, 4), inner=Inner(), act=nn.Sigmoid(), weight=nn.Parameter(torch.ones(4)))
    model.outside = numbers(4)
    assert [site.kind for site in sk.sites(model, numbers(5, 4)) if site.times] == wanted


@pytest.mark.parametrize("name", [name for name, (_, wanted) in NOT_JOINED.items() if wanted])
def test_and_a_swap_changes_just_the_one_function(name):
    function, (kind,) = NOT_JOINED[name]
    parts = {"layer": linear(4, 4), "inner": Inner(), "act": nn.Sigmoid(), "weight": nn.Parameter(torch.ones(4))}
    model = Written(function, **parts)
    model.outside = numbers(4)
    x = numbers(5, 4)
    wanted = _patched(model, x, kind)
    sk.swap(model, "softplus", where=kind, example_inputs=x)
    got = model(x)
    torch.testing.assert_close(got, wanted)


def _patched(model, x, kind):
    """What the model makes with softplus in the place of a function of torch."""

    class Instead(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func.__name__ == kind:
                return F.softplus(args[0])
            return func(*args, **(kwargs or {}))

    with Instead():
        return model(x)


def test_each_turn_of_a_loop_is_an_expression():
    def forward(s, x):
        for _ in range(3):
            x = s.layer(x)
            x = x * torch.sigmoid(x)
        return x + 1

    model = Written(forward, layer=linear(4, 4))
    x = numbers(5, 4)
    assert seen(sk.sites(model, x)) == [("", call, "silu", "activation", "expression") for call in range(3)]
    sk.swap(model, lambda site: ["relu", "tanh", "softplus"][site.call], example_inputs=x)
    y = model.layer(F.relu(model.layer(x))).tanh()
    torch.testing.assert_close(model(x), F.softplus(model.layer(y)) + 1)


def test_expressions_and_functions_of_one_module_do_not_disturb_one_another():
    def forward(s, x, silu=F.silu, relu=F.relu, gelu=F.gelu):
        a, b = s.layer(x), s.other(x)
        y = silu(a) * relu(b)
        return gelu(y) * b + relu(a)

    def written(s, x):
        a, b = s.layer(x), s.other(x)
        y = (a * torch.sigmoid(a)) * F.relu(b)
        return (y * 0.5 * (1 + torch.erf(y / 2**0.5))) * b + F.relu(a)

    parts = {"layer": linear(4, 4), "other": linear(4, 4, 3)}
    x = numbers(5, 4)
    model = Written(written, **parts)
    assert kinds(sk.sites(model, x)) == ["silu", "relu", "gelu", "relu"]
    for where, replaced in {"silu": {"silu": F.softplus}, "gelu": {"gelu": F.softplus}}.items():
        sk.swap(model, "softplus", where=where, example_inputs=x)
        wanted = Written(lambda s, x, changed=replaced: forward(s, x, **changed), **parts)
        for one, other in zip(gradients(model, x), gradients(wanted, x), strict=True):
            torch.testing.assert_close(one, other)
        sk.unswap(model)


@pytest.mark.parametrize("hooks", [True, False])
def test_a_module_may_call_itself(hooks):
    again = (lambda s, *rest: s(*rest)) if hooks else (lambda s, *rest: s.forward(*rest))
    x = numbers(5, 4)

    def build(first=F.relu, last=F.relu):
        def forward(s, x, depth=2):
            y = first(s.layer(x))
            if depth:
                y = again(s, y, depth - 1)
            return last(y - 0.1) + 1

        return Written(forward, layer=linear(4, 4))

    model = build()
    # One run after another in the first case; in the other all is one run: three times down, three times up.
    assert [site.times for site in sk.sites(model, x)] == ([3, 3] if hooks else [1] * 6)
    down = {0} if hooks else {0, 1, 2}
    for where, wanted in [
        (lambda site: site.call in down, build(first=F.softplus)),
        (lambda site: site.call not in down, build(last=F.softplus)),
        ("relu", build(F.softplus, F.softplus)),
    ]:
        sk.swap(model, "softplus", where=where, example_inputs=x)
        for one, other in zip(gradients(model, x), gradients(wanted, x), strict=True):
            torch.testing.assert_close(one, other)
        sk.unswap(model)
    torch.testing.assert_close(model(x), build()(x))


def test_a_transformers_formula_in_a_module_is_known():
    activations = pytest.importorskip("transformers.activations")
    wanted = {
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_python": "gelu",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": None,
        "quick_gelu": "quick_gelu",
        "mish": "mish",
        "relu2": "squared_relu",
        "silu": "silu",
        "relu": "relu",
        "relu6": "relu6",
        "sigmoid": "sigmoid",
        "tanh": "tanh",
        "leaky_relu": "leaky_relu",
    }
    x = numbers(5, 4)
    for name, kind in wanted.items():
        model = nn.Sequential(linear(4, 4), activations.ACT2FN[name], linear(4, 1))
        (site,) = sk.sites(model, x)
        assert (site.path, site.kind) == ("1", kind or site.kind), name
        # The same as a function that the forward of another module calls.
        called = Written(lambda s, x, act=activations.ACT2FN[name].forward: s.out(act(x)), out=linear(4, 1))
        (site,) = sk.sites(called, x)
        assert (site.path, site.kind) == ("", kind or site.kind), name


def test_a_clamp_of_what_is_never_negative_is_a_safeguard():
    model = Written(lambda s, x: torch.clamp(F.softplus(s.a(x)), min=0.0) + x.clamp(min=0), a=linear(4, 4))
    assert kinds(sk.sites(model, X)) == ["softplus", "relu"]
