"""A model is measured so that nothing of it remains."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from softknee._diagnose.preserve import called_with, gradients, preserved, seeded


@pytest.fixture
def model():
    found = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2))
    found[1].eval()
    found[0].bias.requires_grad_(False)
    found(torch.randn(8, 4)).sum().backward()
    return found


def state(model):
    return (
        [(name, value.clone()) for name, value in model.state_dict().items()],
        [(id(one.grad), None if one.grad is None else one.grad.clone()) for one in model.parameters()],
        [one.requires_grad for one in model.parameters()],
        [module.training for module in model.modules()],
        [list(module._forward_hooks) for module in model.modules()],
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
    )


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def meddle(model):
    """Do what a measurement might do, and worse."""
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model(torch.randn(8, 4)).sum().backward()
    random.random()
    np.random.random()
    model.eval()


def fail_while_measuring(model):
    with preserved(model):
        meddle(model)
        raise RuntimeError("broken")


def test_everything_is_as_before(model):
    before = state(model)
    with preserved(model):
        meddle(model)
    assert same(state(model), before)


def test_everything_is_as_before_after_an_error(model):
    before = state(model)
    with pytest.raises(RuntimeError, match="broken"):
        fail_while_measuring(model)
    assert same(state(model), before)


@pytest.mark.parametrize(("training", "inside"), [(False, [False] * 6), (True, [True] * 6)])
def test_runs_in_the_mode_asked_for(model, training, inside):
    with preserved(model, training=training):
        assert [module.training for module in model.modules()] == inside


def test_keeps_the_modes_where_none_is_asked_for(model):
    modes = [module.training for module in model.modules()]
    with preserved(model, training=None):
        assert [module.training for module in model.modules()] == modes


def test_gradients_are_those_of_the_loss_and_none_elsewhere():
    first, second = nn.Linear(3, 1), nn.Linear(3, 1)
    model = nn.ModuleList([first, second])
    x = torch.randn(5, 3)
    with preserved(model):
        weight, bias, *others = gradients(first(x).mean(), list(model.parameters()))
    assert torch.allclose(weight, x.mean(0, keepdim=True))
    assert bias.item() == 1
    assert others == [None, None]


def test_gradients_come_through_reentrant_checkpoints():
    layer = nn.Linear(3, 3)
    x = torch.randn(5, 3, requires_grad=True)
    with preserved(layer):
        (through, _) = gradients(checkpoint(layer, x, use_reentrant=True).square().mean(), list(layer.parameters()))
        (plain, _) = gradients(layer(x).square().mean(), list(layer.parameters()))
    assert torch.allclose(through, plain)


class Twice(nn.Module):
    """A module that occurs at two places, and a weight that two modules have."""

    def __init__(self):
        super().__init__()
        shared = nn.Linear(4, 4)
        self.first, self.second, self.tied = shared, shared, nn.Linear(4, 4)
        self.tied.weight = shared.weight

    def forward(self, x):
        return self.tied(self.second(self.first(x)))


def test_other_tensors_take_the_place_of_shared_parameters_for_a_call_alone():
    model, x = Twice(), torch.randn(3, 4)
    before = dict(model.named_parameters(remove_duplicate=False))
    weights = {name: one.detach() + 1 for name, one in model.named_parameters()}
    found = called_with(model, weights, (x,))
    after = dict(model.named_parameters(remove_duplicate=False))
    assert {name: id(one) for name, one in after.items()} == {name: id(one) for name, one in before.items()}
    assert all(one.requires_grad for one in after.values())
    with torch.no_grad():
        for one in model.parameters():
            one += 1
    assert torch.equal(found, model(x))


def test_the_same_seed_draws_the_same_and_leaves_the_states():
    def drawn():
        return torch.rand(()).item(), random.random(), np.random.random()

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found = []
    for seed in (1, 1, 2):
        with seeded(seed):
            found.append(drawn())
    assert found[0] == found[1] != found[2]
    assert same(before, (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()))
