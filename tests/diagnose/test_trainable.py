"""Parameters of activations: found wherever they are, and what is wrong with how they are trained."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import softknee
from softknee._catalogue import CATALOGUE
from softknee._diagnose.flow.gradients import gradient_flow
from softknee._diagnose.flow.trainable import trainable
from softknee._errors import UsageError


def rows(model, *arguments, **options):
    return {f"{one.path}.{one.parameter}": one for one in trainable(model, *arguments, **options).parameters}


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.Linear(6, 6), softknee.nn.Swish(trainable=True), nn.ReLU())


def test_finds_parameters_of_activations_and_nothing_else():
    found = rows(network())
    assert list(found) == ["1.weight", "3.beta"]
    one = found["1.weight"]
    assert (one.site, one.count, one.start, one.mean) == ("1", 6, 0.25, 0.25)
    assert (found["3.beta"].start, found["3.beta"].mean) == (1.0, 1.0)
    assert (one.optimised, one.decayed, one.shared, one.trained) == (None, None, False, True)


def test_values_of_channels_are_summed_up():
    model = network()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, math.nan]))
        model[3].beta.fill_(3)
    found = trainable(model).to_dict()
    assert found[0]["value"] == {"min": -1.0, "mean": 0.5, "max": 2.0}
    assert found[0]["nonfinite"] == 1
    assert (found[1]["value"], found[1]["start"]) == (3.0, 1.0)
    json.dumps(found, allow_nan=False)


def test_what_no_optimizer_has_and_what_decays():
    model = network()
    groups = [
        {"params": [model[0].weight], "weight_decay": 0.0},
        {"params": [model[1].weight], "weight_decay": 0.1},
    ]
    found = rows(model, torch.optim.SGD(groups, lr=0.1))
    assert (found["1.weight"].optimised, found["1.weight"].decayed) == (True, True)
    assert (found["3.beta"].optimised, found["3.beta"].decayed) == (False, False)
    several = [torch.optim.SGD(groups, lr=0.1), torch.optim.Adam(model[3].parameters())]
    found = rows(model, several)
    assert (found["3.beta"].optimised, found["3.beta"].decayed) == (True, False)


def test_an_activation_at_several_places_is_shared():
    act = nn.PReLU()
    found = rows(nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act))
    assert list(found) == ["1.weight"]
    assert found["1.weight"].shared
    first, second = nn.PReLU(), nn.PReLU()
    second.weight = first.weight
    found = rows(nn.Sequential(nn.Linear(4, 4), first, nn.Linear(4, 4), second))
    assert list(found) == ["1.weight"]
    assert found["1.weight"].shared


def test_parameters_at_the_end_of_their_range():
    # A range that the catalogue gives to a parameter that is trained.
    spec, param = next(
        (spec, param)
        for spec in CATALOGUE
        for param in spec.parameters
        if spec.kind == "elementwise" and param.low is not None and param.trainable and not param.vector
    )
    model = nn.Sequential(softknee.create(spec.name))
    key = f"0.{param.name}"
    assert rows(model)[key].at_bound == 0
    with torch.no_grad():
        getattr(model[0], param.name).fill_(param.low)
    assert rows(model)[key].at_bound == 1


def test_gradients_come_from_a_flow_of_the_same_model():
    torch.manual_seed(0)
    model, batches = network(), [(torch.randn(16, 4), torch.randn(16, 6))]
    flow = gradient_flow(model, batches, "mse")
    found = rows(model, gradients=flow)
    model(batches[0][0]).sub(batches[0][1]).square().mean().backward()
    assert found["1.weight"].gradient == pytest.approx(model[1].weight.grad.square().mean().sqrt().item(), rel=1e-5)
    assert rows(model)["1.weight"].gradient is None


class Own(nn.Module):
    """Somebody's own activation, of a class that nobody knows."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * torch.tanh(x))


def test_activations_of_unknown_class_count():
    found = rows(nn.Sequential(nn.Linear(4, 4), Own()))
    assert found["1.slope"].mean == pytest.approx(0.3)
    assert found["1.slope"].start is None


def test_refuses_what_is_no_optimizer():
    with pytest.raises(UsageError, match=r"optimizer must be a torch.optim.Optimizer or several of them, got 3"):
        trainable(network(), 3)


def test_nothing_is_trained():
    assert trainable(nn.Sequential(nn.Linear(2, 2), nn.ReLU())).to_dict() == []
