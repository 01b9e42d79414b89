"""How the signal is measured: calls, batches, gradients, numbers that are not finite, and what is left as it was."""

from __future__ import annotations

import json
import math

import pytest
import torch
from signal_networks import draw, mlp, samples
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.flow.signal import signal
from softknee._surgery.find import sites

pytestmark = pytest.mark.usefixtures("_seeded")


class Called(nn.Module):
    """The same network, its activation called in several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.layers = nn.ModuleList(draw(nn.Linear(60, 60), 2.0) for _ in range(3))
        self.act = nn.ReLU(inplace=how == "in place")

    def forward(self, x):
        acts = {"function": F.relu, "method": torch.Tensor.relu, "torch": torch.relu, "overwriting": torch.relu_}
        for layer in self.layers:
            x = acts.get(self.how, self.act)(layer(x))
        return x


@pytest.mark.parametrize("how", ["function", "method", "torch", "overwriting", "in place"])
def test_the_same_numbers_however_the_activation_is_called(how):
    model, other = Called("module"), Called(how)
    other.load_state_dict(model.state_dict())
    expected, found = (signal(one, [samples(50, 60)]).layers for one in (model, other))
    for one, same in zip(expected, found, strict=True):
        for name in ("q", "q_theory", "cosine", "cosine_theory", "chi", "ratio", "backward"):
            value, other_value = getattr(one, name), getattr(same, name)
            assert value == other_value or other_value == pytest.approx(value, rel=1e-5), name
    assert {one.site for one in found} <= {site.name for site in sites(other, samples(2, 60))}
    assert None not in {one.site for one in found}


def test_a_layer_that_runs_twice_has_two_rows():
    layer = draw(nn.Linear(60, 60), 2.0)
    found = signal(nn.Sequential(layer, nn.ReLU(), layer), [samples(50, 60)]).layers
    assert [one.layer for one in found] == ["0", "0"]
    assert found[1].note == "call 2 of this layer"
    assert found[1].chi == pytest.approx(1, rel=0.1)


def test_batches_are_summed_up():
    model = mlp(nn.Tanh, width=50)
    whole, parts = (signal(model, [*samples(90).split(size)]).layers for size in (90, 30))
    for one, same in zip(whole, parts, strict=True):
        assert same.q == pytest.approx(one.q, rel=1e-6)
        assert same.cosine == pytest.approx(one.cosine, rel=1e-5, abs=1e-7)
    model, x = nn.Linear(10, 5), samples(20, 10)
    z = F.normalize(model(x), dim=1)
    cosines = (z @ z.T)[~torch.eye(20, dtype=torch.bool)]
    assert signal(model, [x]).layers[0].cosine == pytest.approx(cosines.mean().item(), abs=1e-6)


def test_gradients_of_a_loss_come_back_through_frozen_layers():
    model = mlp(nn.ReLU, width=400).requires_grad_(requires_grad=False)
    found = signal(model, [(samples(), torch.randint(0, 50, (100,)))], "cross_entropy")
    assert all(one.backward == pytest.approx(1, rel=0.2) for one in found.layers[1:])
    assert not any(one.requires_grad or one.grad is not None for one in model.parameters())


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp(nn.ReLU, width=20)

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


def test_without_gradients_there_is_no_backward_ratio():
    found = signal(Detached(), [samples()])
    assert all(one.backward is None for one in found.layers)
    assert found.chi_product is not None


def test_no_layer_no_theory():
    found = signal(nn.ReLU(), [samples()])
    assert found.layers == ()
    assert found.refused == "no linear layer or convolution with weights of the model ran"
    assert found.to_dict()["cosine_last"] is None


def test_numbers_that_are_not_finite_do_no_harm():
    model = mlp(nn.ReLU, width=20)
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    found = signal(model, [samples()]).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["layers"][0]["q"] is not None
    assert found["layers"][1]["q"] is None


def test_the_same_seed_gives_the_same_numbers():
    model = mlp(nn.ReLU, width=30)
    first, second, other = (signal(model, [samples()], seed=seed).to_dict() for seed in (0, 0, 1))
    assert first == second
    assert first["layers"][1]["backward"] != other["layers"][1]["backward"]


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(100, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        torch.rand(3)
        raise RuntimeError(f"broken at {tuple(self.layer(x).shape)}")


def test_everything_is_as_before_after_an_error():
    """T30 for this measurement."""
    model = Failing().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        signal(model, [samples()])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    assert all(one.requires_grad for one in model.parameters())
