"""Watching a training: what is seen, what is kept of it, and that the training is the same."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.units.history import MOST, History, Period, Values
from softknee._diagnose.units.watch import PERIOD, VALUES, Watch, watch
from softknee._errors import OptionError


def small(*, bias=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6), sk.nn.Swish(trainable=True), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].bias[:4] += bias
    return model


def train(model, steps, *, lr=0.05, batch=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        x = torch.randn(batch, 8, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()


def hooks_of(model):
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def modes():
    return len(torch.overrides._get_current_function_mode_stack())


class Everything(nn.Module):
    """Modules, functions, in place, shared, checkpointed, random, with statistics."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.act, self.drop, self.rrelu = nn.ReLU(inplace=True), nn.Dropout(0.2), nn.RReLU()

    def block(self, x):
        return self.act(self.b(x))

    def forward(self, x):
        x = self.act(self.norm(self.a(x)))
        x = checkpoint(self.block, x, use_reentrant=True)
        x = F.gelu(x) + self.drop(self.rrelu(x))
        return self.c(x * torch.sigmoid(x))


@pytest.mark.parametrize("every", [1, 3])
def test_t30_a_training_that_is_watched_is_the_same_training(every):
    results = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = Everything()
        if watched:
            with watch(model, every=every) as seen:
                train(model, 7)
            assert len(seen.sites()) == 5
        else:
            train(model, 7)
        gradients = [one.grad for one in model.parameters()]
        results.append([*model.state_dict().values(), *gradients, torch.get_rng_state()])
    assert all(torch.equal(mine, its) for mine, its in zip(*results, strict=True))
    assert hooks_of(model) == modes() == 0
    assert not model.act._forward_hooks


def test_t30_an_error_in_the_model_leaves_nothing():
    model = Everything()
    seen = watch(model, every=1)
    with seen:
        model(torch.randn(4, 8))
    with pytest.raises(RuntimeError, match="mat1"), seen:
        model(torch.randn(4, 9))
    assert hooks_of(model) == modes() == 0
    assert seen.sites()[0].sums.n == 4
    with watch(model, every=1):
        # An error that the loop survives.
        with pytest.raises(RuntimeError, match="mat1"):
            model(torch.randn(4, 9))
        assert modes() == 0
        model(torch.randn(4, 8)).sum().backward()
    assert hooks_of(model) == modes() == 0


def test_every_nth_run_in_training_mode_is_observed():
    model = small()
    with watch(model, every=3) as seen:
        for step in range(8):
            train(model, 1)
            model.eval()(torch.randn(4, 8))
            # Hooks of the observed step are gone by the next run.
            assert hooks_of(model) == 1
            model.train()
            assert seen.steps == step + 1
    assert (seen.steps, seen.observed) == (8, 3)
    assert seen.sites()[0].sums.n == 3 * 16


def test_all_kinds_of_activations_are_seen_by_name():
    model = Everything()
    with watch(model, every=1) as seen:
        train(model, 2)
    assert [(one["name"], one["kind"]) for one in seen.to_dict()["sites"]] == [
        ("act", "relu"),
        ("act#1", "relu"),
        ("model#0", "gelu"),
        ("rrelu", "rrelu"),
        ("model#1", "silu"),
    ]
    states = {one.name: one.states for one in seen.sites()}
    assert states["rrelu"]["dead"] is None
    assert states["act"]["dead"] is not None
    assert "rrelu" in seen.summary()
    assert "2 steps, 2 observed" in repr(seen)


def test_large_batches_are_sampled_and_n_says_so():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    model(torch.randn(1, 3, 12, 12))
    with torch.no_grad():
        model[0].bias[2] = -1e4
    with watch(model, every=1) as seen:
        for _ in range(3):
            model(torch.randn(16, 3, 12, 12)).sum().backward()
    site = next(iter(seen.sites()))
    assert 3 * VALUES // 2 < site.sums.n <= 3 * VALUES
    assert site.sums.gradients == site.sums.slopes == site.sums.n
    assert site.units_in("dead") == (2,)


def test_numbers_are_those_of_the_values():
    model, x = small(), torch.randn(VALUES, 8)
    with watch(model, every=1) as seen:
        model(x).square().sum().backward()
    z = model[0](x)
    h = z.relu().detach().requires_grad_()
    (g,) = torch.autograd.grad(model[2:](h).square().sum(), h)
    found = seen.sites()[0].to_dict()
    assert_close(found["moments"]["z"]["q"], z.square().mean().item(), rtol=1e-5, atol=0)
    assert_close(found["moments"]["h"]["mean"], h.mean().item(), rtol=1e-5, atol=0)
    assert_close(found["gradient"]["rms"], g.square().mean().sqrt().item(), rtol=1e-5, atol=0)
    with watch(model, every=1, gradients=False) as seen:
        model(x).square().sum().backward()
    assert seen.sites()[0].to_dict()["gradient"] is None


def test_what_is_held_is_summed_in_any_portions(monkeypatch):
    found = []
    for held in (0, 2**30):
        monkeypatch.setattr("softknee._diagnose.units.watch.HELD", held)
        model = small()
        with watch(model, every=1) as seen:
            train(model, 7)
        found.append([one.to_dict() for one in seen.sites()])
    for mine, its in zip(*found, strict=True):
        assert (mine["samples"], mine["slopes"], mine["hist"]) == (its["samples"], its["slopes"], its["hist"])
        assert mine["moments"]["z"] == pytest.approx(its["moments"]["z"], rel=1e-5)
        assert mine["gradient"] == pytest.approx(its["gradient"], rel=1e-5)
        if mine["kind"] == "relu":
            assert mine["states"] == its["states"]


def test_births_and_revivals_are_seen_by_period():
    model = small()
    with watch(model, every=1) as seen:
        train(model, PERIOD, lr=0.0)
        with torch.no_grad():
            model[0].bias[[1, 5]] = -1e4
        train(model, PERIOD, lr=0.0)
        with torch.no_grad():
            model[0].bias[5] = 1.0
        train(model, PERIOD, lr=0.0)
    site = seen.to_dict()["sites"][0]
    assert site["steps"] == [PERIOD - 1, 2 * PERIOD - 1, 3 * PERIOD - 1]
    assert (site["dead"], site["births"], site["revivals"]) == ([0, 2, 1], [None, 2, 0], [None, 0, 1])
    rates = torch.tensor(site["firing"])
    assert rates.shape == (3, 12)
    assert rates[1, [1, 5]].tolist() == [0.0, 0.0]
    assert bool((rates[0] > 0).all())
    # States are those of the last period.
    assert site["states"]["dead"]["count"] == 1
    assert site["samples"] == PERIOD * 16


def test_parameters_and_shapes_are_noted():
    model = small()
    values = []
    with watch(model, every=2) as seen:
        for step in range(6):
            if step % 2 == 0:
                values.append(model[3].beta.item())
            train(model, 1, lr=1.0, seed=step)
    (found,) = seen.to_dict()["trainable"]
    assert (found["site"], found["parameter"], found["steps"], found["summary"]) == ("3", "beta", [0, 2, 4], False)
    assert [row[0] for row in found["values"]] == values
    assert len(set(values)) == 3
    shapes = seen.to_dict()["shapes"]["3"]
    assert [curve["step"] for curve in shapes["curves"]] == [0, 2, 4]
    x = torch.tensor(shapes["x"])
    # The last is drawn at the end.
    assert_close(torch.tensor(shapes["curves"][-1]["y"]), model[3](x).detach(), rtol=1e-5, atol=1e-6)


def test_reset_forgets_but_counts_on():
    model = small()
    with watch(model, every=1) as seen:
        train(model, 3)
        seen.reset()
        assert seen.sites() == ()
        assert "nothing was seen yet" in seen.summary()
        train(model, 2)
        assert (seen.steps, seen.observed) == (5, 2)
        assert seen.sites()[0].sums.n == 32
        assert seen.to_dict()["trainable"][0]["steps"] == [3, 4]


def test_a_file_is_json_also_where_numbers_are_not_finite(tmp_path):
    model = small()
    with watch(model, every=1) as seen:
        train(model, 2)
        with torch.no_grad():
            model[3].beta.fill_(math.nan)
        train(model, 2)
    seen.save(tmp_path / "new" / "watch.json")
    data = json.loads((tmp_path / "new" / "watch.json").read_text())
    assert data == json.loads(json.dumps(seen.to_dict()))
    assert data["trainable"][0]["values"][-1] == [None]
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["watch.json"]


def test_what_cannot_be_watched_is_refused():
    compiled = torch.compile(small(), backend="eager")
    inside = small()
    inside.compile(backend="eager")
    for model in (compiled, inside):
        with pytest.raises(sk.UsageError, match="the model is compiled, .* watch the original, uncompiled model"):
            watch(model)
    with pytest.raises(sk.UsageError, match="model must be a torch.nn.Module"):
        watch([nn.ReLU()])
    with pytest.raises(OptionError, match="every must be an integer of at least 1, got 0"):
        watch(nn.ReLU(), every=0)
    seen = watch(small())
    with seen, pytest.raises(sk.UsageError, match="this watch is on already"):
        seen.__enter__()
    later = small()
    seen = watch(later)
    later.compile(backend="eager")
    with pytest.raises(sk.UsageError, match="the model is compiled"):
        seen.__enter__()


def test_a_look_that_fails_does_not_end_the_training(monkeypatch):
    def fails(*_):
        raise ArithmeticError("no look at this one")

    monkeypatch.setattr("softknee._diagnose.units.watch.look", fails)
    model = small()
    with watch(model, every=1) as seen:
        train(model, 2)
    assert [one.name for one in seen.sites()] == ["1", "3"]
    assert "no look at this one" in seen.to_dict()["coverage"][0]["reason"]


def test_a_history_keeps_its_size():
    history = History()
    for step in range(4 * MOST + 3):
        firing = torch.tensor([255, 0, 128 if step % 2 else 0], dtype=torch.uint8)
        history.add(Period(step, 10, firing, torch.tensor([False, True, step % 2 == 0])))
    assert MOST / 2 <= len(history.periods) <= MOST
    assert history.periods[-1].step == 4 * MOST + 2
    first = history.periods[0]
    assert first.n > 10
    assert first.firing.tolist() == [255, 0, 64]
    # Dead in all of them, or not.
    assert first.dead.tolist() == [False, True, False]
    assert sum(one.n for one in history.periods) == 10 * (4 * MOST + 3)
    values = Values("1", "beta", summary=False)
    for step in range(5 * MOST):
        values.add(step, [float(step)])
    assert len(values.steps) <= 2 * MOST
    assert [row[0] for row in values.values] == values.steps


def test_batches_whose_gradients_are_added_up_count_each():
    model = small()
    with watch(model, every=2) as seen:
        for _ in range(4):
            model(torch.randn(5, 8)).sum().backward()
    assert (seen.steps, seen.observed) == (4, 2)
    assert seen.sites()[0].sums.n == 10


def plain_and_watched(model, x, rounds, every):
    """Return the time of steps with a watch in parts of that without, by turns."""
    y = torch.zeros(len(x), dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def steps():
        begin = time.process_time()
        for _ in range(every):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return time.process_time() - begin

    seen = Watch(model, every=every)
    with seen:
        steps()
    ratios = []
    for _ in range(rounds):
        before = steps()
        with seen:
            ratios.append(steps() / before)
    return sorted(ratios)[rounds // 2]


@pytest.mark.slow
def test_watching_costs_little():
    """The figure to reach is 1.06, see benchmarks/diagnostics_observe.py; here only what a mistake would cost."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        widths = (784, 256, 192, 128, 64)
        layers = [part for ends in pairwise(widths) for part in (nn.Linear(*ends), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(64, 10))
        assert plain_and_watched(model, torch.randn(128, 784), 41, 10) < 1.2
    finally:
        torch.set_num_threads(threads)


def test_activations_that_are_swapped_in_between_are_seen():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    with sk.watch(model, every=1) as watched:
        model(x).sum().backward()
        sk.swap(model, "tanh", where="relu")
        model(x).sum().backward()
        (site,) = watched.sites()
        assert site.to_place()["kind"] == "tanh"
        # Nothing of the ReLU is among its values.
        assert site.firing.min() == 1.0


def test_why_nothing_was_seen_is_said():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU()).eval()
    with sk.watch(model) as watched:
        model(torch.randn(4, 8))
    assert watched.summary() == (
        "0 steps, 0 observed; nothing was seen yet: the model has not run in training mode, or only compiled, where "
        "hooks see nothing"
    )
