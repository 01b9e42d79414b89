"""Models, loaders, targets and histories that a diagnosis takes, and leaves as they are."""

from __future__ import annotations

import pytest
import torch
from measured_network import batches, network, randomness, state_of
from torch import nn

from softknee._diagnose.diagnosis import Diagnosis
from softknee._diagnose.options import like
from softknee._diagnose.run import diagnose
from softknee._diagnose.units.watch import watch


@pytest.mark.parametrize("level", ["quick", "full"])
def test_t30_model_and_random_numbers_stay_as_they_are(level):
    model = network(nn.PReLU)
    model[0].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    model[1].eval()
    before, numbers = state_of(model), randomness()
    diagnose(model, batches(), "cross_entropy", level=level)
    assert state_of(model) == before
    assert randomness() == numbers


def test_a_loader_is_read_once_and_no_further_than_needed():
    read = []

    def loader():
        for index, batch in enumerate(batches(8, 16)):
            read.append(index)
            yield batch

    data = diagnose(network(), loader(), "cross_entropy", samples=40).to_dict()
    assert read == [0, 1, 2]
    assert data["data"]["samples"] == 40


def test_a_function_makes_the_model_by_the_seed_and_not_by_the_global_state():
    def make():
        return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))

    numbers = randomness()
    first, again, other = (diagnose(make, batches(), seed=seed).to_dict() for seed in (1, 1, 2))
    assert randomness() == numbers
    assert first == again
    assert first["signal"]["layers"] != other["signal"]["layers"]


def test_targets_that_are_no_classes_are_not_counted_as_such():
    rows = batches()
    wanted = {
        "mse": [(x, x[:, :4]) for x, _ in rows],
        "bce_with_logits": [(x, x[:, :4].sigmoid()) for x, _ in rows],
        "l1": [(x, y[:, None].expand(-1, 4).float()) for x, y in rows],
    }
    for loss, loader in wanted.items():
        data = diagnose(network(), loader, loss, level="full").to_dict()
        assert data["classification"] is None
        assert data["method"]["not_measured"] == {}
    soft = [(x, nn.functional.one_hot(y, 4).float()) for x, y in rows]
    assert diagnose(network(), soft, "cross_entropy", level="full").to_dict()["classification"]


def test_tokens_to_predict_are_not_the_classes_of_their_own_places():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.act, self.head = nn.Embedding(7, 8), nn.GELU(), nn.Linear(8, 7)

        def forward(self, ids, labels):
            logits = self.head(self.act(self.embedding(ids)))
            return {"loss": nn.functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:]), "logits": logits}

    ids = torch.randint(7, (8, 5), generator=torch.Generator().manual_seed(0))
    data = diagnose(Language(), [{"ids": ids, "labels": ids}], level="full").to_dict()
    assert data["gradients"]["loss"] > 0
    assert data["classification"] is None


def test_shared_parameters_are_the_same_objects_afterwards():
    act, layer = nn.PReLU(), nn.Linear(12, 12)
    model = nn.Sequential(layer, act, layer, act, nn.Linear(12, 4))
    before = {name: id(one) for name, one in model.named_parameters(remove_duplicate=False)}
    data = diagnose(model, batches(), "cross_entropy", level="full").to_dict()
    assert {name: id(one) for name, one in model.named_parameters(remove_duplicate=False)} == before
    middle = len(data["landscape"]["one"]["loss"]) // 2
    assert data["landscape"]["one"]["loss"][middle] == pytest.approx(data["gradients"]["loss"], rel=1e-4)


def test_of_a_compiled_model_the_original_is_measured():
    compiled = torch.compile(network(), backend="eager")
    data = diagnose(compiled, batches(), "cross_entropy", level="full").to_dict()
    assert data["method"]["not_measured"] == {}
    assert [site["name"] for site in data["sites"]] == ["2", "4"]


def test_a_loader_that_shuffles_yields_the_same_sample_and_leaves_the_random_numbers():
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16, shuffle=True)
    numbers = randomness()
    first, again, other = (diagnose(network(), loader, samples=32, seed=seed).to_dict() for seed in (0, 0, 1))
    assert randomness() == numbers
    assert first["data"]["hash"] == again["data"]["hash"] != other["data"]["hash"]


def test_the_history_of_a_training_gives_trajectories_and_firing(tmp_path):
    model = network(nn.PReLU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, every=1) as watched:
        for inputs, target in batches(48):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
    watched.save(tmp_path / "watch.json")
    live = diagnose(model, batches(), optimizer=optimizer, history=watched).to_dict()
    stored = diagnose(model, batches(), optimizer=optimizer, history=tmp_path / "watch.json").to_dict()
    assert live["trainable"] == stored["trainable"]
    rows = live["trainable"]
    assert [row["site"] for row in rows] == ["2", "4"]
    assert all(len(row["trajectory"]["steps"]) >= 5 for row in rows)
    assert all(row["shapes"]["curves"] for row in rows)
    assert [one["name"] for one in live["history"]["sites"]] == ["2", "4"]
    assert live["model"]["trained"] is True
    page = Diagnosis(live).to_html()
    assert "Parameters over the steps" in page
    assert "Firing of the units over training" in page


def test_trials_train_with_the_optimizer_that_is_given(monkeypatch):
    class Caught(Exception):
        pass

    def caught(*_, **options):
        raise Caught(options)

    monkeypatch.setattr("softknee._diagnose.trial.trial.trial", caught)
    model = network()
    given = torch.optim.RMSprop(model.parameters(), lr=0.1, alpha=0.9, weight_decay=0.01, momentum=0.5)
    options = {"model": model, "loader": batches(), "loss": "cross_entropy", "level": "trial"}
    reason = diagnose(**options, lr=0.1, momentum=0.9).to_dict()["method"]["not_measured"]["trials"]
    assert "'optimizer': 'sgd', 'momentum': 0.9" in reason
    reason = diagnose(**options, optimizer=given).to_dict()["method"]["not_measured"]["trials"]
    assert "'lr': 0.1" in reason
    assert "'momentum': None" in reason
    made = like(given)(list(network().parameters()), 0.3)
    assert type(made) is torch.optim.RMSprop
    (group,) = made.param_groups
    expected = {**given.param_groups[0], "lr": 0.3, "params": group["params"]}
    assert group == expected
