from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import (
    CHANNELS,
    SUBJECTS,
    exact,
    inputs_for,
    normal,
    subject,
)
from torch import nn
from torch.autograd import grad

from softknee._engine.select import engine


def second_derivatives(module, x, g, v, engine_name):
    """Of `v g f'` by everything that it depends on, and of a penalty on that gradient."""
    module = module.double() if engine_name == "eager" else module
    x, g, v = (tensor.to(next(iter([*module.parameters(), x])).dtype).detach() for tensor in (x, g, v))
    x.requires_grad_(), g.requires_grad_()
    parameters = [*module.parameters()]
    with engine(engine_name):
        (by_x,) = grad(module(x), x, g, create_graph=True)
        return [by_x, *grad(by_x, [x, g, *parameters], v, materialize_grads=True)]


@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_second_derivatives(case):
    x, g, v = inputs_for(case, 12, CHANNELS, 4), normal(12, CHANNELS, 4, seed=2), normal(12, CHANNELS, 4, seed=3)
    got = second_derivatives(case.module(), x, g, v, "fused")
    module = case.module().double()
    x, g, v = x.double(), g.double(), v.double()
    wanted = second_derivatives(module, x, g, v, "eager")
    for one, other in zip(got, wanted, strict=True):
        scale = other.abs().max().item() + 1e-6
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ["swish", "staf", "snake", "telu", "rational"])
def test_derivatives_of_sums_and_higher_ones(name):
    """Cotangents of the parameters' gradients, and third derivatives: beyond the kernels."""

    def all_of(module, x, how):
        with engine(how):
            x = x.detach().requires_grad_()
            parameters = [*module.parameters()]
            first = grad(module(x).square().sum(), [x, *parameters], create_graph=True)
            penalty = sum(one.square().sum() for one in first)
            second = grad(penalty, [x, *parameters], create_graph=True)
            third = grad(second[0].sum(), [x, *parameters])
            return [penalty, *second, *third]

    case = subject(name, per_channel=name != "telu")
    x = normal(8, CHANNELS)
    got = all_of(case.module(), x, "fused")
    wanted = all_of(case.module().double(), x.double(), "eager")
    for one, other in zip(got, wanted, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * scale)


def test_hessian_vector_products_of_a_network():
    def product(how, dtype):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(4, CHANNELS), subject("swish", per_channel=True).module(), nn.Linear(CHANNELS, 1)
        ).to(dtype)
        x = normal(20, 4).to(dtype)
        parameters = [*network.parameters()]
        directions = [normal(*p.shape, seed=7).to(dtype) for p in parameters]
        with engine(how):
            first = grad(network(x).square().mean(), parameters, create_graph=True)
            return grad(first, parameters, directions)

    for got, wanted in zip(product("fused", torch.float32), product("eager", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize(("x_needs", "parameters_need"), [(True, True), (True, False), (False, True), (False, False)])
def test_only_what_is_asked_for_gets_a_gradient(x_needs, parameters_need):
    module = subject("swish", per_channel=True).module()
    module.requires_grad_(parameters_need)
    x, g = normal(7, CHANNELS).requires_grad_(x_needs), normal(7, CHANNELS, seed=2)
    y = module(x)
    assert y.requires_grad is (x_needs or parameters_need)
    if not y.requires_grad:
        return
    y.backward(g)
    wanted = exact(module, x.detach())
    assert (x.grad is not None) is x_needs
    assert (module.beta.grad is not None) is parameters_need
    if x_needs:
        torch.testing.assert_close(x.grad.double(), wanted.slope * g, rtol=1e-5, atol=1e-6)
    if parameters_need:
        sums = (wanted.by_parameters["beta"] * g).sum(0)
        torch.testing.assert_close(module.beta.grad.double(), sums, rtol=1e-5, atol=1e-5)


def test_some_parameters_may_be_frozen():
    module = subject("staf").module()
    module.frequency.requires_grad_(False)
    x, g = normal(50), normal(50, seed=2)
    y = module(x.requires_grad_())
    y.backward(g)
    assert module.frequency.grad is None
    wanted = exact(module, x.detach()).by_parameters["phase"] * g
    torch.testing.assert_close(module.phase.grad.double(), wanted.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["swish", "relu"])
def test_changes_in_place_of_what_is_saved_are_noticed(name):
    module = subject(name).module()
    x = normal(10, 4).requires_grad_()
    inner = x * 1
    y = module(inner)
    (y if name == "relu" else inner).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_changes_in_place_of_parameters_are_noticed():
    module = subject("swish").module()
    y = module(normal(10).requires_grad_())
    with torch.no_grad():
        module.beta.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["relu", "relu6", "swish"])
def test_results_may_be_changed_in_place_where_they_are_not_saved(name):
    module = subject(name).module()
    x = normal(10, 4).requires_grad_()
    y = module(x)
    if name == "swish":
        y.mul_(2)
        y.sum().backward()
        torch.testing.assert_close(x.grad.double(), 2 * exact(module, x.detach()).slope, rtol=1e-5, atol=1e-6)
    else:
        # As torch's own do, for the same reason.
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_backward_twice_through_one_graph_gives_the_same():
    module = subject("staf", per_channel=True).module()
    x, g = normal(9, CHANNELS).requires_grad_(), normal(9, CHANNELS, seed=2)
    y = module(x)
    inputs = [x, *module.parameters()]
    once, again = grad(y, inputs, g, retain_graph=True), grad(y, inputs, g)
    assert all(map(torch.equal, once, again))
    with pytest.raises(RuntimeError, match="second time"):
        grad(y, inputs, g)


def test_the_incoming_gradient_is_left_alone():
    module = subject("swish").module()
    for g in (
        normal(3, 4, 5, 6),
        normal(3, 4, 5, 6).contiguous(memory_format=torch.channels_last),
        normal(6, 5, 4, 3).permute(3, 2, 1, 0),
    ):
        before = g.clone()
        module(normal(3, 4, 5, 6).requires_grad_()).backward(g)
        assert torch.equal(g, before)


def test_gradients_accumulate_over_uses():
    module = subject("swish", per_channel=True).module()
    x, y = normal(6, CHANNELS), normal(8, CHANNELS, seed=3)
    (module(x).sum() + module(y).sum()).backward()
    both = module.beta.grad.clone()
    module.beta.grad = None
    module(x).sum().backward()
    module(y).sum().backward()
    torch.testing.assert_close(both, module.beta.grad)


class Foreign(torch.autograd.Function):
    """Hands memory that is not torch's own to whatever came before it."""

    @staticmethod
    def forward(ctx, x, memory):
        ctx.memory = memory
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(ctx.memory), None


def test_memory_of_others_is_not_written_over():
    module, x = subject("mish").module(), normal(100).requires_grad_()
    memory = np.ones(100, dtype=np.float32)
    Foreign.apply(module(x * 1), memory).sum().backward()
    assert (memory == 1).all()
    torch.testing.assert_close(x.grad.double(), exact(module, x.detach()).slope, rtol=1e-4, atol=1e-6)
