"""Activations of every kind at the places of both models."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._bench.activations import units_before
from softknee._bench.model import activation_sites, build_model, count_costs, match_gains, site_engines, site_gains
from softknee._bench.protocol import Recipe
from softknee._catalogue import parse_choice
from softknee._errors import UsageError

MLP = Recipe(widths=(12, 8, 24, 3))
CNN = Recipe(model="cnn", widths=(64, 8, 16, 3))
# How many units make one.
RATIOS = {
    "relu": 1, "rational": 1, "maxout": 2, "maxout[group=3]": 3, "crelu": 0.5, "swiglu": 2, "bilinear": 2,
    "group_sort[group=4]": 1, "gdn": 1, "meta_acon": 1, "softmax": 1, "x*tanh(exp(x))": 1,
    "swiglu[trainable,per_channel]": 2,
}  # fmt: skip


def model_of(text, recipe, seed=0):
    return build_model(recipe, parse_choice(text), seed=seed)


@pytest.mark.parametrize("recipe", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("text", RATIOS)
def test_the_layer_before_is_as_wide_as_the_activation_takes(text, recipe):
    """Whatever comes out has the recipe's width, so the layers behind are the same for all."""
    model, plain = model_of(text, recipe), model_of("relu", recipe)
    widths = recipe.widths[1:-1]
    layers = [layer for layer in model if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert [len(layer.weight) for layer in layers] == [*(RATIOS[text] * width for width in widths), 3]
    inputs = [layer.weight.shape[1] for layer in layers]
    assert inputs == [layer.weight.shape[1] for layer in plain if isinstance(layer, nn.Linear | nn.Conv2d)]
    x = torch.randn(5, recipe.widths[0])
    model(x).square().sum().backward()
    assert model(x).shape == (5, 3)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_network_inside_of_an_activation_takes_nothing_from_the_weights_stream():
    state = torch.get_rng_state()
    first, other, plain = model_of("meta_acon", MLP), model_of("meta_acon", MLP, seed=1), model_of("relu", MLP)
    assert torch.equal(torch.get_rng_state(), state)
    for index in range(3):
        name = f"linear_{index}.weight"
        assert torch.equal(first.get_parameter(name), plain.get_parameter(name))
    assert not torch.equal(first.activation_0.fc1.weight, other.activation_0.fc1.weight)
    assert not torch.equal(first.activation_0.fc1.weight[:, :8], first.activation_1.fc1.weight[:, :8])
    again = model_of("meta_acon", MLP)
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_width_that_cannot_be_made_is_refused():
    assert units_before(parse_choice("crelu"), 10) == 5
    with pytest.raises(UsageError, match="it makes 2 of every 1 units, and so never 5"):
        units_before(parse_choice("crelu"), 5)


def test_an_activation_for_images_alone_does_not_fit_the_perceptron_and_fits_the_cnn():
    assert model_of("frelu", CNN)(torch.zeros(2, 64)).shape == (2, 3)
    with pytest.raises(UsageError, match="FReLU with spatial=2 takes inputs of 4 dimensions"):
        model_of("frelu", MLP)(torch.zeros(2, 12))


def test_the_cnn_is_convolutions_maxima_and_a_linear_layer_with_parameters_by_channel():
    model = model_of("prelu[per_channel]", CNN)
    slopes = [torch.rand(8), torch.rand(16)]
    with torch.no_grad():
        model.activation_0.slope.copy_(slopes[0])
        model.activation_1.slope.copy_(slopes[1])
    x = torch.randn(3, 64)
    y = x.view(3, 1, 8, 8)
    for layer, slope in zip((model.convolution_0, model.convolution_1), slopes, strict=True):
        y = F.conv2d(y, layer.weight, layer.bias, padding=1)
        y = torch.where(y > 0, y, slope.view(1, -1, 1, 1) * y)
        y = y.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    expected = y.flatten(1) @ model.linear_2.weight.T + model.linear_2.bias
    torch.testing.assert_close(model(x), expected)


def test_costs_of_the_cnn_are_those_counted_by_hand():
    costs = count_costs(model_of("prelu", CNN), shape=(64,))
    assert costs["multiply_adds"] == 64 * 9 * 8 + 16 * 9 * 8 * 16 + 4 * 16 * 3
    assert costs["activation_inputs"] == 64 * 8 + 16 * 16
    assert costs["parameters"] == (9 + 1) * 8 + (9 * 8 + 1) * 16 + (4 * 16 + 1) * 3 + 2
    assert costs["activation_parameters"] == 2
    assert costs["activation_price"] > 0


def test_layers_inside_of_activations_count_and_what_nobody_counts_has_no_price():
    acon, plain = (count_costs(model_of(text, MLP), shape=(12,)) for text in ("meta_acon", "relu"))
    inside = 2 * 8 * 16 + 2 * 24 * 16  # two layers with 16 units between them, at each place
    assert acon["multiply_adds"] == plain["multiply_adds"] + inside
    assert acon["activation_price"] is None


def test_a_gated_pair_is_priced_by_its_outputs():
    gated, plain = (count_costs(model_of(text, MLP), shape=(12,)) for text in ("swiglu", "relu"))
    assert gated["activation_inputs"] == 2 * plain["activation_inputs"]
    price = model_of("swiglu", MLP).activation_0._plans[0].price
    assert gated["activation_price"] == price * (8 + 24)


def test_one_instance_for_all_is_met_at_every_place():
    shared = Recipe(widths=(12, 8, 8, 3), shared_activation=True)
    model = model_of("prelu", shared)
    assert list(activation_sites(model)) == ["activation_0"]
    assert count_costs(model, shape=(12,))["activation_inputs"] == 16
    assert site_engines(model, batch_size=4, shape=(12,)).keys() == {"activation_0"}


def test_only_functions_of_single_elements_have_gains():
    assert site_gains(model_of("maxout", MLP)) == {}
    with pytest.raises(UsageError, match="no forward gain: it is no function of single elements"):
        match_gains(model_of("maxout", MLP), input_square=1.0, seed=0)


def test_engines_are_named_for_the_tensors_that_come():
    model = model_of("relu", CNN)
    seen = {}
    for name, site in activation_sites(model).items():
        site.register_forward_hook(lambda s, given, _, name=name: seen.update({name: s.engine_for(given[0])}))
    model(torch.zeros(100, 64))
    met = dict(seen)  # counting, too, runs the model
    assert site_engines(model, batch_size=100, shape=(64,)) == met
    assert set(site_engines(model_of("maxout", CNN), batch_size=9, shape=(64,)).values()) == {"eager"}
