"""Models of a few lines, for tests."""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn import functional as F


class Written(nn.Module):
    """A module whose forward is a function of it and its inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def numbers(*shape, seed=0):
    """Normal numbers, the same ones each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(fan_in, fan_out, seed=0):
    """A linear layer with the same weights each time."""
    layer = nn.Linear(fan_in, fan_out)
    with torch.no_grad():
        layer.weight.copy_(numbers(fan_out, fan_in, seed=seed) / fan_in**0.5)
        layer.bias.copy_(numbers(fan_out, seed=seed + 1) / 10)
    return layer


def seen(sites):
    """What matters most of each site."""
    return [(site.path, site.call, site.kind, site.role, site.how) for site in sites]


def kinds(sites):
    return [site.kind for site in sites]


def gradients(model, *inputs):
    """Output, and gradients by all parameters and inputs, of a loss that weights outputs unevenly."""
    inputs = [one.detach().clone().requires_grad_() if one.is_floating_point() else one for one in inputs]
    wanted = [one for one in inputs if one.requires_grad]
    trained = [one for one in model.parameters() if one.requires_grad]
    output = model(*inputs)
    weights = torch.arange(output.numel(), dtype=output.dtype).view_as(output).cos()
    for one in trained:
        one.grad = None
    # Not by torch.autograd.grad, which reentrant checkpoints refuse.
    (output * weights).sum().backward()
    return output.detach(), *(one.grad for one in (*wanted, *trained))


def state(model):
    """Everything of a model that must not change: bytes, modes, gradients, classes, hooks, attributes."""
    return [
        (
            path,
            type(module),
            module.training,
            [
                (name, bytes_of(one), one is not None and (bytes_of(one.grad), one.requires_grad))
                for name, one in module._parameters.items()
            ],
            [(name, bytes_of(one)) for name, one in module._buffers.items()],
            [list(hooks) for name, hooks in sorted(vars(module).items()) if name.endswith("_hooks")],
            sorted(vars(module)),
            [(name, id(child)) for name, child in module._modules.items()],
        )
        for path, module in model.named_modules(remove_duplicate=False)
    ]


def bytes_of(tensor):
    return None if tensor is None else tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def block(first=F.relu, second=F.gelu, gate=torch.sigmoid):
    """A module with functions, a gate and a module."""

    def forward(s, x):
        h = first(s.layer(x))
        return s.act(s.out(h)) * gate(s.gate(x)) + second(h)

    return Written(forward, layer=linear(4, 4), out=linear(4, 4, 2), gate=linear(4, 4, 4), act=nn.Tanh())


def network(act=nn.SiLU, **functions):
    """Two blocks, an activation, a softmax and an output."""
    blocks = nn.ModuleList(block(**functions) for _ in range(2))

    def forward(s, x):
        for one in s.blocks:
            x = one(x)
        return torch.softmax(s.head(s.act(x)), -1).sigmoid()

    return Written(forward, blocks=blocks, act=act(), head=linear(4, 3))


# The example.
X = numbers(6, 4, seed=9)


def same(model, wanted):
    """Check that two models have the same values and gradients."""
    for one, other in zip(gradients(model, X), gradients(wanted, X), strict=True):
        torch.testing.assert_close(one, other)


def title(value):
    """The name of a case, the same in every process: functions are shown without their addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))[:50]
