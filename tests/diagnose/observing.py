"""Observers of single activations, and what they have seen, in plain numbers."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.units.fused import collected, to_cpu
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import Target
from softknee._diagnose.units.states import has_slopes, histogram, moments


def observer_of(model, *modules, **options):
    targets = [Target(name, module, module) for name, module in model.named_modules() if module in modules]
    return Observer(model, targets, **options)


def taken(observer):
    return {name: plain(sums) for name, sums in collected(to_cpu(observer.take())).items()}


def plain(sums):
    outputs = moments(sums, "h")
    return SimpleNamespace(
        units=sums.units,
        samples=sums.n,
        dead=int((sums.parts["slope_counts"][0] == sums.slopes).sum()) / sums.units if has_slopes(sums) else None,
        zero=int(sums.parts["h_counts"][1].sum()) / (sums.n * sums.units),
        nonfinite=int(sums.parts["h_counts"][0].sum()) / (sums.n * sums.units),
        mean=outputs.mean,
        std=outputs.std,
        inputs=histogram(sums),
    )


def observed(model, x, *modules, values=None):
    observer = observer_of(model, *modules, values=values)
    observer.attach()
    try:
        model(x)
    finally:
        observer.detach()
    return taken(observer)


def health_of(activation, x, values=None):
    (health,) = observed(nn.Sequential(activation), x, activation, values=values).values()
    return health


def layer(units, killed, activation, bias=-1e4):
    linear = nn.Linear(8, units)
    with torch.no_grad():
        linear.bias[killed] = bias
    return nn.Sequential(linear, activation)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.block = layer(6, [0, 1], sk.nn.Swish())

    def forward(self, x):
        if self.reentrant is None:
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.reentrant)
