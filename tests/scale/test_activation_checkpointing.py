"""Activation checkpointing: what is computed again in the backward pass is the same again."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from networks import CASES, Network, assert_same, batch, loss_of, reference
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

import softknee as sk


def keeps_products(_, operation, *arguments, **options):
    """Keep what matrix products give, and compute all else again."""
    kept = operation in {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


WAYS = {
    "plain": {"use_reentrant": False},
    "reentrant": {"use_reentrant": True},
    "selective": {
        "use_reentrant": False,
        "context_fn": partial(create_selective_checkpoint_contexts, keeps_products),
    },
}


@pytest.mark.parametrize("engine", ["auto", "eager", "fused"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_stay(case, way, engine):
    network = Network(case)
    # The reentrant way differentiates by nothing but inputs and what was made inside.
    x = batch().requires_grad_()
    with sk.engine(engine):
        loss_of(checkpoint(network, x, **WAYS[way])).backward()
    assert_same(network, reference(case))


def test_noise_is_drawn_again():
    """The slope that the backward pass uses is the one that the forward pass drew."""
    act = sk.create("rrelu").train()
    for way in ("plain", "reentrant"):
        x = (-torch.rand(4096)).requires_grad_()
        y = checkpoint(lambda x: 2 * act(x), x, **WAYS[way])
        y.sum().backward()
        torch.testing.assert_close(x.grad, (y / x).detach(), rtol=1e-5, atol=1e-6)
        assert x.grad.std() > 0.1


def test_a_shared_activation_in_sequence():
    torch.manual_seed(0)
    act = sk.create("rational", engine="fused")
    layers = [torch.nn.Linear(6, 6), act, torch.nn.Linear(6, 6), act]
    network = torch.nn.Sequential(*layers)
    gradients = []
    for y in (network(batch()), checkpoint_sequential(layers, 2, batch(), use_reentrant=False)):
        network.zero_grad()
        y.square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
