from __future__ import annotations

import pytest
import torch

from softknee import nn
from softknee._errors import UsageError
from softknee.nn.groups import parameter_groups


def network():
    swish = nn.Swish(per_channel=8)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), swish, torch.nn.Linear(8, 8), torch.nn.PReLU(), torch.nn.Linear(8, 8), swish
    )


def test_parameters_of_activations_do_not_decay():
    model = network()
    decaying, kept = parameter_groups(model, 0.05)
    assert [decaying["weight_decay"], kept["weight_decay"]] == [0.05, 0.0]
    assert [id(p) for p in kept["params"]] == [id(model[1].beta), id(model[3].weight)]
    assert {id(p) for p in decaying["params"]} == {id(p) for i in (0, 2, 4) for p in model[i].parameters()}


def test_an_optimizer_takes_the_groups():
    model = network()
    optimizer = torch.optim.AdamW(parameter_groups(model, 10.0), lr=0.01)
    before = model[1].beta.clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = model[0].weight.clone()
    optimizer.step()
    assert torch.equal(model[1].beta, before)
    assert torch.allclose(model[0].weight, 0.9 * weight)


def test_frozen_parameters_and_missing_activations_are_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), nn.GELU())
    model[0].bias.requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert [id(p) for p in group["params"]] == [id(model[0].weight)]


def test_a_negative_decay_is_refused():
    with pytest.raises(UsageError, match=r"weight_decay must not be negative, got -0\.1"):
        parameter_groups(network(), -0.1)
