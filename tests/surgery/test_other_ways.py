"""Models that run in other ways: they differentiate, map, loop, overwrite gradients, or are graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, X, gradients, kinds, linear, numbers, same, state

import softknee as sk
from softknee import UsageError

HIDDEN = {
    "F.tanh": F.tanh,
    "F.sigmoid": F.sigmoid,
    "F.hardswish": F.hardswish,
    "F.hardsigmoid": F.hardsigmoid,
    "F.hardswish in place": lambda x: F.hardswish(x, inplace=True),
    "F.relu_": F.relu_,
    "in an expression": lambda x: x * F.sigmoid(x),
    "kernel": torch._C._nn.silu,
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_function_that_compilers_hide_is_never_silently_the_old_one(name):
    torch._dynamo.reset()
    model = Written(lambda s, x: HIDDEN[name](s.a(x)) + 1, a=linear(4, 4))
    sk.swap(model, "softplus", example_inputs=X)
    wanted = F.softplus(model.a(X)) + 1
    torch.testing.assert_close(model(X), wanted)
    with pytest.raises(Exception, match=r"torch.relu_, F.tanh, F.hardswish and functions like them cannot be replaced"):
        torch.compile(model, backend="eager", fullgraph=True)(X)
    torch._dynamo.reset()
    # A compiler that may leave parts runs this one as it is.
    torch.testing.assert_close(torch.compile(model, backend="eager")(X), wanted)
    # And an export that runs the code sees all.
    torch.testing.assert_close(torch.export.export(model, (X,), strict=False).module()(X), wanted)


def test_a_function_with_another_name_inside_is_replaced():
    model = Written(lambda s, x: torch.special.expit(s.a(x)) + 1, a=linear(4, 4))
    sk.swap(model, "softplus", example_inputs=X)
    torch.testing.assert_close(model(X), F.softplus(model.a(X)) + 1)


def slope(s, x):
    (found,) = torch.autograd.grad(torch.tanh(s.a(x)).sum(), x, create_graph=True)
    return found + 0 * s.a(x)


def by_method(s, x):
    return slope(s, x.detach().requires_grad_())


def by_attribute(s, x):
    x = x.detach()
    x.requires_grad = True
    return slope(s, x)


def by_making_one(s, x):
    shift = torch.zeros(4, requires_grad=True)
    (found,) = torch.autograd.grad(torch.tanh(s.a(x + shift)).sum(), shift, create_graph=True)
    return found + 0 * x


@pytest.mark.parametrize("forward", [by_method, by_attribute, by_making_one, slope])
def test_a_model_may_differentiate_in_its_forward(forward):
    model = Written(forward, a=linear(4, 4))
    x = X.clone().requires_grad_(forward is slope)
    with torch.no_grad():
        assert kinds(sk.sites(model, x)) == ["tanh"]
        assert not torch.is_grad_enabled()
    sk.swap(model, "softplus", example_inputs=x)
    part = torch.sigmoid(model.a(X)) @ model.a.weight
    torch.testing.assert_close(model(x), part.sum(0).expand(6, 4) if forward is by_making_one else part)
    assert all(parameter.grad is None for parameter in model.parameters())


class Kinked(nn.Module):
    """Of unknown kind, so that it is tried with a test input."""

    def forward(self, x):
        return x * torch.sigmoid(1.5 * x)


def test_a_model_may_map_over_examples_in_its_forward():
    def build(act, function):
        def one(s, x):
            return function(s.a(s.act(s.a(x))))

        return Written(lambda s, x: torch.vmap(lambda row: one(s, row))(x), a=linear(4, 4), act=act)

    model = build(Kinked(), F.relu)
    first, second = sk.sites(model, X)
    assert (first.path, first.kind, first.shape, second.kind) == ("act", "Kinked", (4,), "relu")
    inner = model.a(X)
    # The range is that of all examples.
    assert (first.low, first.high) == (float(inner.detach().min()), float(inner.detach().max()))
    sk.swap(model, "softplus", where=["Kinked", "relu"], example_inputs=X)
    same(model, build(nn.Softplus(), F.softplus))
    (layer,) = sk.calibrate(model, X).layers
    assert layer.path == "a"


class OwnBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


def test_what_has_a_backward_of_its_own_is_listed_and_stays():
    model = Written(lambda s, x: OwnBackward.apply(s.a(x)) + s.a(x).tanh(), a=linear(4, 4))
    before = state(model)
    with pytest.raises(
        UsageError, match=r"first model#0: relu: it is called inside a torch.autograd.Function, whose b"
    ):
        sk.swap(model, "softplus", example_inputs=X)
    assert state(model) == before
    _, report = sk.swap(model, "softplus", example_inputs=X, strict=False)
    assert [change.site.kind for change in report.changed] == ["tanh"]
    same(model, Written(lambda s, x: F.relu(s.a(x)) + F.softplus(s.a(x)), a=linear(4, 4)))


def loop(function):
    def forward(s, steps):
        x = torch.zeros(6, 4)
        for step in steps:
            x = function(s.a(x) + step)
        return x + 1

    return Written(forward, a=linear(4, 4))


@pytest.mark.parametrize("function", [torch.tanh, lambda x: x * torch.sigmoid(x)])
def test_more_calls_of_functions_than_at_the_swap_are_an_error(function):
    model = loop(function)
    sk.swap(model, "softplus", example_inputs=numbers(3, 6, 4))
    torch.testing.assert_close(model(numbers(2, 6, 4)), loop(F.softplus)(numbers(2, 6, 4)))
    with pytest.raises(UsageError, match=r"^Written calls (tanh|sigmoid) more often than at the swap \(3 in a run\); "):
        model(numbers(4, 6, 4))


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: sk.Recipe.of(model).apply(loop(torch.tanh)), torch.compile]
)
def test_unless_one_activation_serves_them_all(how, tmp_path):
    torch._dynamo.reset()
    model = loop(torch.tanh)
    sk.swap(model, "softplus", example_inputs=numbers(3, 6, 4), shared=True)
    torch.testing.assert_close(how(model)(numbers(5, 6, 4)), loop(F.softplus)(numbers(5, 6, 4)))


def test_one_that_was_not_meant_for_several_does_not():
    def forward(s, x):
        x = torch.tanh(s.a(x)) + 1
        return torch.tanh(x) if s.training else x

    model = Written(forward, a=linear(4, 4)).eval()
    sk.swap(model, "softplus", example_inputs=X)
    torch.testing.assert_close(model(X), F.softplus(model.a(X)) + 1)
    with pytest.raises(UsageError, match=r"^Written calls tanh more often than at the swap \(1 in a run\); "):
        model.train()(X)


def test_calls_that_are_not_replaced_are_not_counted():
    model = loop(torch.tanh)
    sk.swap(model, "softplus", where="model#1", example_inputs=numbers(3, 6, 4))
    model(numbers(5, 6, 4))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear(4, 4)

    def forward(self, x):
        x = self.a(F.relu(self.a(x)))
        return self.a(x * torch.sigmoid(x))


@pytest.mark.parametrize(
    "graph", [lambda: torch.fx.symbolic_trace(Plain()), lambda: torch.export.export(Plain(), (X,)).module()]
)
def test_a_graph_is_replaced_for_all_that_use_it(graph):
    torch._dynamo.reset()
    model = graph()
    code = model.code
    assert kinds(sk.sites(model, X)) == ["relu", "silu"]
    sk.swap(model, "swish[beta=1.5]", where="silu", example_inputs=X)
    sk.swap(model, "softplus", where="relu", example_inputs=X)
    a = linear(4, 4)

    def wanted(x):
        x = a(F.softplus(a(x)))
        return a(x * torch.sigmoid(1.5 * x))

    copied = copy.deepcopy(model)
    for one in (model, copied, torch.export.export(model, (X,)).module(), torch.compile(model, backend="eager")):
        torch.testing.assert_close(one(X), wanted(X))
    # What reads the graph instead of running it finds none.
    with pytest.raises(AttributeError, match="graph"):
        torch.fx.Interpreter(model)
    sk.unswap(sk.unswap(model))
    assert model.code == code
    torch.testing.assert_close(model(X), Plain()(X))


def test_a_swapped_model_refuses_to_be_traced_without_its_activations():
    for model in (Plain(), nn.Sequential(Plain())):
        sk.swap(model, "softplus", where="relu", example_inputs=X)
        with pytest.raises(UsageError, match=r"^torch.fx does not show x.relu\(\) and other methods to what replaces"):
            torch.fx.symbolic_trace(model)


def test_inference_mode_makes_nothing_that_cannot_be_trained():
    model = Plain()
    with torch.inference_mode():
        sk.swap(model, "swish[beta=1.5]", example_inputs=X.clone(), like="original")
    assert all(one is not None for one in gradients(model, X))


def test_a_model_without_elements_can_be_swapped():
    with torch.device("meta"):
        model = Plain()
        example = torch.empty(6, 4)
    _, report = sk.swap(model, "swish", example_inputs=example, per_channel=True)
    assert ([change.site.units for change in report.changed], report.difference) == ([4, 4], None)
    assert model(example).is_meta
