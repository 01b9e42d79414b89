from __future__ import annotations

import pytest
import torch
from torch import nn

from softknee._bench.mobilenet import build_mobilenet_v2
from softknee._bench.vgg import build_vgg16_bn
from softknee._catalogue import create

# Parameters, million multiplications, channels of all places, logits: as published with the protocol.
PUBLISHED = {
    build_vgg16_bn: (15_032_868, 313.5, (14, 4736), 100),
    build_mobilenet_v2: (2_236_682, 88.0, (35, 15_552), 10),
}


@pytest.mark.parametrize("build", PUBLISHED)
def test_it_is_the_published_model(build):
    parameters, products, (places, channels), classes = PUBLISHED[build]
    widths, sizes = [], []

    def make(width):
        widths.append(width)
        return nn.ReLU()

    model = build(make, seed=0).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, _, y: sizes.append(layer.weight.numel() * y[0, 0].numel()))
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(sizes) == pytest.approx(products * 1e6, abs=0.05e6)
    assert (len(widths), sum(widths)) == (places, channels)


@pytest.mark.parametrize("build", PUBLISHED)
def test_activations_fit_their_places_and_weights_depend_on_the_seed_alone(build):
    state = torch.get_rng_state()
    model = build(lambda width: create("prelu", per_channel=width), seed=3)
    plain, other = build(lambda _: nn.ReLU(), seed=3), build(lambda _: nn.ReLU(), seed=4)
    assert torch.equal(state, torch.get_rng_state())
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    weights = [name for name, parameter in plain.named_parameters() if parameter.dim() > 1]
    for name in weights:
        assert torch.equal(plain.get_parameter(name), model.get_parameter(name))
        assert not torch.equal(plain.get_parameter(name), other.get_parameter(name))
