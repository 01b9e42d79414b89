"""Distributed data parallel: each process has half of the batch."""

from __future__ import annotations

import pytest
import torch
from networks import CASES, WORLD, Network, assert_same, assert_trains_as, loss_of
from torch import distributed, nn

import softknee as sk


def check_step(rank, case):
    assert_trains_as(nn.parallel.DistributedDataParallel(Network(case)), Network(case), rank)


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_a_step_are_those_of_one_process(pair, case):
    pair(check_step, case)


def check_images(rank):
    def make():
        torch.manual_seed(1)
        act = sk.create("prelu", per_channel=5)
        return nn.Sequential(nn.Conv2d(2, 5, 3), act, nn.Flatten(), nn.Linear(5 * 36, 3))

    images = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    images = images.contiguous(memory_format=torch.channels_last)
    network, wanted = nn.parallel.DistributedDataParallel(make()), make()
    loss_of(wanted(images)).backward()
    loss_of(network(images.chunk(WORLD)[rank])).backward()
    assert_same(network, wanted)


def test_images_with_parameters_for_each_channel(pair):
    pair(check_images)


def check_shared(rank):
    """One activation at two places, gradients over two steps, and a static graph."""

    def make():
        torch.manual_seed(1)
        act = sk.create("rational")
        return nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))

    network = nn.parallel.DistributedDataParallel(make(), static_graph=True, gradient_as_bucket_view=True)
    assert_trains_as(network, make(), rank, steps=3)


def test_a_shared_activation(pair):
    pair(check_shared)


def check_noise(rank):
    """Random activations draw from each process's own generator."""
    torch.manual_seed(rank)
    x = -torch.ones(1000)
    slopes = [torch.empty(1000) for _ in range(WORLD)]
    distributed.all_gather(slopes, -sk.create("rrelu").train()(x))
    assert (slopes[0] != slopes[1]).float().mean() > 0.9


def test_noise_differs_between_processes_with_other_seeds(pair):
    pair(check_noise)
