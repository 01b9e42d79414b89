"""Small networks whose Hessian is computed by other means: `torch.func`, or written out."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from softknee._diagnose.task import task


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def drawn(model, seed=0, scale=0.7):
    """Give a model weights of its own, in float64."""
    generator = seeded(seed)
    model = model.double()
    with torch.no_grad():
        for one in model.parameters():
            one.copy_(torch.randn(one.shape, generator=generator, dtype=torch.float64) * scale)
    return model


def perceptron(activation, *, inputs=3, width=5, outputs=2, after=None):
    return drawn(nn.Sequential(nn.Linear(inputs, width), activation, nn.Linear(after or width, outputs)))


def sample(*, count=20, inputs=3, classes=2):
    return normal(count, inputs), torch.randint(0, classes, (count,), generator=seeded(2))


def flat(model):
    return torch.cat([one.detach().reshape(-1) for one in model.parameters()])


def function_of_parameters(model, x):
    named = dict(model.named_parameters())

    def outputs(vector):
        parts = vector.split([one.numel() for one in named.values()])
        values = {name: part.view(one.shape) for (name, one), part in zip(named.items(), parts, strict=True)}
        return functional_call(model, values, (x,))

    return outputs


def dense(model, x, y, loss=F.cross_entropy):
    """The Hessian by `torch.func.hessian`."""
    outputs = function_of_parameters(model, x)
    return torch.func.hessian(lambda vector: loss(outputs(vector), y))(flat(model))


def of_two_batches(model, x, y, loss="cross_entropy", cut=7):
    return task(model, [(x[:cut], y[:cut]), (x[cut:], y[cut:])], loss)


def matrix(operator):
    return torch.stack([operator(unit) for unit in torch.eye(operator.size, dtype=torch.float64)])
