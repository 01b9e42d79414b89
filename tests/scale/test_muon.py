"""Muon for the matrices of a model, AdamW for all else."""

from __future__ import annotations

import pytest
import torch
from networks import WORLD, whole
from torch import nn

import softknee as sk
from softknee.nn.groups import matrix_parameters

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs a PyTorch with Muon")


class Model(nn.Module):
    """All kinds of parameters with two dimensions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.tokens = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 16)
        self.act = sk.create("rational", per_channel=16, channel_dim=-1)
        self.down = nn.Linear(16, 8)
        self.last = sk.create("gdn", channels=8, dim=-1)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens):
        return self.head(self.last(self.down(self.act(self.up(self.tokens(tokens))))))


def loss_of(model, tokens):
    return nn.functional.cross_entropy(model(tokens).flatten(0, -2), tokens.flatten())


def optimizers_of(model):
    matrices = matrix_parameters(model)
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1),
        torch.optim.AdamW(sk.parameter_groups(model, 0.1, exclude=matrices), lr=0.01),
    ]


def train(model, parts, steps=3):
    optimizers = optimizers_of(model)
    for _ in range(steps):
        loss_of(model, parts).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def tokens():
    return torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(2))


def test_each_parameter_has_one_optimizer_and_muon_has_the_matrices():
    model = Model()
    muon, adamw = optimizers_of(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owned = [[names[id(one)] for group in each.param_groups for one in group["params"]] for each in (muon, adamw)]
    assert sorted(owned[0]) == ["down.weight", "up.weight"]
    assert model.act.numerator.dim() == model.last.gamma.dim() == 2
    assert sorted(owned[0] + owned[1]) == sorted(names.values())
    undecayed = [names[id(one)] for group in adamw.param_groups if not group["weight_decay"] for one in group["params"]]
    assert sorted(undecayed) == ["act.denominator", "act.numerator", "last.beta", "last.gamma"]


def test_both_train_the_model():
    model = Model()
    start = {name: parameter.clone() for name, parameter in model.named_parameters()}
    before = float(loss_of(model, tokens()))
    train(model, tokens(), steps=20)
    assert float(loss_of(model, tokens())) < 0.8 * before
    assert not any(torch.equal(parameter, start[name]) for name, parameter in model.named_parameters())


def fully_sharded(model):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model)


def check_two_processes(rank, how):
    wanted = Model()
    train(wanted, tokens())
    model = Model()
    network = nn.parallel.DistributedDataParallel(model) if how == "ddp" else fully_sharded(model)
    train(network, tokens().chunk(WORLD)[rank])
    # Muon orthogonalizes in bfloat16, where the last digit of a gradient may decide.
    for one, other in zip(model.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(whole(one.detach()), other.detach(), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_train_as_one(pair, how):
    pair(check_two_processes, how)
