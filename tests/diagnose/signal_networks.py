"""Networks whose weights have a chosen variance, and inputs with a chosen cosine."""

from __future__ import annotations

import torch
from torch import nn


def draw(layer, sw2, sb2=0.0):
    """Draw weights such that a layer's outputs have variance `sw2 q + sb2`."""
    nn.init.normal_(layer.weight, std=(sw2 / layer.weight[0].numel()) ** 0.5)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=sb2**0.5)
    return layer


def mlp(activation, *, width=200, depth=5, sw2=2.0, sb2=0.0, inputs=100, outputs=50):
    layers = []
    for place in range(depth):
        layers += [draw(nn.Linear(inputs if place == 0 else width, width), sw2, sb2), activation()]
    return nn.Sequential(*layers, draw(nn.Linear(width, outputs), sw2, sb2))


def samples(count=100, features=100, *, seed=1, cosine=0.0):
    generator = torch.Generator().manual_seed(seed)
    own, common = torch.randn(count, features, generator=generator), torch.randn(features, generator=generator)
    return (1 - cosine) ** 0.5 * own + cosine**0.5 * common
