"""A small network with data of its own, and trials of it that take a few steps."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.task import Batch
from softknee._diagnose.trial.data import Data
from softknee._diagnose.trial.run import Trainer
from softknee._diagnose.trial.trial import trial

WIDTHS = (6, 16, 16, 3)


def mlp(activation=nn.ReLU, widths=WIDTHS):
    layers = [(nn.Linear(inputs, outputs), activation()) for inputs, outputs in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain.from_iterable(layers)).__getitem__(slice(0, -1))


def samples(count=240):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 6, generator=generator)
    return x, (x[:, :3] + 0.3 * torch.randn(count, 3, generator=generator)).argmax(1)


def loader(count=240, size=16):
    x, y = samples(count)
    return list(zip(x.split(size), y.split(size), strict=True))


def quick(make=mlp, data=None, loss="cross_entropy", **options):
    usual_ones = {"lr": 0.1, "steps": 6, "candidates": ["tanh"], "rates": (1.0,)}
    return trial(make, loader() if data is None else data, loss, **{**usual_ones, **options})


def trainer(make=mlp, *, from_scratch=True):
    data = Data.of([Batch((x,), {}, y, len(x)) for x, y in loader()], None, torch.Generator().manual_seed(0))
    optimizer = lambda parameters, rate: torch.optim.SGD(parameters, lr=rate)  # noqa: E731
    return Trainer(make, data, F.cross_entropy, optimizer, "accuracy", 0, from_scratch)


def linear(model):
    return [layer for layer in model if isinstance(layer, nn.Linear)]
