"""Training through tables gives what training as written gives: a paired test of equivalence over seeds."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee import nn as sk
from softknee._bench import data
from softknee._engine.select import engine
from softknee._statistics.decisions import LEVEL
from softknee._statistics.intervals import paired_difference

SEEDS = 6
# In the unit of the scores, and at most this part of their standard deviation between seeds: what is called the same is
# far closer than two runs of one engine are.
MARGIN = 1e-4
SMALL = 0.01


def perceptron(sizes, activation):
    layers = []
    for inside, outside in pairwise(sizes):
        layers += [nn.Linear(inside, outside), activation()]
    return nn.Sequential(*layers[:-1])


def train(network, batches, loss, rate):
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for x, y in batches:
        optimizer.zero_grad()
        loss(network(x), y).backward()
        optimizer.step()
    return network.eval()


def wave(seed):
    """Regression of a wave on a line; scores are errors, negative."""
    generator = torch.Generator().manual_seed(seed)
    target = lambda x: torch.sin(3 * x) + 0.3 * torch.cos(9 * x)  # noqa: E731
    x = 2 * torch.rand(128, 1, generator=generator) - 1
    y = target(x) + 0.05 * torch.randn(128, 1, generator=generator)
    network = perceptron((1, 16, 16, 1), partial(sk.STAF, initialization="normal", generator=generator))
    train(network, [(x, y)] * 120, F.mse_loss, 5e-3)
    places = torch.linspace(-1, 1, 200)[:, None]
    with torch.no_grad():
        return -(network(places) - target(places)).abs()[:, 0]


@lru_cache
def pictures():
    """Fashion-MNIST at half its resolution, normalized."""
    found = data.load("mini")
    images = [torch.from_numpy(part.copy()).float()[:, None] for part in (found.train_images, found.test_images[:1000])]
    small = [F.avg_pool2d(part, 2).flatten(1) for part in images]
    small = [(part - small[0].mean()) / small[0].std() for part in small]
    labels = [torch.from_numpy(part.copy()).long() for part in (found.train_labels, found.test_labels[:1000])]
    return small, labels


def clothes(seed):
    """Classification of clothes; scores are log probabilities of the right class."""
    (x, test), (y, wanted) = pictures()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:2560].view(-1, 64)
    network = perceptron((196, 32, 32, 10), partial(sk.Swish, per_channel=32))
    train(network, [(x[rows], y[rows]) for rows in order], F.cross_entropy, 3e-3)
    with torch.no_grad():
        return -F.cross_entropy(network(test), wanted, reduction="none")


def clusters(seed):
    """Four Gaussian clusters in two classes on a plane; scores are log probabilities of the right class."""
    rng = np.random.default_rng(seed)

    def draw(count):
        component = rng.integers(4, size=count)
        angle = component * math.pi / 2
        x = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.45 * rng.standard_normal((count, 2))
        return torch.from_numpy(x).float(), torch.from_numpy(component % 2)

    batches = [draw(64) for _ in range(80)]
    test, wanted = draw(400)
    network = perceptron((2, 16, 16, 2), partial(sk.BSpline, generator=torch.Generator().manual_seed(seed)))
    train(network, batches, F.cross_entropy, 5e-3)
    with torch.no_grad():
        return -F.cross_entropy(network(test), wanted, reduction="none")


# With a mean score that only a network that has learned something gets.
TASKS = {"wave": (wave, -0.25), "clothes": (clothes, -1.0), "clusters": (clusters, -0.4)}


def scores(task, how, first=0):
    rows = []
    for seed in range(first, first + SEEDS):
        torch.manual_seed(seed)
        with engine(how):
            rows.append(task(seed).numpy())
    return np.stack(rows)


@pytest.mark.parametrize(("task", "learned"), TASKS.values(), ids=[*TASKS])
def test_training_through_tables_is_equivalent(task, learned):
    by_table, as_written = scores(task, "table"), scores(task, "eager")
    assert as_written.mean() > learned
    assert SMALL * as_written.mean(1).std(ddof=1) > MARGIN
    difference = paired_difference(by_table, as_written, margin=MARGIN)
    assert difference.p_equivalence < LEVEL, difference


def test_other_seeds_are_not_equivalent():
    one, other = scores(clusters, "table"), scores(clusters, "table", first=SEEDS)
    assert paired_difference(one, other, margin=MARGIN).p_equivalence > LEVEL
