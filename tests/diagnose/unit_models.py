"""Models of one layer whose units are known, and their inputs."""

from __future__ import annotations

import torch
from torch import nn


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


def gaussian(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
