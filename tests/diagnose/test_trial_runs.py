"""Single runs of a trial: the weights, batches and noise they share, and how they are scored."""

from __future__ import annotations

import itertools

import pytest
import torch
from quick_trial import linear, mlp, samples, trainer
from torch import nn
from torch.nn import functional as F

from softknee import gain
from softknee._diagnose.task import Batch
from softknee._diagnose.trial.data import Data, Pool
from softknee._diagnose.trial.rates import Arm
from softknee._diagnose.trial.run import rescale, right
from softknee._diagnose.trial.trials import MATCHED, REFERENCE
from softknee._errors import UsageError


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


def test_zero_weights_stay_zero():
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    rescale(layer, {"weight": 1.0})
    assert not layer.weight.any()
