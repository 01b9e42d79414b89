"""States of units: closed forms, and the traps of other tools."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from unit_models import gaussian, layer, scaled

import softknee as sk
from softknee._diagnose.flow.born_dead import born_dead
from softknee._diagnose.units.health import unit_health
from softknee._diagnose.units.states import Limits, masks
from softknee._diagnose.units.sums import Sums
from softknee._errors import UsageError


def states_of(model, x, **options):
    (site,) = unit_health(model, [x], **options).sites
    return {name: None if one is None else one.count for name, one in site.states.items()}


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
    exact = born_dead([width] * depth)
    assert_close(exact, 0.48709, rtol=1e-5, atol=0)
    assert abs(1 - alive.double().mean().item() - exact) < 4 * math.sqrt(exact * (1 - exact) / nets)


def test_wide_layers_are_hardly_ever_born_dead():
    assert_close(born_dead([100, 200, 100]), 2 * 2.0**-100, rtol=1e-12, atol=0)
    assert born_dead([]) == 0
    assert born_dead([10_000]) == 0


@pytest.mark.parametrize("widths", [[3, 0], [2.5], [-1]])
def test_widths_are_numbers_of_units(widths):
    with pytest.raises(UsageError, match="widths must be positive whole numbers, got"):
        born_dead(widths)


@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_t15_units_that_were_killed_are_dead_and_silent(k):
    model = layer(12, nn.ReLU())
    with torch.no_grad():
        model[0].bias[:k] = -1e4
    site = unit_health(model, [gaussian(256, 8)])["1"]
    assert site.units_in("dead") == site.units_in("silent") == tuple(range(k))
    assert site.states["dead"].n == 256
    assert_close(site.states["dead"].bound, 1 - 0.05 ** (1 / 256))


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
