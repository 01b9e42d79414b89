"""A small network, its batches, and all that a measurement of it could change."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn


def network(act=nn.ReLU, last=nn.Identity):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.BatchNorm1d(24),
        act(),
        nn.Linear(24, 16),
        act(),
        nn.Dropout(0.5),
        nn.Linear(16, 4),
        last(),
    )


def batches(count=2, size=32):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 12, generator=generator), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def state_of(model):
    """All that a measurement could change, as bytes and counts."""
    hooks = [
        (len(one._forward_hooks), len(one._forward_pre_hooks), len(one._backward_hooks), one.training)
        for one in model.modules()
    ]
    tensors = {name: one.detach().numpy().tobytes() for name, one in model.state_dict().items()}
    grads = [None if one.grad is None else one.grad.numpy().tobytes() for one in model.parameters()]
    wants = [one.requires_grad for one in model.parameters()]
    return hooks, tensors, grads, wants, sorted(vars(model))


def randomness():
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()
