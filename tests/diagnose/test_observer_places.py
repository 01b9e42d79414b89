"""An activation is observed however it is written: modules, functions, checkpoints, shared and gated."""

from __future__ import annotations

import copy

import pytest
import torch
from observing import Checkpointed, layer, observed, taken
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from softknee._diagnose.units.fused import collected, to_cpu
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import targets_of
from softknee._surgery.find import look


def test_calls_of_a_shared_activation_are_told_apart():
    shared = nn.ReLU()
    model = nn.Sequential(layer(6, [0, 1, 2], shared), nn.Linear(6, 4), shared)
    found = observed(model, torch.randn(64, 8), shared)
    assert {name: health.units for name, health in found.items()} == {"0.1": 6, "0.1#1": 4}
    assert found["0.1"].dead == 3 / 6


class Written(nn.Module):
    """Two layers with an activation between, written in several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first, self.second, self.third = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(6, 4)
        self.act = nn.ReLU(inplace=how == "in place")
        self.other = nn.ReLU() if how == "module" else self.act

    def activated(self, x, act):
        calls = {
            "function": F.relu,
            "method": torch.Tensor.relu,
            "function in place": lambda z: F.relu(z, inplace=True),
        }
        return calls.get(self.how, act)(x)

    def block(self, x):
        return self.activated(self.second(self.activated(self.first(x), self.act)), self.other)

    def forward(self, x):
        if self.how in {"reentrant", "not reentrant"}:
            return self.third(checkpoint(self.block, x, use_reentrant=self.how == "reentrant"))
        return self.third(self.block(x))


WAYS = ["module", "shared", "in place", "function", "method", "function in place", "reentrant", "not reentrant"]


def seen_of(how, values):
    torch.manual_seed(0)
    model = Written(how)
    with torch.no_grad():
        model.first.bias[:3] = -1e4
    x = torch.linspace(-3, 3, 160).reshape(20, 8).sin().requires_grad_()
    targets = targets_of(look(model, (x[:4],), {}), model)
    observer = Observer(model, targets, values=values, gradients=True)
    observer.attach()
    for part in x.split(11):
        observer.begin()
        observer.open()
        y = model(part)
        observer.close()
        y.square().sum().backward()
    observer.detach()
    return list(collected(to_cpu(observer.take())).values())


@pytest.mark.parametrize("how", WAYS[1:])
def test_t31_the_same_numbers_however_it_is_written(how, values):
    expected, found = seen_of("module", values), seen_of(how, values)
    assert len(found) == 2
    assert [one.units for one in found] == [12, 6]
    for mine, its in zip(found, expected, strict=True):
        assert (mine.n, mine.slopes) == (its.n, its.slopes) == (20, 20)
        if how == "reentrant":
            # One block for several activations: which one runs again is not known, and its first run had no gradients.
            assert mine.gradients == 0
        for name, part in mine.parts.items():
            assert_close(part, its.parts[name])
    assert int((found[0].parts["slope_counts"][0] == 20).sum()) >= 3


def test_gradients_of_a_reentrant_checkpoint_are_seen_where_its_activation_is_its_own():
    torch.manual_seed(0)
    plain_model = Checkpointed(None)
    again = copy.deepcopy(plain_model)
    again.reentrant = True
    rows = []
    for model in (plain_model, again):
        x = torch.linspace(-3, 3, 56).reshape(7, 8).requires_grad_()
        observer = Observer(model, targets_of(look(model, (x,), {}), model), values=100, gradients=True)
        observer.attach()
        model(x).square().sum().backward()
        observer.detach()
        (sums,) = collected(to_cpu(observer.take())).values()
        assert sums.gradients == 7
        rows.append(sums.parts["grad_sums"])
    assert_close(rows[0], rows[1])


def test_a_gated_pair_is_its_gate_and_the_output_of_its_activation(values):
    class SwiGLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up = nn.Linear(6, 10), nn.Linear(6, 10)

        def forward(self, x):
            return F.silu(self.gate(x)) * self.up(x)

    model, x = SwiGLU(), torch.randn(30, 6)
    (target,) = targets = targets_of(look(model, (x,), {}), model)
    observer = Observer(model, targets, values=values)
    observer.attach()
    observer.open()
    model(x)
    observer.close()
    (found,) = taken(observer).values()
    assert target.site.role == "pair"
    z = model.gate(x).double()
    assert_close(found.inputs.total, z.sum().item(), rtol=1e-6, atol=1e-6)
    assert_close(found.mean, F.silu(z).mean().item(), rtol=1e-5, atol=1e-7)
