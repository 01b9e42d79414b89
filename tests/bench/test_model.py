from __future__ import annotations

import pytest
import torch
from torch import nn

from softknee._bench.model import activation_sites, build_mlp, count_costs, match_gains, site_gains
from softknee._bench.protocol import Recipe
from softknee._bench.streams import Stream, stream_seed
from softknee._catalogue import parse_choice

RECIPE = Recipe()
SHARED = Recipe(shared_activation=True)


def mlp(text, *, recipe=RECIPE, seed=0):
    return build_mlp(recipe, parse_choice(text), seed=seed)


def test_parameters_and_multiply_adds_are_those_of_the_published_model():
    relu = count_costs(mlp("relu"), shape=(784,))
    assert relu.pop("activation_price") > 0
    assert relu == {
        "parameters": 283_914,
        "activation_parameters": 0,
        "multiply_adds": 784 * 256 + 256 * 192 + 192 * 128 + 128 * 64 + 64 * 10,
        "activation_inputs": 256 + 192 + 128 + 64,
    }
    for text, recipe, parameters in (
        ("prelu", RECIPE, 4),
        ("prelu", SHARED, 1),
        ("prelu[per_channel]", RECIPE, 256 + 192 + 128 + 64),
    ):
        assert count_costs(mlp(text, recipe=recipe), shape=(784,))["activation_parameters"] == parameters


def test_default_initialization_is_pytorchs_own():
    """Exactly the weights `nn.Linear` draws, one layer after the other, from the seed of the weights' stream."""
    torch.manual_seed(stream_seed(5, Stream.WEIGHTS))
    expected = [nn.Linear(a, b) for a, b in zip(RECIPE.widths[:-1], RECIPE.widths[1:], strict=True)]
    linear = [layer for layer in mlp("staf", seed=5) if isinstance(layer, nn.Linear)]
    for ours, theirs in zip(linear, expected, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)


def test_building_leaves_the_callers_random_state_alone():
    state = torch.get_rng_state()
    match_gains(mlp("staf"), input_square=0.5, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_activations_are_drawn_anew_for_each_seed_and_layer():
    first, second, other = mlp("staf"), mlp("staf"), mlp("staf", seed=1)
    assert torch.equal(first.activation_0.amplitude, second.activation_0.amplitude)
    assert not torch.equal(first.activation_0.amplitude, other.activation_0.amplitude)
    assert not torch.equal(first.activation_0.amplitude, first.activation_1.amplitude)


def test_one_instance_a_layer_or_one_for_all():
    assert len(activation_sites(mlp("prelu"))) == 4
    assert list(activation_sites(mlp("prelu", recipe=SHARED))) == ["activation_0"]


@pytest.mark.parametrize("text", ["relu", "gelu", "tanh", "swish[beta=1.5]", "prelu[per_channel]", "x*tanh(exp(x))"])
def test_matched_gain_gives_every_layer_unit_variance(text):
    """On wide layers, where the theory holds, and inputs of any scale; measured, not computed."""
    wide = Recipe(widths=(500, 1500, 1500, 1500, 10))
    model = mlp(text, recipe=wide)
    inputs = 3 * torch.randn(200, 500, generator=torch.Generator().manual_seed(1))
    match_gains(model, input_square=inputs.square().mean().item(), seed=0)
    x = inputs
    for layer in model[:-1]:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            assert x.square().mean().item() == pytest.approx(1, rel=0.15)
            assert torch.all(layer.bias == 0)


def test_matched_weights_are_the_same_draw_for_all_activations_up_to_their_scale():
    models = [mlp("relu"), mlp("tanh")]
    for model in models:
        match_gains(model, input_square=1.0, seed=3)
    ratio = models[0].linear_2.weight / models[1].linear_2.weight
    assert ratio.std() < 1e-5
    assert ratio.mean().item() == pytest.approx(1.414214 / 1.592537, rel=1e-5)


def test_gains_are_reported_by_site_and_sigmoid_has_no_valid_match():
    gains = site_gains(mlp("sigmoid"))
    assert list(gains) == [f"activation_{index}" for index in range(4)]
    assert not gains["activation_0"].valid
    assert gains["activation_0"].chi == pytest.approx(0.1528, abs=1e-4)
    assert all(site.valid for site in site_gains(mlp("relu")).values())
