"""Searched activations under distributed data parallel."""

from __future__ import annotations

import torch
from networks import FEATURES, WIDTH, WORLD, assert_same, batch, loss_of
from torch import nn

from softknee._search.mixture import Mixture


def network():
    """A network whose two sites share what decides about the function."""
    torch.manual_seed(1)
    mixture = Mixture("one-core", seed=4)
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH), mixture.site(), nn.Linear(WIDTH, WIDTH), mixture.site(), nn.Linear(WIDTH, 4)
    )


def check_mixture(rank):
    """Gradients of two steps that are added up, those of one process on the whole batch."""
    ours, wanted = nn.parallel.DistributedDataParallel(network()), network()
    for step in range(2):
        loss_of(wanted(batch())).backward()
        if step:
            loss_of(ours(batch().chunk(WORLD)[rank])).backward()
            continue
        with ours.no_sync():
            loss_of(ours(batch().chunk(WORLD)[rank])).backward()
    assert_same(ours, wanted)
    assert ours.module[1].mixture.draws == wanted[1].mixture.draws == 2


def test_a_mixture_is_trained_by_all_processes(pair):
    pair(check_mixture)
