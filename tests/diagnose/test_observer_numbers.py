"""What is observed of activations, against float64 references."""

from __future__ import annotations

import pytest
import torch
from observing import health_of, layer, observed, observer_of, taken
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee._diagnose.units.histogram import EDGES


@pytest.mark.parametrize(
    ("activation", "bias", "share"),
    [
        (nn.ReLU(), -1e4, 3 / 12),
        (nn.ReLU(inplace=True), -1e4, 3 / 12),
        (sk.nn.ReLU(), -1e4, 3 / 12),
        (sk.create("max(x, 0)"), -1e4, 3 / 12),
        # In float32 nothing comes through below -6.2, or -104.
        (nn.GELU(), -50.0, 3 / 12),
        (nn.SiLU(), -50.0, 0.0),
        (nn.SiLU(), -1e4, 3 / 12),
        (nn.LeakyReLU(), -1e4, 0.0),
        # Stuck at -1 is not silent, but nothing flows back.
        (nn.Tanh(), -1e4, 3 / 12),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_units_that_were_killed_are_dead(activation, bias, share, values):
    """T15, for several activations."""
    model = layer(12, [1, 5, 7], activation, bias)
    health = observed(model, torch.randn(64, 8), activation, values=values)["1"]
    assert (health.units, health.samples, health.dead) == (12, 64, share)


def test_a_unit_whose_outputs_are_zero_lives_if_its_slope_is_not():
    health = health_of(nn.Tanh(), torch.zeros(5, 3))
    assert (health.zero, health.dead) == (1.0, 0.0)


def test_a_unit_that_fires_once_lives():
    x = -torch.ones(100, 4)
    x[17, 2] = 1.0
    health = health_of(nn.ReLU(), x)
    assert health.dead == 3 / 4
    assert health.zero == 399 / 400


@pytest.mark.parametrize(
    ("shape", "units"),
    [((), 1), ((7,), 1), ((7, 3), 3), ((2, 5, 3), 3), ((2, 3, 4, 5), 3), ((2, 3, 2, 4, 5), 3), ((1, 3, 1, 2, 1, 2), 3)],
)
def test_units_are_channels_or_the_last_dimension(shape, units, values):
    health = health_of(nn.ReLU(), -torch.ones(shape), values)
    assert (health.units, health.dead) == (units, 1.0)
    assert health.units * health.samples == torch.Size(shape).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_numbers_agree_with_a_reference(dtype, values):
    x = (torch.randn(50, 40) * 4).to(dtype)
    health = health_of(nn.ReLU(), x, values)
    outputs = x.relu().double()
    assert health.zero == (outputs == 0).double().mean().item()
    assert_close(health.mean, outputs.mean().item(), rtol=1e-6, atol=0)
    assert_close(health.std, outputs.std(correction=0).item(), rtol=1e-6, atol=0)
    inputs = health.inputs
    assert_close(inputs.total, x.double().sum().item(), rtol=1e-5, atol=1e-4)
    assert_close(inputs.total_squares, x.double().square().sum().item(), rtol=1e-6, atol=0)
    assert (inputs.minimum, inputs.maximum, inputs.count) == (x.min().item(), x.max().item(), x.numel())
    expected = torch.histogram(x.double().flatten(), torch.tensor(EDGES, dtype=torch.float64)).hist
    assert inputs.counts[1:-1] == tuple(expected.int().tolist())


def test_t29_small_deviations_from_a_large_mean_are_seen():
    x = torch.randn(4096, 4, dtype=torch.float64) + 1e4
    assert_close(health_of(nn.ReLU(), x.float()).std, x.float().double().std(correction=0).item(), rtol=1e-6, atol=0)


def test_what_is_not_finite_is_counted_and_left_out(values):
    x = torch.tensor([[1.0, torch.nan], [3.0, torch.inf], [-torch.inf, 5.0]])
    health = health_of(nn.Softsign(), x, values)
    # Softsign of an infinite number is not a number.
    assert health.nonfinite == 3 / 6
    assert_close(health.mean, (1 / 2 + 3 / 4 + 5 / 6) / 3)
    assert (health.inputs.count, health.inputs.minimum, health.inputs.maximum) == (3, 1.0, 5.0)


def test_values_beyond_the_edges_and_on_them_are_counted():
    x = torch.tensor([-1e30, EDGES[0], 0.0, -0.0, EDGES[-1], 1e30])
    counts = health_of(nn.ReLU(), x).inputs.counts
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (1, 1, 2, 6)
    assert counts[1 + EDGES.index(0.0)] == 2


def test_histograms_of_parts_add_up_to_that_of_the_whole():
    x = torch.randn(60, 3)
    parts = [health_of(nn.ReLU(), part).inputs for part in x.split(17)]
    whole = health_of(nn.ReLU(), x).inputs
    added = sum(parts[1:], parts[0])
    assert added.counts == whole.counts
    assert (added.minimum, added.maximum) == (whole.minimum, whole.maximum)
    assert_close((added.total, added.total_squares), (whole.total, whole.total_squares), rtol=1e-6, atol=1e-4)


def test_batches_of_one_step_are_as_one_batch(values):
    x = torch.randn(64, 8)
    activation = nn.ReLU()
    model = layer(12, [3], activation)
    observer = observer_of(model, activation, values=values)
    for part in x.split(10):
        observer.attach()
        model(part)
    observer.detach()
    (together,), (whole,) = taken(observer).values(), observed(model, x, activation).values()
    assert (together.samples, together.dead, together.zero, together.inputs.counts) == (
        whole.samples,
        whole.dead,
        whole.zero,
        whole.inputs.counts,
    )
    assert_close((together.mean, together.std), (whole.mean, whole.std), rtol=1e-6, atol=1e-7)
    assert taken(observer) == {}


def test_an_input_that_is_overwritten_was_seen_before(values):
    x = torch.randn(30, 4)
    assert health_of(nn.ELU(inplace=True), x.clone(), values) == health_of(nn.ELU(), x)


def test_outputs_of_another_shape_have_no_slopes_and_units_of_their_own(values):
    found = health_of(nn.GLU(), torch.randn(9, 8), values)
    assert (found.units, found.samples, found.dead, found.inputs.count) == (4, 9, None, 72)
