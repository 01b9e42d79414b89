"""Tiny searches whose outcome is known, and one that is slow enough to be killed."""

from __future__ import annotations

import json
import re
import time

import torch
from torch import nn
from torch.nn import functional as F

from softknee._search.search import search
from softknee._search.space import Space

# Squares are in it, which no baseline has.
SQUARES = Space(unary=("identity", "negate", "square", "abs", "max0", "tanh"), binary=("left", "add", "max"), cores=1)
EPOCHS = 4


def batches(target, rows, seed):
    """Return batches of 32 rows of two normal inputs with their target."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=generator)
    return [*zip(x.split(32), target(x, generator).split(32), strict=True)]


def squares(x, generator):
    return x.square().sum(1, keepdim=True).clamp(max=10)


def noise(x, generator):
    return torch.randn(len(x), 1, generator=generator)


def make_model():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))


def train_step(model, batch):
    x, y = batch
    return F.mse_loss(model(x), y)


def slow_step(model, batch):
    time.sleep(0.003)
    return train_step(model, batch)


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-2)


def arguments(target=squares, **changes):
    """Return what `search` and `Search` are called with."""
    return {
        "make_model": make_model,
        "train_step": train_step,
        "train_batches": batches(target, 256, 0),
        "val_batches": batches(target, 128, 1),
        "test_batches": batches(target, 256, 2),
        "optimizer": adam,
        "epochs": EPOCHS,
        "space": SQUARES,
        "baselines": ("relu", "gelu"),
        "budget": 18.0,
        **changes,
    }


def slow_search(folder, method):
    search(**arguments(train_step=slow_step), method=method, out=folder)


def told(result):
    """All that a result says but how long things took."""
    rows = json.dumps([row.to_json([*result.best.sites]) for row in result.table])
    timeless = re.sub(r'"seconds": [0-9.e+-]+', '"seconds": 0', rows)
    phases = [(phase.name, phase.runs) for phase in result.cost.phases]
    return {
        "table": json.loads(timeless),
        "phases": phases,
        "verdict": result.verdict,
        "best": result.best.candidate,
        "differences": result.differences,
        "notes": result.notes,
    }
