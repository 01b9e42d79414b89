"""A tiny regression to search for."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from softknee._search.candidate import Candidate, Function
from softknee._search.task import Task

EPOCHS = 3


def data(rows, seed):
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, torch.sin(2 * x).sum(1, keepdim=True))


def make_model(dropout=0.1):
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))


def train_step(model, batch):
    x, y = batch
    return F.mse_loss(model(x), y)


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-2)


def loader(rows, seed):
    return DataLoader(data(rows, seed), batch_size=16, shuffle=True)


def task(**changes):
    given = {
        "make_model": make_model,
        "train_step": train_step,
        "train_batches": loader(80, 0),
        "val_batches": loader(32, 1),
        "test_batches": loader(48, 2),
        "optimizer": adam,
        "epochs": EPOCHS,
    }
    return Task(**{**given, **changes})


def candidate(text="tanh", *, groups=1, **constants):
    return Candidate((Function(text, tuple(constants.items()), trained=bool(constants)),) * groups, "asked")
