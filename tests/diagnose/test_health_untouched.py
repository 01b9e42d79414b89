"""Nothing of a measurement of units remains, and what must not change their states does not."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from unit_models import gaussian

from softknee._diagnose.units.health import unit_health
from softknee._errors import DataError
from softknee._surgery.untouched import restored


def everything_of(model):
    """All that may change: bytes, modes, gradients, hooks, random numbers."""
    hooks = [
        (len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks), sorted(one.__dict__))
        for one in model.modules()
    ]
    return (
        {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
        [one.training for one in model.modules()],
        [None if one.grad is None else one.grad.numpy().tobytes() for one in model.parameters()],
        [one.requires_grad for one in model.parameters()],
        hooks,
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        str(np.random.get_state()),
        len(torch.overrides._get_current_function_mode_stack()),
    )


class Restless(nn.Module):
    """Draws numbers, keeps statistics, and fails where it is told to."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)
        self.act, self.drop, self.rrelu = nn.ReLU(inplace=True), nn.Dropout(), nn.RReLU()
        self.fails = False
        self.runs = 0

    def forward(self, x):
        x = self.act(self.norm(self.a(x)))
        x = F.silu(self.rrelu(self.drop(x))) + random.random() + np.random.rand()
        self.runs += 1
        if self.fails and self.runs > 2:
            raise ArithmeticError("this model fails")
        return self.b(x)


@pytest.mark.parametrize("loss", [None, "cross_entropy"])
def test_t30_nothing_remains(loss):
    model = Restless().train()
    model(gaussian(5, 8)).sum().backward()
    model.drop.eval()
    before = everything_of(model)
    unit_health(model, [(gaussian(20, 8), torch.zeros(20, dtype=torch.long))] * 2, loss)
    assert everything_of(model) == before


def test_t30_nothing_remains_of_an_error():
    model = Restless().train()
    model(gaussian(5, 8)).sum().backward()
    before = everything_of(model)

    def loader():
        yield gaussian(20, 8)
        raise OSError("the disk is gone")

    with pytest.raises(DataError, match="the loader failed after 1 batches: OSError: the disk is gone"):
        unit_health(model, loader())
    assert everything_of(model) == before
    model.fails, model.runs = True, 0
    before = everything_of(model)
    with pytest.raises(ArithmeticError, match="this model fails"):
        unit_health(model, [gaussian(20, 8)] * 3, samples=60)
    assert everything_of(model) == before


def summary_of(model, batches, loss=None):
    return {
        site.name: (
            {name: None if one is None else one.share for name, one in site.states.items()},
            site.firing.tolist(),
            site.units_in("dead"),
            site.to_dict()["gradient"],
        )
        for site in unit_health(model, batches, loss).sites
    }


def assert_alike(first, second):
    assert set(first) == set(second)
    for name in first:
        assert first[name][0] == second[name][0]
        assert_close(first[name][1], second[name][1], rtol=0, atol=1e-12)
        assert_close(first[name][3], second[name][3], rtol=1e-5, atol=1e-8)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 39), st.sampled_from([0.25, 4.0]))
def test_t32_what_must_not_change_the_states(seed, cut, scale):
    with restored(nn.Identity()):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 4))
        with torch.no_grad():
            model[0].bias[:3] -= 2.0
        x, y = torch.randn(40, 8), torch.randint(0, 4, (40,))
        found = summary_of(model, [(x, y)], "cross_entropy")
        # The same data twice, in other batches, in another order.
        assert_alike(found, summary_of(model, [(x, y), (x, y)], "cross_entropy"))
        parts = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
        assert_alike(found, summary_of(model, parts, "cross_entropy"))
        assert_alike(found, summary_of(model, parts[::-1], "cross_entropy"))
        # A ReLU does not mind the scale of its weights.
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[0].weight *= scale
            other[0].bias *= scale
        mine, its = found["1"], summary_of(other, [(x, y)])["1"]
        for name in ("silent", "dead", "constant", "linear", "saturated", "dormant"):
            assert mine[0][name] == its[0][name]
