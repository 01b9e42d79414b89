"""States of units: closed forms, the traps of other tools, and that nothing of a measurement remains."""

from __future__ import annotations

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.units.health import unit_health
from softknee._diagnose.units.states import Limits, masks
from softknee._diagnose.units.sums import Sums
from softknee._errors import DataError
from softknee._surgery.untouched import restored


def layer(units, activation, *, bias=0.0, inputs=8, seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, units)
    with torch.no_grad():
        linear.bias.fill_(bias)
    return nn.Sequential(linear, activation)


def scaled(units, activation, weight, bias=0.0):
    """Each unit sees one input times a weight."""
    linear = nn.Linear(units, units)
    with torch.no_grad():
        linear.weight.copy_(weight * torch.eye(units))
        linear.bias.fill_(bias)
    return nn.Sequential(linear, activation)


def states_of(model, x, **options):
    (site,) = unit_health(model, [x], **options).sites
    return {name: None if one is None else one.count for name, one in site.states.items()}


def gaussian(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bias", "n"), [(-2.0, 64), (-1.5, 16)])
def test_t13_never_fires(bias, n):
    """A unit with N normal inputs never fires with probability Phi(-b/s)^N."""
    units = 20_000
    exact = (0.5 * math.erfc(bias / math.sqrt(2))) ** n
    found = Sums()
    z = gaussian(n, units) + bias
    found.add(z[..., None], z.relu()[..., None])
    found.add_slopes((z > 0).float()[..., None], torch.ones(1, 1, 1))
    dead, seen = masks(found, Limits())["dead"]
    assert seen == n
    assert abs(dead.double().mean().item() - exact) < 4 * math.sqrt(exact * (1 - exact) / units)
    assert_close(exact, {64: 0.2293, 16: 0.330814}[n], rtol=1e-3, atol=0)


def test_t14_born_dead():
    """One input, no biases, five layers of 3 units: 1 - (1 - 2^-3)^5 = .48709; 20,000 nets at once."""
    nets, width, depth = 20_000, 3, 5
    h, alive = gaussian(nets, width), torch.ones(nets, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    for _ in range(depth):
        z = torch.einsum("noi,ni->no", torch.randn(nets, width, width, generator=generator), h)
        h = z.relu()
        sums = Sums()
        # One net is one sample of this sum of all its units.
        sums.add(z.reshape(1, -1, 1), h.reshape(1, -1, 1))
        sums.add_slopes((z > 0).float().reshape(1, -1, 1), torch.ones(1, 1, 1))
        alive &= ~masks(sums, Limits())["dead"][0].reshape(nets, width).all(1)
    exact = 1 - (1 - 2.0**-width) ** depth
    assert_close(exact, 0.48709, rtol=1e-5, atol=0)
    assert abs(1 - alive.double().mean().item() - exact) < 4 * math.sqrt(exact * (1 - exact) / nets)


@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_t15_units_that_were_killed_are_dead_and_silent(k):
    model = layer(12, nn.ReLU())
    with torch.no_grad():
        model[0].bias[:k] = -1e4
    site = unit_health(model, [gaussian(256, 8)])["1"]
    assert site.units_in("dead") == site.units_in("silent") == tuple(range(k))
    assert site.states["dead"].n == 256
    assert_close(site.states["dead"].bound, 1 - 0.05 ** (1 / 256))


def test_t16_linear_r2_of_a_relu():
    found = unit_health(scaled(20, nn.ReLU(), 1.0), [gaussian(2048, 20), gaussian(2048, 20, seed=4)], samples=4096)
    exact = 0.25 / (0.5 - 0.5 / math.pi)
    assert_close(exact, 0.73347, rtol=1e-5, atol=0)
    assert_close(found["1"].to_dict()["moments"]["linear_r2"], exact, rtol=0, atol=4e-3)
    assert_close(
        unit_health(scaled(20, nn.LeakyReLU(1.0), 1.0), [gaussian(64, 20)])["1"].to_dict()["moments"]["linear_r2"], 1.0
    )


def test_saturated_is_said_of_slopes():
    """A tanh of inputs times 1000 is saturated, which a count of zeros does not see."""
    states = states_of(scaled(10, nn.Tanh(), 1000.0), gaussian(2000, 10))
    assert (states["saturated"], states["silent"], states["dead"]) == (10, 0, 0)
    # Neither a linear layer's large values nor a ReLU that is on are saturated.
    states = states_of(scaled(10, nn.ReLU(), 1.0, bias=50.0), gaussian(400, 10))
    assert (states["saturated"], states["linear"], states["dead"]) == (0, 10, 0)


def test_a_gelu_far_below_zero_is_dead_and_not_only_silent():
    states = states_of(scaled(10, nn.GELU(), 1.0, bias=-20.0), gaussian(400, 10))
    assert (states["dead"], states["silent"], states["saturated"]) == (10, 10, 10)
    # SiLU has a gradient there.
    states = states_of(scaled(10, nn.SiLU(), 1.0, bias=-20.0), gaussian(400, 10))
    assert (states["dead"], states["silent"]) == (0, 0)


def test_a_tanh_stuck_at_one_is_constant_and_dead():
    model = scaled(10, nn.Tanh(), 1.0)
    with torch.no_grad():
        model[0].bias[:4] = 30.0
    site = unit_health(model, [gaussian(400, 10)])["1"]
    assert site.units_in("constant") == site.units_in("dead") == tuple(range(4))
    assert site.states["silent"].count == 0
    assert site.states["linear"].count == 0


def test_dormant_is_relative_to_the_layer_and_of_absolute_values():
    model = scaled(10, nn.Tanh(), 1.0)
    with torch.no_grad():
        model[0].weight[0, 0] = 0.01
    site = unit_health(model, [gaussian(4000, 10)], samples=4000)["1"]
    # The mean of a tanh is 0, that of its size is not.
    assert site.units_in("dormant") == (0,)
    assert unit_health(model, [gaussian(400, 10)], dormant=0.0)["1"].units_in("dormant") == ()


def test_gradient_dormant_units_are_those_nobody_reads():
    model = nn.Sequential(*scaled(6, nn.Tanh(), 1.0), nn.Linear(6, 3))
    with torch.no_grad():
        model[2].weight[:, 4] = 0.0
    x, y = gaussian(50, 6), torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(0))
    site = unit_health(model, [(x, y)], "cross_entropy")["1"]
    assert site.units_in("gradient_dormant") == (4,)
    assert unit_health(model, [(x, y)])["1"].states["gradient_dormant"] is None
    h = torch.tanh(model[0](x)).detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model[2](h), y, reduction="sum"), h)
    expected = {"rms": g.square().mean().sqrt().item(), "mean_abs": g.abs().mean().item(), "zero": 1 / 6}
    assert_close(site.to_dict()["gradient"], expected, rtol=1e-5, atol=1e-7)


def test_channels_of_a_convolution_are_units_over_all_positions():
    """Per position most of these would be dead."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-0.6)
        model[0].bias[2] = -1e4
    x = gaussian(4, 3, 12, 12)
    site = unit_health(model, [x])["1"]
    h = model(x)
    assert (site.sums.units, site.sums.n) == (5, 400)
    assert site.units_in("dead") == (2,)
    assert ((h == 0).all(0)).double().mean() > 0.3
    assert_close(site.firing, (h > 0).double().mean((0, 2, 3)))


def test_tokens_are_samples_and_not_units():
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
    found = unit_health(model, [gaussian(4, 7, 6)])["1"]
    assert (found.sums.units, found.sums.n) == (10, 28)


def test_softmax_of_attention_is_seen_without_what_needs_slopes():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            return F.softmax(self.q(x) @ self.k(x).transpose(1, 2), dim=-1) @ self.v(x)

    (site,) = unit_health(Attention(), [gaussian(4, 5, 6)]).sites
    found = site.to_dict()
    assert (found["kind"], found["role"], found["slopes"], found["curve"]) == ("softmax", "normaliser", None, None)
    assert [found["states"][name] for name in ("dead", "linear", "saturated")] == [None] * 3
    assert found["states"]["silent"]["count"] == 0
    assert "depend on one another" in found["notes"][0]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = self.b(x)
        return self.c(x * torch.sigmoid(x))


def test_a_model_without_activation_modules_is_seen():
    found = unit_health(Functional(), [gaussian(30, 8)])
    assert [(one.to_dict()["kind"], one.to_dict()["how"]) for one in found.sites] == [
        ("relu", "function"),
        ("silu", "expression"),
    ]
    assert found.coverage == ()


def test_the_activation_inside_an_encoder_layer_is_seen():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = unit_health(model, [gaussian(4, 5, 8)])
    (site,) = [one for one in found.sites if one.to_dict()["kind"] == "relu"]
    assert (site.sums.units, site.sums.n) == (16, 20)


def test_what_is_not_seen_is_listed():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.act, self.spare = nn.LSTM(6, 4, batch_first=True), nn.ReLU(), nn.GELU()

        def forward(self, x):
            return self.act(self.rnn(x)[0])

    found = unit_health(Both(), [gaussian(3, 5, 6)])
    assert [site.name for site in found.sites] == ["act"]
    assert {one["path"]: one["reason"] for one in found.coverage} == {
        "rnn": "the gates of an LSTM are inside one kernel",
        "spare": "it did not run on these samples",
    }


def test_values_that_are_not_finite_are_a_number_and_no_crash():
    x = gaussian(30, 8)
    x[3, 2] = math.nan
    found = unit_health(scaled(8, nn.Tanh(), 1.0), [x])["1"].to_dict()
    # A linear layer spreads it over the row.
    assert found["moments"]["nonfinite"] == 1 / 30
    assert found["moments"]["linear_r2"] is None
    assert abs(found["moments"]["h"]["mean"]) < 1
    everything = unit_health(scaled(8, nn.Tanh(), 1.0), [torch.full((4, 8), math.nan)])["1"].to_dict()
    assert everything["moments"]["z"]["mean"] is None
    assert everything["moments"]["nonfinite"] == 1.0


@pytest.mark.parametrize(
    ("size", "activation"), [(1e11, nn.ReLU), (1e20, nn.ReLU), (1e20, nn.Sigmoid), (1e30, nn.Tanh)]
)
def test_powers_that_leave_the_range_of_float32_are_left_out(size, activation):
    found = unit_health(scaled(4, activation(), size), [gaussian(200, 4)])["1"]
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    assert data["moments"]["z"]["kurtosis"] is None
    # Where even squares do, nothing that rests on them is said.
    assert (data["moments"]["linear_r2"] is None) == (size > 1e18)
    assert data["moments"]["outlier_ratio"] is None or data["moments"]["outlier_ratio"] >= 1
    assert data["states"]["constant"]["count"] == 0


def test_the_dictionary_is_json_and_agrees_with_a_reference():
    model, x = scaled(6, nn.GELU(), 2.0, bias=0.5), gaussian(500, 6)
    found = unit_health(model, [x]).to_dict()
    json.dumps(found, allow_nan=False)
    (site,) = found["sites"]
    z = model[0](x).double()
    h = F.gelu(z)
    moments = site["moments"]
    assert_close(moments["z"]["q"], z.square().mean().item(), rtol=1e-5, atol=0)
    assert_close(
        moments["z"]["kurtosis"],
        ((z - z.mean()) ** 4).mean().item() / z.var(correction=0).item() ** 2,
        rtol=1e-5,
        atol=0,
    )
    assert_close(moments["h"]["std"], h.std(correction=0).item(), rtol=1e-5, atol=0)
    assert_close(moments["outlier_ratio"], h.abs().max().item() / h.square().mean().sqrt().item(), rtol=1e-5, atol=0)
    assert sum(site["hist"]["counts"]) == 3000
    assert len(site["hist"]["counts"]) == len(site["hist"]["edges"]) + 1
    assert sum(site["firing"]) == 6
    assert_close(torch.tensor(site["curve"]["y"]), F.gelu(torch.tensor(site["curve"]["x"])), rtol=1e-5, atol=1e-6)
    precision = site["precision"]
    assert precision["dtype"] == "float32"
    assert -6.3 < precision["low"] < -6.0
    beyond = (z <= precision["low"]).double().mean().item()
    assert abs(precision["beyond"] - beyond) < 0.005


def test_precision_of_a_tanh_in_bfloat16():
    site = unit_health(scaled(20, nn.Tanh(), 2.0), [gaussian(2048, 20)])["1"].to_dict()
    exact = math.erfc(3.47 / 2 / math.sqrt(2))
    assert abs(site["precision"]["others"]["bfloat16"] - exact) < 0.01
    assert site["precision"]["beyond"] < 1e-4


def test_births_and_revivals():
    model = layer(10, nn.ReLU())
    x = [gaussian(100, 8)]
    with torch.no_grad():
        model[0].bias[[1, 2]] = -1e4
    before = unit_health(model, x)
    with torch.no_grad():
        model[0].bias[[2, 7]] = torch.tensor([0.0, -1e4])
    change = before.compare(unit_health(model, x)).sites["1"]
    assert (change.state, change.births, change.revivals, change.stayed) == ("dead", (7,), (2,), 1)
    assert before.compare(before).to_dict() == {"1": {"state": "dead", "births": [], "revivals": [], "stayed": 2}}


def test_flagged_units_come_worst_first():
    model = scaled(10, nn.ReLU(), 1.0)
    with torch.no_grad():
        model[0].bias[3], model[0].bias[6] = -1e4, 1e4
    flagged = unit_health(model, [gaussian(100, 10)])["1"].to_dict()["flagged"]
    assert [one["unit"] for one in flagged[:1]] == [3]
    assert {"dead", "silent"} <= set(flagged[0]["states"])
    assert {"unit": 6, "firing": 1.0}.items() <= next(one for one in flagged if one["unit"] == 6).items()


def test_trained_activations_of_each_channel_have_slopes():
    model = nn.Sequential(nn.Linear(8, 6), sk.nn.PReLU(per_channel=6))
    site = unit_health(model, [gaussian(60, 8)])["1"]
    assert site.states["dead"].count == 0
    assert site.to_dict()["curve"] is not None


def everything_of(model):
    """All that may change: bytes, modes, gradients, hooks, random numbers."""
    hooks = [
        (len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks), sorted(one.__dict__))
        for one in model.modules()
    ]
    return (
        {name: value.numpy().tobytes() for name, value in model.state_dict().items()},
        [one.training for one in model.modules()],
        [None if one.grad is None else one.grad.numpy().tobytes() for one in model.parameters()],
        [one.requires_grad for one in model.parameters()],
        hooks,
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        str(np.random.get_state()),
        len(torch.overrides._get_current_function_mode_stack()),
    )


class Restless(nn.Module):
    """Draws numbers, keeps statistics, and fails where it is told to."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)
        self.act, self.drop, self.rrelu = nn.ReLU(inplace=True), nn.Dropout(), nn.RReLU()
        self.fails = False
        self.runs = 0

    def forward(self, x):
        x = self.act(self.norm(self.a(x)))
        x = F.silu(self.rrelu(self.drop(x))) + random.random() + np.random.rand()
        self.runs += 1
        if self.fails and self.runs > 2:
            raise ArithmeticError("this model fails")
        return self.b(x)


@pytest.mark.parametrize("loss", [None, "cross_entropy"])
def test_t30_nothing_remains(loss):
    model = Restless().train()
    model(gaussian(5, 8)).sum().backward()
    model.drop.eval()
    before = everything_of(model)
    unit_health(model, [(gaussian(20, 8), torch.zeros(20, dtype=torch.long))] * 2, loss)
    assert everything_of(model) == before


def test_t30_nothing_remains_of_an_error():
    model = Restless().train()
    model(gaussian(5, 8)).sum().backward()
    before = everything_of(model)

    def loader():
        yield gaussian(20, 8)
        raise OSError("the disk is gone")

    with pytest.raises(DataError, match="the loader failed after 1 batches: OSError: the disk is gone"):
        unit_health(model, loader())
    assert everything_of(model) == before
    model.fails, model.runs = True, 0
    before = everything_of(model)
    with pytest.raises(ArithmeticError, match="this model fails"):
        unit_health(model, [gaussian(20, 8)] * 3, samples=60)
    assert everything_of(model) == before


def summary_of(model, batches, loss=None):
    return {
        site.name: (
            {name: None if one is None else one.share for name, one in site.states.items()},
            site.firing.tolist(),
            site.units_in("dead"),
            site.to_dict()["gradient"],
        )
        for site in unit_health(model, batches, loss).sites
    }


def assert_alike(first, second):
    assert set(first) == set(second)
    for name in first:
        assert first[name][0] == second[name][0]
        assert_close(first[name][1], second[name][1], rtol=0, atol=1e-12)
        assert_close(first[name][3], second[name][3], rtol=1e-5, atol=1e-8)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 39), st.sampled_from([0.25, 4.0]))
def test_t32_what_must_not_change_the_states(seed, cut, scale):
    with restored(nn.Identity()):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 4))
        with torch.no_grad():
            model[0].bias[:3] -= 2.0
        x, y = torch.randn(40, 8), torch.randint(0, 4, (40,))
        found = summary_of(model, [(x, y)], "cross_entropy")
        # The same data twice, in other batches, in another order.
        assert_alike(found, summary_of(model, [(x, y), (x, y)], "cross_entropy"))
        parts = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
        assert_alike(found, summary_of(model, parts, "cross_entropy"))
        assert_alike(found, summary_of(model, parts[::-1], "cross_entropy"))
        # A ReLU does not mind the scale of its weights.
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[0].weight *= scale
            other[0].bias *= scale
        mine, its = found["1"], summary_of(other, [(x, y)])["1"]
        for name in ("silent", "dead", "constant", "linear", "saturated", "dormant"):
            assert mine[0][name] == its[0][name]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_model_is_measured_with_gradients(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.block = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(checkpoint(self.block, self.first(x), use_reentrant=reentrant))

    site = unit_health(Checkpointed(), [(gaussian(30, 8), torch.zeros(30, dtype=torch.long))], "cross_entropy")[
        "block.1"
    ]
    assert (site.sums.n, site.sums.gradients) == (30, 30)


def test_bad_limits_are_refused():
    for options, sentence in (
        ({"dormant": -0.1}, "dormant must be a number between 0 and 1, got -0.1"),
        ({"saturated": "all"}, "saturated must be a number between 0 and 1, got 'all'"),
    ):
        with pytest.raises(sk.UsageError, match=sentence):
            unit_health(nn.Sequential(nn.ReLU()), [gaussian(3, 2)], **options)
    with pytest.raises(KeyError, match="no site is named 'nope'; there are 1"):
        unit_health(layer(3, nn.ReLU()), [gaussian(3, 8)])["nope"]


def test_units_without_a_finite_value_are_in_no_state_of_values():
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight[2] = math.nan
        model[0].weight[4] = 0.0
    target = torch.zeros(20, dtype=torch.long)
    states = unit_health(model, [(gaussian(20, 8), target)], "cross_entropy")["1"]
    assert states.units_in("constant") == (4,)
    assert 2 not in states.units_in("dormant")
    # The loss is not finite, nor any gradient.
    assert states.units_in("gradient_dormant") == ()


def test_one_value_of_each_unit_shows_nothing_constant():
    site = unit_health(scaled(8, nn.Tanh(), 1.0), [gaussian(1, 8)])["1"]
    assert site.states["constant"] is None
    assert any("whether it varies" in note for note in site.notes)
    assert unit_health(scaled(8, nn.Tanh(), 1.0), [gaussian(2, 8)])["1"].states["constant"].count == 0
