"""Models whose functions were replaced, in two processes."""

from __future__ import annotations

import pytest
import torch
from networks import assert_trains_as, batch
from torch import nn
from torch.nn import functional as F

import softknee as sk


class Functional(nn.Module):
    """Functions, one of them called twice through a shared module, and an expression."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.ReLU()

    def forward(self, x):
        x = self.act(self.act(self.first(x)) - 0.1)
        x = F.gelu(self.second(x))
        return self.last(x * torch.sigmoid(x))


def swapped():
    model, report = sk.swap(Functional(), "swish", example_inputs=batch(), per_channel=True)
    assert len(report.changed) == 4
    return model


def wrapped(model, how):
    if how == "DDP":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for layer in (model.first, model.second, model.last):
        fully_shard(layer)
    return fully_shard(model)


def check_steps(rank, how):
    assert_trains_as(wrapped(swapped(), how), swapped(), rank, steps=2)


@pytest.mark.parametrize("how", ["DDP", "FSDP2"])
def test_gradients_and_steps_are_those_of_one_process(pair, how):
    pair(check_steps, how)


def check_refusal(rank):
    network = nn.parallel.DistributedDataParallel(Functional())
    with pytest.raises(sk.UsageError, match="the model is wrapped in DistributedDataParallel; swap first, then wrap"):
        sk.swap(network, "swish", example_inputs=batch())


def test_what_is_wrapped_already_is_refused(pair):
    pair(check_refusal)
