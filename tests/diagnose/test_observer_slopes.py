"""Slopes of activations, and the values that are picked for them."""

from __future__ import annotations

import pytest
import torch
from observing import health_of
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee._diagnose.units.places import pick, picks_of
from softknee._diagnose.units.slopes import slope_of, steepest


@pytest.mark.parametrize("name", ["silu", "snake", "relu", "gelu", "prelu"])
def test_slopes_are_those_of_autograd_in_float64(name):
    activation = sk.create(name)
    x = torch.linspace(-4, 4, 203)
    points = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(activation.double()(points).sum(), points)
    assert_close(slope_of(activation.float(), x), expected.float(), rtol=1e-5, atol=1e-6)


def test_a_function_without_a_derivative_is_flat():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    assert_close(slope_of(Constant(), torch.ones(3)), torch.zeros(3))
    assert health_of(Constant(), torch.ones(4, 3)).dead == 1.0


@pytest.mark.parametrize("shape", [(64, 16, 8, 8), (128, 256), (5, 300, 4), (3, 2, 5)])
@pytest.mark.parametrize("most", [1, 32, 1000])
def test_each_unit_has_as_many_values_and_others_at_another_turn(shape, most):
    axis = len(shape) - 1 if len(shape) == 3 else 1
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    chosen = [pick(x, picks_of(x, axis, most, turn)) for turn in range(3)]
    for one in chosen:
        assert one.shape[axis] == shape[axis]
        assert 1 <= one.numel() // shape[axis] <= most
        assert one.unique().numel() == one.numel()
    if x.numel() // shape[axis] > 2 * most:
        assert not torch.equal(chosen[0], chosen[1])


def test_steepest_slopes_are_found_for_each_unit():
    like = torch.empty(1, 3, 1, 1)
    prelu = nn.PReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.5, 2.0, -3.0]))
    assert steepest(prelu, like, 1).flatten().tolist() == [1.0, 2.0, 3.0]
    assert_close(steepest(nn.Tanh(), like, 1), torch.ones(1, 1, 1))
    # At sqrt(2), within what a grid can tell.
    assert_close(steepest(nn.GELU(), like, 1).item(), 1.128904, rtol=1e-4, atol=0)
