"""Weight decay in trials: none on activations, whoever makes the optimizer."""

from __future__ import annotations

import pytest
import torch
from quick_trial import mlp, quick
from torch import nn

import softknee as sk
from softknee._diagnose.options import like
from softknee._diagnose.trial.run import spare_activations
from softknee.nn.groups import parameter_groups


def slopes_of(model):
    modules = [one for one in model.modules() if isinstance(one, nn.PReLU | sk.nn.Activation)]
    return {parameter for module in modules for parameter in module.parameters()}


def decays(optimizer):
    return {one: group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_activations_of_all_rows_are_spared_the_decay(name):
    made, shapes = [], set()

    def optimizer(parameters, rate):
        kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
        made.append(kind(parameters, lr=rate, weight_decay=0.1))
        return made[-1]

    found = quick(lambda: mlp(nn.PReLU), optimizer=optimizer, candidates=["swish[trainable]"], steps=2, seeds=1)
    assert len(made) >= len(found.entries) == 4
    for one in made:
        by_parameter = decays(one)
        shapes.add(tuple((tuple(parameter.shape), decay) for parameter, decay in by_parameter.items()))
        # Weights and biases of three layers, and one slope after two of them.
        assert sorted(by_parameter.values()) == [0.0] * 2 + [0.1] * 6
        assert {parameter.shape for parameter, decay in by_parameter.items() if decay == 0} == {(1,)}
    assert len(shapes) == 1


def test_groups_without_decay_or_activations_stay_as_they_are():
    model = mlp(nn.PReLU)
    slopes = slopes_of(model)
    others = [one for one in model.parameters() if one not in slopes]
    for groups, expected in (
        ([{"params": list(model.parameters())}], [(8, 0.0)]),
        ([{"params": others, "weight_decay": 0.1}, {"params": list(slopes)}], [(6, 0.1), (2, 0.0)]),
        ([{"params": others}, {"params": list(slopes), "weight_decay": 0.1}], [(6, 0.0), (2, 0.0)]),
    ):
        optimizer = torch.optim.SGD(groups, lr=0.1)
        spare_activations(optimizer, model)
        assert [(len(one["params"]), one["weight_decay"]) for one in optimizer.param_groups] == expected


def test_options_are_those_of_the_largest_group_not_the_defaults():
    model = mlp(nn.PReLU)
    for groups in (parameter_groups(model, 0.3), parameter_groups(model, 0.3)[::-1]):
        given = torch.optim.AdamW(groups, lr=0.1)
        assert given.defaults["weight_decay"] == 0.01
        new = like(given)(list(model.parameters()), 0.2)
        assert [(one["lr"], one["weight_decay"]) for one in new.param_groups] == [(0.2, 0.3)]
