"""Trials on models: what they return, say and leave alone."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from quick_trial import loader, mlp, quick, samples
from torch import nn
from torch.nn import functional as F

from softknee._errors import DataError, UsageError


def test_same_seed_same_result():
    first, second, other = quick(steps=12), quick(steps=12), quick(steps=12, seed=1)
    for one, same in zip(first.to_dict(), second.to_dict(), strict=True):
        assert {**one, "cost": 0} == {**same, "cost": 0}
    assert first.to_dict()[0]["score"] != other.to_dict()[0]["score"]


def test_controls_are_always_there():
    found = quick(candidates=[])
    assert [entry.kind for entry in found.entries] == ["no change", "matched gain", "new seed"]
    assert found.samples == (144, 36, 60)
    assert "144 samples to train on" in repr(found)


def states():
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (name, keys.tolist(), *rest)


def test_model_and_random_states_stay():
    model = mlp(nn.PReLU).eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, now = copy.deepcopy(model.state_dict()), states()
    quick(model)
    assert states() == now
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert type(model[1]) is nn.PReLU
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))


def test_random_states_stay_after_an_error():
    now = states()
    with pytest.raises(DataError, match="the loader is empty"):
        quick(data=[])
    assert states() == now


def test_a_loader_that_shuffles_gives_the_same_result():
    dataset = torch.utils.data.TensorDataset(*samples())
    results = [quick(data=torch.utils.data.DataLoader(dataset, 16, shuffle=True)).to_dict() for _ in range(2)]
    assert results[0][3]["score"] == results[1][3]["score"]


class Scaled(nn.Module):
    """Has a parameter of its own, which nothing can draw anew."""

    def __init__(self):
        super().__init__()
        self.body, self.scale = mlp(), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.scale * self.body(x)


def test_a_given_model_is_drawn_anew_or_kept():
    model = mlp()
    nn.init.constant_(model[0].weight, 0.5)
    anew = quick(model)
    assert anew.from_scratch
    assert any("reset_parameters" in note for note in anew.notes)
    kept = quick(model, trained=True)
    assert not kept.from_scratch
    assert [entry.kind for entry in kept.entries] == ["no change", "new seed", "candidate"]
    assert "fine-tuning of the weights that the model has" in repr(kept)
    favours = "favours no change; give a validation"
    assert favours in repr(kept)
    assert favours not in repr(quick(model, trained=True, validation=loader(64)))
    assert favours not in repr(anew)
    scaled = Scaled()
    assert not quick(scaled).from_scratch
    with pytest.raises(UsageError, match="cannot be drawn anew, as parts of it have no reset_parameters"):
        quick(scaled, trained=False)


class Branching(nn.Sequential):
    """Runs its parts, and a function, which cannot be exchanged in a container."""

    def forward(self, x):
        return super().forward(F.relu(x))


def test_activations_that_stay_are_told():
    found = quick(lambda: Branching(*mlp()))
    assert [note for note in found.notes if note.startswith("not changed: the model: relu: its module is a container")]
    assert found.candidates[0].seeds == 3


def test_a_function_that_seeds_itself_is_told():
    def make():
        torch.manual_seed(0)
        return mlp()

    assert any("the same weights at all seeds" in note for note in quick(make).notes)
    assert not quick().notes
    model = mlp()
    with pytest.raises(UsageError, match="make_model returned the same parameters twice"):
        quick(lambda: model)


def test_what_the_model_has_is_no_candidate():
    found = quick(candidates=["relu", "tanh", "leaky_relu[negative_slope=0.2]"])
    assert [entry.activation for entry in found.candidates] == ["tanh", "leaky_relu[negative_slope=0.2]"]
    assert "relu is what the model has; see its controls" in found.notes


def test_regression_and_other_losses_are_scored_by_the_loss():
    x, _ = samples()
    data = list(zip(x.split(16), x[:, :3].sin().split(16), strict=True))
    found = quick(data=data, loss="mse", steps=20)
    assert found.metric == "loss"
    assert 0 < found.entries[0].score < 2
    assert found.margin == pytest.approx(0.02 * found.entries[0].score)
    assert quick(metric="loss").metric == "loss"
    assert quick().metric == "accuracy"


def test_other_optimizers_and_models_with_functions():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.second(F.relu(self.first(x)))

    found = quick(Functional, optimizer="adam", lr=0.01, steps=30)
    assert found.entries[-1].score > 40
    made = []

    def own(parameters, rate):
        made.append(rate)
        return torch.optim.RMSprop(parameters, lr=rate)

    quick(optimizer=own, rates=(0.5, 1), lr=0.01)
    assert sorted(set(made)) == [0.005, 0.01]


def test_a_rate_at_which_a_run_diverges_is_not_chosen():
    found = quick(rates=(1.0, 1e30), steps=4)
    assert {entry.lr for entry in found.entries} == {0.1}


def test_an_interrupted_trial_returns_what_it_has():
    lines = []

    def progress(line):
        lines.append(line)
        if len(lines) == 7:
            raise KeyboardInterrupt

    found = quick(progress=progress)
    assert found.ended == "interrupted"
    assert "interrupted before all runs were done" in found.notes
    assert found.entries[0].seeds == 1
    assert lines[0].startswith("no change: rate 0.1, 6 steps: ")


def test_the_budget_ends_a_trial():
    found = quick(steps=10**6, budget=0.5)
    assert found.ended == "out of time"
    assert found.entries[0].seeds == 0


def test_validation_of_its_own():
    x, y = samples(100)
    found = quick(validation=[(x, y)])
    assert found.samples == (240, 40, 60)
