"""DiTAC and its kin: what they compute, their interval, how it follows data, and what they refuse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee as sk
from softknee import cpab
from softknee._errors import OptionError, UsageError

X = torch.linspace(-4, 4, 801, dtype=torch.float64)
FAMILY = ["ditac", "digraf", "ge_ditac", "leaky_ditac", "inf_ditac"]
STILL = FAMILY[:-1]
EVERY = pytest.mark.parametrize("name", FAMILY)


def velocities_for(name, seed=0, scale=0.5):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(11 if name == "inf_ditac" else 9, generator=generator)


def gate(x):
    return torch.special.ndtr(x)


def composed(name, x, velocities):
    """Each of the family by its words, from a map and torch's own functions."""
    field = velocities if name == "inf_ditac" else F.pad(velocities, (1, 1))

    def warped(low, high, outside="identity"):
        return cpab.warp(x, field, (low, high), outside)

    if name == "ditac":
        return warped(-0.5, 2.0) * gate(x)
    if name == "digraf":
        return warped(-3.0, 3.0)
    if name == "ge_ditac":
        return torch.where(x < 0, F.gelu(x), warped(0.0, 2.0))
    if name == "leaky_ditac":
        return torch.where(x < -0.5, -0.5 + 0.01 * (x + 0.5), warped(-0.5, 2.0))
    return warped(-0.5, 2.0, "affine") * gate(x)


@EVERY
def test_values_and_gradients_are_those_of_its_words(name):
    act = sk.create(name, velocities=velocities_for(name)).double()
    x = X.clone().requires_grad_()
    by_hand = act.velocities.detach().clone().requires_grad_()
    y, wanted = act(x), composed(name, x, by_hand)
    assert torch.allclose(y, wanted, rtol=1e-13, atol=1e-14)
    got = torch.autograd.grad((y * y).sum(), (x, act.velocities))
    expected = torch.autograd.grad((wanted * wanted).sum(), (x, by_hand))
    assert all(torch.allclose(one, other, rtol=1e-11, atol=1e-11) for one, other in zip(got, expected, strict=True))


@EVERY
def test_it_starts_unwarped(name):
    act = sk.create(name).double()
    assert not act.velocities.any()
    identity = composed(name, X, act.velocities.detach())
    assert torch.allclose(act(X), identity, rtol=1e-14, atol=1e-15)
    act(X).sum().backward()
    assert act.velocities.grad.all(), "there is something to learn from"


@pytest.mark.parametrize(("name", "dtype", "engine"), [
    ("ditac", torch.float64, "eager"),
    ("ditac", torch.float32, "eager"),
    ("ditac", torch.float32, "fused"),
    ("inf_ditac", torch.float64, "eager"),
    ("inf_ditac", torch.float32, "eager"),
])  # fmt: skip
def test_velocities_of_zero_are_gelu_to_rounding(name, dtype, engine):
    act = sk.create(name, terms=3, engine=engine).to(dtype)
    x = torch.linspace(-6, 6, 4001, dtype=dtype).requires_grad_()
    (slopes,) = torch.autograd.grad(act(x).sum(), x)
    (wanted,) = torch.autograd.grad(F.gelu(x).sum(), x)
    eps, gelu = torch.finfo(dtype).eps, F.gelu(x.double())
    assert ((act(x) - gelu).abs() / gelu.abs().clamp(min=1)).max().item() <= 2 * eps
    # PyTorch's own is off by six roundings in float32.
    assert ((act(x) - F.gelu(x)).abs() / gelu.abs().clamp(min=1)).max().item() <= 8 * eps
    assert (slopes - wanted).abs().max().item() <= 4 * eps


def test_the_public_table_would_fail_that():
    """A table of 2,048 steps, read at the nearest, is off by half a step."""
    a, b = -0.5, 2.0
    inside = X[((X - a) * (X - b)) <= 0]
    steps = a + (b - a) * ((inside - a) / (b - a) * 2047).round() / 2047
    assert ((steps - inside) * gate(inside)).abs().max() > 4e-4


@pytest.mark.parametrize("name", STILL)
def test_outside_of_the_interval_velocities_change_nothing(name):
    act, still = sk.create(name, velocities=velocities_for(name)).double(), sk.create(name).double()
    low, high = act.interval
    x = X[((X - low) * (X - high)) > 0].requires_grad_()
    y = act(x)
    assert torch.equal(y, still(x))
    by_x, by_velocities = torch.autograd.grad(y.sum(), (x, act.velocities))
    assert torch.equal(by_x, torch.autograd.grad(still(x).sum(), x)[0])
    assert not by_velocities.any()


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_outside_have_no_part_in_steep_fields(name, dtype):
    """Not even as a product of zero and infinity, where points within would part by more than a number holds."""
    act = sk.create(name, velocities=torch.full((9,), 1000.0), engine="eager").to(dtype)
    x = torch.tensor([-9.0, 9.0], dtype=dtype, requires_grad=True)
    y = act(x)
    by_x, by_velocities = torch.autograd.grad(y.sum(), (x, act.velocities))
    assert torch.equal(y, sk.create(name, engine="eager").to(dtype)(x))
    assert by_x.isfinite().all()
    assert not by_velocities.any()


@pytest.mark.parametrize("name", STILL)
def test_slopes_at_both_ends_are_those_of_the_inside(name):
    act = sk.create(name, velocities=velocities_for(name)).double()
    low, high = act.interval
    x = torch.tensor([low, low + 1e-9, high - 1e-9, high], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(act(x).sum(), x)
    assert slopes[0].item() == pytest.approx(slopes[1].item(), rel=1e-6, abs=1e-6)
    assert slopes[3].item() == pytest.approx(slopes[2].item(), rel=1e-6, abs=1e-6)


@EVERY
def test_channels_are_activations_of_their_own(name):
    fields = torch.stack([velocities_for(name, seed) for seed in range(3)], 1)
    # Numbers are kept in float32 for each channel.
    options = {"slope": 0.125} if name == "leaky_ditac" else {}
    act = sk.create(name, per_channel=3, velocities=fields, **options).double()
    x = (2 * torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    alone = [sk.create(name, velocities=field, **options).double() for field in fields.T]
    y, rows = act(x), torch.stack([one(x[:, k]) for k, one in enumerate(alone)], 1)
    assert torch.allclose(y, rows, rtol=1e-14, atol=1e-15)
    got = torch.autograd.grad((y * y).sum(), (x, act.velocities))
    wanted = torch.autograd.grad((rows * rows).sum(), (x, *(one.velocities for one in alone)))
    assert torch.allclose(got[0], wanted[0], rtol=1e-12, atol=1e-12)
    assert torch.allclose(got[1], torch.stack(wanted[1:], 1), rtol=1e-12, atol=1e-12)


def test_intervals_for_each_channel():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])
    act = sk.nn.DiTAC(
        per_channel=2, low=low, high=high, velocities=velocities_for("ditac")[:, None].repeat(1, 2)
    ).double()
    x = X[:400].reshape(200, 2)
    for k in range(2):
        one = sk.nn.DiTAC(low=low[k].item(), high=high[k].item(), velocities=velocities_for("ditac")).double()
        assert torch.allclose(act(x)[:, k], one(x[:, k]), rtol=1e-14, atol=1e-15)
    act.set_interval(-2.0, 1.0)
    assert (act.low.tolist(), act.high.tolist()) == ([-2.0, -2.0], [1.0, 1.0])


def test_few_parameters():
    assert sum(p.numel() for p in sk.nn.DiTAC().parameters()) == 9
    assert sum(p.numel() for p in sk.nn.DiTAC(terms=1).parameters()) == 1
    assert [name for name, _ in sk.nn.DiTAC().named_parameters()] == ["velocities"]
    assert not [*sk.nn.DiTAC().buffers()]


@pytest.mark.parametrize(("name", "interval", "covered"), [
    ("ditac", (-3.0, 3.0), (-3.0, 3.0)),
    ("leaky_ditac", (-1.0, 0.5), (-1.0, 0.5)),
    ("inf_ditac", (0.0, 4.0), (0.0, 4.0)),
    ("ge_ditac", (-1.0, 4.0), (0.0, 4.0)),
    ("digraf", (-1.0, 4.0), (-4.0, 4.0)),
])  # fmt: skip
def test_the_interval_moves_and_is_saved(name, interval, covered):
    velocities = velocities_for(name)
    act = sk.create(name, velocities=velocities).double()
    act.set_interval(*interval)
    assert tuple(map(float, act.interval)) == covered
    ends = dict(zip(("low", "high"), covered, strict=True)) if name != "digraf" else {"bound": covered[1]}
    if name == "ge_ditac":
        del ends["low"]
    wanted = sk.create(name, velocities=velocities, **ends).double()(X)
    assert torch.allclose(act(X), wanted, rtol=1e-13, atol=1e-14)
    assert torch.equal(act.velocities.float(), velocities)
    fresh = sk.create(name).double()
    fresh.load_state_dict(act.state_dict())
    assert torch.equal(fresh(X), act(X))
    assert torch.equal(copy.deepcopy(act)(X), act(X))
    act.set_interval(*interval)
    assert torch.equal(fresh(X), act(X))


def test_the_interval_moves_while_kernels_are_used():
    velocities = velocities_for("ditac")[:3]
    act = sk.nn.DiTAC(velocities=velocities, engine="fused")
    x = X.float()
    before = act(x)
    act.set_interval(-3.0, 3.0)
    wanted = sk.nn.DiTAC(low=-3.0, high=3.0, velocities=velocities).double()(X)
    assert not torch.allclose(act(x), before, atol=1e-3)
    assert torch.allclose(act(x).double(), wanted, rtol=0, atol=2e-6)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16),
        sk.nn.DiTAC(terms=3),
        nn.Linear(16, 16),
        sk.nn.DiGRAF(terms=3),
        nn.Dropout(0.5),
        nn.BatchNorm1d(16),
    )


def test_intervals_follow_the_data():
    model = network()
    with torch.no_grad():
        model[1].velocities.copy_(velocities_for("ditac")[:3])
    batch = torch.randn(512, 6, generator=torch.Generator().manual_seed(1))
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = sk.nn.calibrate_intervals_(model, batch, tails=(0.05, 0.9))
    first = model[0](batch).flatten()
    quantiles = first.quantile(torch.tensor([0.05, 0.9])).tolist()
    assert found["1"] == pytest.approx(quantiles, rel=1e-6)
    assert tuple(map(float, model[1].interval)) == found["1"]
    assert found["3"][0] == -found["3"][1]
    # What the second saw is what comes from the first as it was.
    moved = network()
    moved.load_state_dict(state)
    inputs = moved[:3](batch).flatten()
    assert found["3"][1] == pytest.approx(max(inputs.quantile(torch.tensor([0.05, 0.9])).abs().tolist()), rel=1e-6)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_shared_activations_follow_all_they_see():
    act = sk.nn.DiTAC(terms=3)
    model = nn.Sequential(act, nn.Hardtanh(10, 11), act)
    found = sk.nn.calibrate_intervals_(model, torch.linspace(0, 1, 101), tails=(0.0, 1.0))
    assert found == {"0": (0.0, 10.0)}


FEW = sk.nn.DiTAC(terms=3)


@pytest.mark.parametrize(("model", "x", "options", "sentence"), [
    (nn.ReLU(), torch.ones(3), {}, "the model has no activation with an interval, such as softknee.nn.DiTAC"),
    (FEW, torch.ones(3), {}, "saw inputs that are not finite or all the same"),
    (FEW, torch.tensor([0.0, math.nan]), {}, "saw inputs that are not finite or all the same"),
    (FEW, torch.tensor([-math.inf, math.inf, 0.0]), {"tails": (0.0, 1.0)}, "saw inputs that are not finite"),
    (FEW, torch.rand(3), {"tails": (0.9, 0.1)}, r"tails must be two numbers in order from 0 to 1, got \(0.9"),
    (FEW, torch.rand(3), {"tails": (0.1, 2.0)}, "tails must be two numbers in order from 0 to 1"),
])  # fmt: skip
def test_data_that_no_interval_follows(model, x, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        sk.nn.calibrate_intervals_(model, x, **options)


@pytest.mark.parametrize(("name", "options", "sentence"), [
    ("ditac", {"low": 2.0, "high": 2.0}, "high of ditac must be above low"),
    ("ditac", {"low": 3.0}, "high of ditac must be above low"),
    ("ditac", {"terms": 0}, "terms of ditac must be an integer of at least 1, got 0"),
    ("ditac", {"velocities": []}, "velocities of ditac must have at least 1 entry, got 0"),
    ("ditac", {"velocities": [0.0, math.nan]}, "velocities of ditac must be finite"),
    ("ditac", {"velocities": [0.0, math.inf]}, "velocities of ditac must be finite"),
    ("ditac", {"low": -math.inf}, "low of ditac must be finite"),
    ("ditac", {"velocities": [0.0, 1.0], "terms": 3}, "velocities of ditac must have 3 entries with terms=3, got 2"),
    ("ditac", {"velocities": torch.zeros(9, 2), "per_channel": 3}, "velocities of ditac has entries for 2 channels"),
    ("ditac", {"initialization": "svd"}, "initialization of ditac must be one of identity, smooth"),
    ("inf_ditac", {"initialization": "smooth"}, "initialization of inf_ditac must be"),
    ("inf_ditac", {"terms": 1}, "terms of inf_ditac must be an integer of at least 2, got 1"),
    ("digraf", {"bound": 0.0}, "bound of digraf must be above 0"),
    ("ge_ditac", {"high": -1.0}, "high of ge_ditac must be above 0"),
])  # fmt: skip
def test_options_that_make_no_activation(name, options, sentence):
    with pytest.raises(OptionError, match=sentence):
        sk.create(name, **options)


@pytest.mark.parametrize(("name", "interval", "sentence"), [
    ("ditac", (1.0, 1.0), "interval of ditac must be two finite numbers in order, got 1, 1"),
    ("ditac", (math.nan, 1.0), "interval of ditac must be two .*numbers in order, got nan, 1"),
    ("ditac", (-math.inf, 1.0), "interval of ditac must be two .*numbers in order, got -inf, 1"),
    ("ge_ditac", (-2.0, -1.0), "high of ge_ditac must be above 0, got -1"),
])  # fmt: skip
def test_intervals_that_are_none(name, interval, sentence):
    act = sk.create(name)
    before = act.interval
    with pytest.raises(OptionError, match=sentence):
        act.set_interval(*interval)
    assert act.interval == before


def test_another_number_of_channels_is_said():
    with pytest.raises(UsageError, match="DiTAC has parameters for 3 channels, got an input of shape .2, 4. with 4"):
        sk.nn.DiTAC(per_channel=3)(torch.zeros(2, 4))


def test_an_interval_is_numbers():
    with pytest.raises(OptionError, match="interval of ditac must be two numbers, got 'a', 1"):
        sk.nn.DiTAC().set_interval("a", 1)
