from __future__ import annotations

import pytest
import torch
from torch import nn

from softknee._bench.resnet import build_resnet20
from softknee._catalogue import create

SITES = [16] * 7 + [32] * 6 + [64] * 6


def relu(channels):
    return nn.ReLU()


def layers_of(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def test_it_is_the_published_model():
    model, sizes = build_resnet20(relu, seed=0), []
    for layer in layers_of(model, (nn.Conv2d, nn.Linear)):
        layer.register_forward_hook(lambda layer, inputs, y: sizes.append(layer.weight.numel() * y[0, 0].numel()))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_474
    assert sum(sizes) == pytest.approx(40.8e6, abs=0.05e6)
    assert build_resnet20(relu, seed=0, classes=100)(torch.randn(2, 3, 32, 32)).shape == (2, 100)


def test_every_site_has_a_new_activation_made_for_its_channels():
    made, seen = [], []

    def make(channels):
        made.append(create("prelu", per_channel=channels))
        made[-1].register_forward_hook(lambda module, inputs, y: seen.append((module, inputs[0].shape)))
        return made[-1]

    model = build_resnet20(make, seed=0)
    assert [module.per_channel for module in made] == SITES
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_474 + sum(SITES)
    model(torch.randn(2, 3, 32, 32))
    # Each is used once, where it was made for.
    assert [module for module, _ in seen] == made
    assert [shape[1:] for _, shape in seen] == [(c, 512 // c, 512 // c) for c in SITES]


def test_the_same_seed_gives_the_same_weights_whatever_the_activation():
    def staf(channels):
        return create("staf", per_channel=channels)

    plain, other, again = (build_resnet20(make, seed=seed) for make, seed in ((relu, 3), (staf, 3), (relu, 4)))
    for ours, theirs, changed in zip(
        *(layers_of(m, (nn.Conv2d, nn.Linear)) for m in (plain, other, again)), strict=True
    ):
        assert torch.equal(ours.weight, theirs.weight)
        assert not torch.equal(ours.weight, changed.weight)


def test_weights_are_kaiming_normal_and_norms_neutral():
    model = build_resnet20(relu, seed=1)
    for layer in layers_of(model, nn.Conv2d):
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        # Five standard errors of a standard deviation.
        assert layer.weight.std().item() == pytest.approx(
            (2 / fan_out) ** 0.5, rel=5 / (2 * layer.weight.numel()) ** 0.5
        )
        assert layer.bias is None
    assert model.classifier.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.15)
    assert (model.classifier.bias == 0).all()
    for norm in layers_of(model, nn.BatchNorm2d):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_the_weights_of_activations_are_left_alone():
    """Those with layers of their own keep what their constructor gave them."""

    def make(channels):
        layer = nn.Conv2d(channels, channels, 1)
        nn.init.constant_(layer.weight, 0.5)
        return layer

    inner = [layer for name, layer in build_resnet20(make, seed=0).named_modules() if "activation" in name]
    assert len(inner) == len(SITES)
    assert all((layer.weight == 0.5).all() for layer in inner)


def test_building_leaves_the_callers_random_state_alone():
    state = torch.get_rng_state()
    build_resnet20(relu, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_reach_every_parameter():
    model = build_resnet20(lambda channels: create("swish"), seed=0)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
