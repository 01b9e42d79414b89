"""Networks with activations of every shape of parameters, and what one process gives for them."""

from __future__ import annotations

import torch
from torch import nn

import softknee as sk

WIDTH = 8
FEATURES = 6
BATCH = 12
WORLD = 2

# What a network's activation is: its name and options.
CASES = {
    "scalar": ("swish", {"beta": 0.7}),
    "per-channel": ("swish", {"per_channel": WIDTH}),
    "vector": ("rational", {}),
    "vector-per-channel": ("rational", {"per_channel": WIDTH}),
    "fixed-per-channel": ("elu", {"per_channel": WIDTH}),
    "table": ("bspline", {"engine": "table"}),
    "table-per-channel": ("bspline", {"engine": "table", "per_channel": WIDTH, "reach": (-4, 4)}),
    "fused": ("mish", {"engine": "fused"}),
    "gated": ("swiglu", {"trainable": True, "interleaved": True}),
    "gated-halves": ("swiglu", {"trainable": True}),
    "gated-per-channel": ("swiglu", {"trainable": True, "interleaved": True, "per_channel": WIDTH // 2}),
    "formula": ("x * sigmoid(b * x) + a", {"a": 0.1, "b": 1.5}),
}
# Only gradients of tables differ from the formula's by more than roundings.
RTOL, ATOL = 1e-4, 2e-5


def activation(case):
    """The module of a case, its parameters different in each channel."""
    name, options = CASES[case]
    torch.manual_seed(3)
    module = sk.create(name, **options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module


class Network(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, case):
        super().__init__()
        torch.manual_seed(1)
        self.up = nn.Linear(FEATURES, WIDTH)
        self.down = nn.Linear(WIDTH // 2 if case.startswith("gated") else WIDTH, 4)
        self.act = activation(case)

    def forward(self, x):
        return self.down(self.act(self.up(x)))


def batch(size=BATCH):
    """Inputs, the same in every process."""
    return 2 * torch.randn(size, FEATURES, generator=torch.Generator().manual_seed(2))


def loss_of(y):
    """A mean over samples, so that the mean over processes is the whole batch's."""
    return y.square().mean()


def reference(case, x=None):
    """A network after a backward pass in one process, through formulas as they are written."""
    network = Network(case)
    with sk.engine("eager"):
        loss_of(network(batch() if x is None else x)).backward()
    return network


def optimizer_of(network):
    """What trains it: activations without decay."""
    return torch.optim.AdamW(sk.parameter_groups(network, 0.1), lr=0.05)


def whole(tensor):
    """A tensor, or all parts of a DTensor, as a plain tensor."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def assert_same(got, wanted, rtol=RTOL, atol=ATOL):
    """Compare parameters and gradients of two networks."""
    theirs = dict(wanted.named_parameters())
    names = [name for name, _ in got.named_parameters()]
    assert sorted(name.removeprefix("module.") for name in names) == sorted(theirs)
    for name, ours in got.named_parameters():
        other = theirs[name.removeprefix("module.")]
        torch.testing.assert_close(whole(ours.detach()), other.detach(), rtol=rtol, atol=atol, msg=named(name))
        torch.testing.assert_close(whole(ours.grad), other.grad, rtol=rtol, atol=atol, msg=named(f"grad of {name}"))


def assert_trains_as(network, wanted, rank, steps=1):
    """Train a wrapped network on its part of the batch, and compare with what one process makes of the whole.

    The one process evaluates formulas as they are written.
    """
    optimizers = [optimizer_of(one) for one in (network, wanted)]
    for _ in range(steps):
        with sk.engine("eager"):
            loss_of(wanted(batch())).backward()
        loss_of(network(batch().chunk(WORLD)[rank])).backward()
        assert_same(network, wanted)
        for optimizer in optimizers:
            optimizer.step()
        assert_same(network, wanted)
        for optimizer in optimizers:
            optimizer.zero_grad()


def named(name):
    """Put a name before a message of `assert_close`."""
    return lambda message: f"{name}: {message}"
