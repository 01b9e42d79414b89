from __future__ import annotations

import pytest
import torch

from softknee import nn
from softknee._errors import UsageError
from softknee.nn.groups import matrix_parameters, parameter_groups


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


def test_both_arms_are_one_argument_apart():
    model = network()
    decaying, slopes = parameter_groups(model, 0.05, activation_decay=0.02)
    assert [decaying["weight_decay"], slopes["weight_decay"]] == [0.05, 0.02]
    assert [id(p) for p in slopes["params"]] == [id(p) for p in parameter_groups(model, 0.05)[1]["params"]]
    with pytest.raises(UsageError, match=r"activation_decay must not be negative, got -1"):
        parameter_groups(model, 0.05, activation_decay=-1)


def test_what_another_optimizer_has_is_left_out():
    model = network()
    matrices = matrix_parameters(model)
    decaying, slopes = parameter_groups(model, 0.05, exclude=iter([*matrices, model[1].beta]))
    assert [id(p) for p in decaying["params"]] == [id(model[i].bias) for i in (0, 2, 4)]
    assert [id(p) for p in slopes["params"]] == [id(model[3].weight)]


def test_matrices_are_weights_of_two_dimensions_and_no_tables():
    head = torch.nn.Linear(8, 11, bias=False)
    model = torch.nn.ModuleDict(
        {
            "tokens": torch.nn.Embedding(11, 8),
            "bag": torch.nn.EmbeddingBag(11, 8),
            "up": torch.nn.Linear(8, 8),
            "conv": torch.nn.Conv2d(8, 8, 3),
            "frozen": torch.nn.Linear(8, 8).requires_grad_(False),
            "rational": nn.Rational(per_channel=8),
            "gdn": nn.GDN(channels=8),
            "prelu": torch.nn.PReLU(8),
            "dynamic": nn.DynamicReLU(8),
            "head": head,
            "again": head,
        }
    )
    assert model["rational"].numerator.dim() == model["gdn"].gamma.dim() == 2
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [names[id(parameter)] for parameter in matrix_parameters(model)]
    assert found == ["up.weight", "dynamic.fc1.weight", "dynamic.fc2.weight", "head.weight"]


def test_a_head_that_shares_an_embedding_is_no_matrix():
    model = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Linear(8, 11))
    model[1].weight = model[0].weight
    assert matrix_parameters(model) == []
