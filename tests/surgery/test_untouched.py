"""A look at a model, or an error on the way, leaves nothing behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Written, bytes_of, linear, numbers, seen, state

import softknee as sk


class Stateful(nn.Module):
    """Changes all that a run can change."""

    def __init__(self, fails=False):
        super().__init__()
        self.layer, self.norm, self.act = linear(4, 4), nn.BatchNorm1d(4), nn.RReLU()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.noise = Noise()
        self.fails = fails

    def forward(self, x):
        self.count += 1
        x = self.noise(F.dropout(self.act(self.norm(self.layer(x))), 0.5, self.training))
        if self.fails:
            raise RuntimeError("as if out of memory")
        return F.rrelu(x, training=self.training) + torch.rand(()) + 1


class Noise(nn.Module):
    """Of no known class, so that it is tried."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x):
        self.runs += 1
        return x.tanh() + 0 * torch.rand_like(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("example", [True, False])
def test_a_look_leaves_no_trace(training, fails, example):
    model, x = Stateful(), numbers(6, 4)
    model(x).sum().backward()
    model.train(training)
    model.norm.train()
    model.layer.weight.requires_grad_(False)
    model.fails = fails
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = (state(model), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    saved = [bytes_of(one) for one in model.state_dict().values()]
    hooks = [
        len(vars(torch.nn.modules.module)[name]) for name in vars(nn.modules.module) if name.startswith("_global_f")
    ]
    if fails and example:
        with pytest.raises(RuntimeError, match="^as if out of memory$"):
            sk.sites(model, x)
    else:
        sk.sites(model, *([x] if example else []))
    assert state(model) == before[0]
    assert [bytes_of(one) for one in model.state_dict().values()] == saved
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert np.random.get_state()[1].tolist() == before[3]
    assert hooks == [
        len(vars(torch.nn.modules.module)[name]) for name in vars(nn.modules.module) if name.startswith("_global_f")
    ]
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_swap_with_an_example_leaves_statistics_and_random_states():
    model, x = Stateful(), numbers(6, 4)
    before = {name: bytes_of(one) for name, one in model.state_dict().items()}
    random_state = torch.get_rng_state()
    sk.swap(model, "relu", where="rrelu", example_inputs=x)
    assert {name: bytes_of(one) for name, one in model.state_dict().items()} == before
    assert torch.equal(torch.get_rng_state(), random_state)


def test_inputs_are_not_changed_by_a_look():
    model, x = Written(lambda s, x: F.relu(x, inplace=True) + 1), numbers(5, 4)
    before = x.clone()
    sk.sites(model, x)
    assert torch.equal(x, before)


def test_a_caught_error_inside_the_model_confuses_nothing():
    def forward(s, x):
        try:
            s.failing(x)
        except ValueError:
            x = F.gelu(s.layer(x))
        return s.layer(F.relu(x))

    def failing(s, x):
        raise ValueError

    model = Written(forward, failing=Written(failing, layer=linear(4, 4)), layer=linear(4, 4))
    x = numbers(5, 4)
    wanted = [("", 0, "gelu", "activation", "function"), ("", 1, "relu", "activation", "function")]
    assert seen(sk.sites(model, x)) == wanted
    sk.swap(model, "softplus", where="relu", example_inputs=x)
    torch.testing.assert_close(model(x), model.layer(F.softplus(F.gelu(model.layer(x)))))
    sk.swap(model, "tanh", where="gelu", example_inputs=x)
    torch.testing.assert_close(model(x), model.layer(F.softplus(torch.tanh(model.layer(x)))))


def test_a_model_that_raised_an_error_works_afterwards():
    def forward(s, x):
        x = F.relu(s.layer(x))
        if s.fails:
            raise ValueError
        return s.act(s.layer(s.act(x)))

    model, x = Written(forward, layer=linear(4, 4), act=nn.Tanh()), numbers(5, 4)
    model.fails = False
    sk.swap(model, lambda site: {0: "softplus", 1: "silu"}[site.call], example_inputs=x, where=lambda site: True)
    wanted = model(x)
    model.fails = True
    with pytest.raises(ValueError):  # noqa: PT011
        model(x)
    model.fails = False
    assert torch.equal(model(x), wanted)


class Drawing(nn.Module):
    """Draws with all generators, and sets a buffer anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return F.relu(x + random.random() + np.random.random() + torch.rand(())) - self.mean


def test_all_generators_and_buffers_set_anew_are_as_before():
    model, x = nn.Sequential(linear(4, 4), Drawing()), numbers(5, 4)
    before = state(model), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    buffer = model[1].mean
    sk.sites(model, x)
    sk.swap(model, "softplus", example_inputs=x)
    sk.unswap(model)
    assert model[1].mean is buffer
    assert state(model) == before[0]
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert torch.equal(torch.get_rng_state(), before[3])


def test_a_backward_pass_to_come_is_not_disturbed():
    model, x = nn.Sequential(linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), linear(4, 1)).eval(), numbers(5, 4)
    loss = model(x).sum()
    sk.sites(model, x)
    loss.backward()
    assert model[0].weight.grad is not None
