"""Trials on models: what runs share, what changes, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee import gain
from softknee._diagnose.task import Batch
from softknee._diagnose.trial.data import Data, Pool
from softknee._diagnose.trial.options import parse_budget
from softknee._diagnose.trial.rates import Arm
from softknee._diagnose.trial.run import Trainer, rescale, right
from softknee._diagnose.trial.screen import screen, usual
from softknee._diagnose.trial.trial import trial
from softknee._diagnose.trial.trials import MATCHED, REFERENCE
from softknee._errors import DataError, UsageError

WIDTHS = (6, 16, 16, 3)


def mlp(activation=nn.ReLU, widths=WIDTHS):
    layers = [(nn.Linear(inputs, outputs), activation()) for inputs, outputs in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain.from_iterable(layers)).__getitem__(slice(0, -1))


def samples(count=240):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 6, generator=generator)
    return x, (x[:, :3] + 0.3 * torch.randn(count, 3, generator=generator)).argmax(1)


def loader(count=240, size=16):
    x, y = samples(count)
    return list(zip(x.split(size), y.split(size), strict=True))


def quick(make=mlp, data=None, loss="cross_entropy", **options):
    usual_ones = {"lr": 0.1, "steps": 6, "candidates": ["tanh"], "rates": (1.0,)}
    return trial(make, loader() if data is None else data, loss, **{**usual_ones, **options})


def trainer(make=mlp, *, from_scratch=True):
    data = Data.of([Batch((x,), {}, y, len(x)) for x, y in loader()], None, torch.Generator().manual_seed(0))
    optimizer = lambda parameters, rate: torch.optim.SGD(parameters, lr=rate)  # noqa: E731
    return Trainer(make, data, F.cross_entropy, optimizer, "accuracy", 0, from_scratch)


def linear(model):
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def test_all_begin_with_the_same_weights_and_biases_but_for_the_scale():
    train = trainer()
    plain, matched, tanh = (train.built(arm, 3) for arm in (REFERENCE, MATCHED, Arm("candidate", "tanh")))
    x = train.data.training.joined.inputs[0][:16]
    factors = {"relu": gain(F.relu).forward, "tanh": gain(torch.tanh).forward}
    for model, name in ((matched, "relu"), (tanh, "tanh")):
        for number, (layer, base) in enumerate(zip(linear(model), linear(plain), strict=True)):
            ratio = layer.weight.detach() / base.weight.detach()
            assert ratio.std() < 1e-5 * ratio.mean()
            assert torch.equal(layer.bias, base.bias)
            size = layer.weight.detach().double().square().mean().sqrt() * layer.in_features**0.5
            wanted = factors[name] if number else x.double().square().mean() ** -0.5
            assert size == pytest.approx(float(wanted), rel=0.1 if not number else 1e-5)


def test_seeds_differ_in_weights():
    train = trainer()
    first, again, other = (train.built(REFERENCE, seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Recording(nn.Module):
    """Writes down what it is trained on."""

    seen: list[torch.Tensor] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            noise = self.drop(torch.ones(4))
            self.seen.append(torch.cat([x.flatten(), noise]))
        return self.body(x)


def test_all_see_the_same_batches_and_noise_at_one_seed():
    train = trainer(Recording)
    found = {}
    for arm, seed in itertools.product((REFERENCE, MATCHED, Arm("candidate", "prelu")), (1, 2)):
        Recording.seen.clear()
        train(arm, 0.1, seed, 20, lambda: False)
        found[arm, seed] = torch.stack(Recording.seen[-20:])
    for arm in (MATCHED, Arm("candidate", "prelu")):
        assert torch.equal(found[arm, 1], found[REFERENCE, 1])
        assert torch.equal(found[arm, 2], found[REFERENCE, 2])
    assert not torch.equal(found[REFERENCE, 1], found[REFERENCE, 2])


def test_parts_of_the_data_do_not_overlap():
    x, y = samples(200)
    data = Data.of([Batch((x,), {}, y, 200)], None, torch.Generator().manual_seed(0))
    parts = [data.training, data.choosing, data.reporting]
    assert [part.count for part in parts] == [120, 30, 50]
    rows = {tuple(row.tolist()) for part in parts for row in part.joined.inputs[0]}
    assert len(rows) == 200
    epoch = list(data.training.epoch(torch.Generator().manual_seed(1)))
    assert sum(batch.size for batch in epoch) == 120


def test_batches_that_differ_in_shape_are_kept_whole():
    batches = [Batch((), {"x": torch.randn(4, n)}, torch.zeros(4), 4) for n in range(3, 23)]
    data = Data.of(batches, None, torch.Generator().manual_seed(0))
    assert data.training.joined is None
    assert len(data.training.batches) == 12
    seen = [batch.keywords["x"].shape[1] for batch in data.training.epoch(torch.Generator().manual_seed(1))]
    assert sorted(seen) == sorted(batch.keywords["x"].shape[1] for batch in data.training.batches)
    assert Pool.of(batches).count == 80


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


def test_groups_of_losses_have_the_loss_as_their_mean():
    train = trainer()
    object.__setattr__(train, "metric", "loss")
    model = train.built(REFERENCE, 1).eval()
    whole = train.data.choosing.joined
    exact = F.cross_entropy(model(whole.inputs[0]), whole.target).item()
    assert train.scores(model, train.data.choosing).mean() == pytest.approx(exact, rel=1e-5)


def test_right_answers():
    logits = torch.tensor([[0.0, 1.0], [3.0, 1.0]])
    assert right(logits, torch.tensor([1, 1])).tolist() == [1, 0]
    assert right({"logits": logits}, torch.tensor([1, 0])).tolist() == [1, 1]
    assert right(logits[:, :, None].repeat(1, 1, 2), torch.tensor([[1, 0], [0, 0]])).tolist() == [0.5, 1]
    with pytest.raises(UsageError, match="accuracy needs outputs"):
        right(logits, torch.tensor([0.1, 1]))
    with pytest.raises(UsageError, match="along dimension 1"):
        right(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))


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


def test_zero_weights_stay_zero():
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    rescale(layer, {"weight": 1.0})
    assert not layer.weight.any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": 0}, "lr must be a positive number, got 0"),
        ({"rates": ()}, "rates must be positive factors of lr"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1, got 1.5"),
        ({"margin": -1}, "margin must be a positive number, got -1"),
        ({"metric": "f1"}, "metric must be 'accuracy' or 'loss', got 'f1'"),
        ({"budget": "soon"}, "budget must be a time in seconds or a text such as '90s', '5m' or '1h', got 'soon'"),
        ({"candidates": "gelu"}, "candidates must be a list of names or formulas, got 'gelu'"),
        ({"candidates": ["geluu"]}, "did you mean 'gelu'"),
        ({"candidates": ["0 * x"]}, "candidate 0 * x: "),
        ({"optimizer": "lion"}, "optimizer must be 'sgd', 'adam', 'adamw' or a function"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum is for optimizer='sgd'"),
        ({"progress": 3}, "progress must be a function of a text, got 3"),
        ({"make": 3}, "make_model must be a function without arguments or a module, got 3"),
        ({"make": lambda: 3}, "make_model must return a torch.nn.Module, got int"),
        ({"make": lambda: nn.Linear(6, 3)}, "no activation to change was found in the model"),
        ({"make": mlp, "trained": True}, "trained=True is for a model with weights"),
        ({"data": loader(10)}, "10 samples are too few to train, choose and report on"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
    ],
)
def test_bad_input(options, sentence):
    options = dict(options)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        quick(options.pop("make", mlp), **options)


def test_budgets():
    assert [parse_budget(one) for one in (None, 5, 2.5, "90s", "5m", " 1.5 h", "7")] == [
        None, 5, 2.5, 90, 300, 5400, 7,
    ]  # fmt: skip
    for wrong in (0, -1, True, math.inf, "m", ""):
        with pytest.raises(UsageError, match="budget must be"):
            parse_budget(wrong)


def test_the_budget_ends_a_trial():
    found = quick(steps=10**6, budget=0.5)
    assert found.ended == "out of time"
    assert found.entries[0].seeds == 0


def test_validation_of_its_own():
    x, y = samples(100)
    found = quick(validation=[(x, y)])
    assert found.samples == (240, 40, 60)


def deep(depth):
    torch.manual_seed(depth)
    return mlp(widths=(6, *(128,) * depth, 3))


def test_the_screen_leaves_out_what_cannot_work_at_a_depth():
    x, _ = samples()
    specs = [
        spec for spec in usual() if spec.name in {"relu", "leaky_relu", "gelu", "sigmoid", "identity", "tanh", "elu"}
    ]
    shallow, far = (screen(deep(depth), x, specs=specs) for depth in (2, 20))
    assert {row.activation: row.reason for row in far.rows}["sigmoid"].startswith("gradients shrink to")
    reasons = {row.activation: row.reason for row in shallow.rows}
    assert reasons["sigmoid"] == ""
    assert reasons["identity"] == "it is nearly a straight line there"
    assert reasons["relu"] == reasons["leaky_relu"] == "it is nearly the same as what the model has"
    # Of matched weights all inputs have mean square 1, as far as chance in 128 units lets them.
    assert sum(shallow.variances.values()) == 2
    products = {row.activation: row.chi_product for row in far.rows}
    assert products["relu"] == pytest.approx(1)
    at_one = gain(torch.tanh).chi
    assert {row.activation: row.chi_product for row in shallow.rows}["tanh"] == pytest.approx(at_one**2, rel=0.1)
    assert far.candidates(2) == tuple(row.activation for row in far.rows if not row.reason)[:2]
    assert "left out: gradients shrink" in repr(far)
    assert far.to_dict()["rows"][0]["reason"] is None


def test_the_screen_knows_the_precision():
    x, _ = samples()
    specs = [spec for spec in usual() if spec.name in {"tanh", "relu", "gelu"}]
    zero = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = mlp(nn.SiLU).to(dtype)
        found = screen(model, 30 * x.to(dtype), matched=False, specs=specs)
        zero[dtype] = {row.activation: row.zero for row in found.rows}
    assert zero[torch.float32]["relu"] == pytest.approx(0.5, abs=0.01)
    assert zero[torch.bfloat16]["tanh"] > zero[torch.float32]["tanh"] + 0.05


def test_screened_candidates_are_tried(monkeypatch):
    few = [spec for spec in usual() if spec.builtin]
    monkeypatch.setattr("softknee._diagnose.trial.screen.usual", lambda: few)
    found = quick(candidates=None, steps=2, seeds=1)
    assert len(found.candidates) == 4
    assert found.to_dict()[-1]["screen"]["chi_product"] > 0
    assert found.about()["screening"]["rows"]
