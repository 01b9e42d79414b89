"""Why units of a deep ReLU network go silent, and what helps: seven layers, before and after a short training.

The network 784-2048-1024-1024-512-512-256-128-10 on Fashion-MNIST's embedded subset. For each way to begin, the share
of each layer's units that are *dead* (no gradient for any of 1,024 images; a ReLU is off) and *straight* (the same
slope for all; a ReLU is on), before training:

- PyTorch's default: the signal shrinks from layer to layer until the random biases are all that is left. Every image
  then looks the same to a unit, which is on for all or off for all; the share of each tends to one half with depth.
- He's normal weights with biases of zero; the same by `softknee.calibrate`, which knows the scale of the images too.
- The same network with other activations, put in by `softknee.swap` and calibrated.
- Batch norm before each ReLU, with the default weights.

Then each is trained for a few steps at one learning rate. That shows who has a gradient to begin with, and not who is
best in the end: `softknee.diagnostics.trial` is for that. What is said of units is said of so many images only: 1,024
without a gradient leave room for one in 340 that has one (95 %).

Usage: python examples/deep_network.py [--steps 40] [--images 1024]
"""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.data import load
from softknee.diagnostics import unit_health

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = (784, 2048, 1024, 1024, 512, 512, 256, 128, 10)
BATCH = 64
RATE, MOMENTUM = 0.01, 0.9

Data = tuple[Tensor, Tensor]


def network(*, norm: bool = False) -> nn.Sequential:
    """Make the network with PyTorch's initialization."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers[: -2 if norm else -1])


def default(_: Tensor) -> nn.Sequential:
    """PyTorch's initialization."""
    return network()


def he(_: Tensor) -> nn.Sequential:
    """He's normal weights, biases of zero."""
    model = network()
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def calibrated(activation: str) -> Callable[[Tensor], nn.Module]:
    """Weights matched to the gain of an activation, and to the scale of the images."""

    def make(images: Tensor) -> nn.Module:
        model: nn.Module = network()
        if activation != "relu":
            model, _ = sk.swap(model, activation, example_inputs=images[:64])
        sk.calibrate(model, images, generator=torch.Generator().manual_seed(0))
        return model

    return make


def normed(images: Tensor) -> nn.Sequential:
    """Batch norm before each ReLU; its statistics are those of the images."""
    model = network(norm=True)
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None  # a plain mean over all batches
    with torch.no_grad():
        model.train()(images)
    return model


WAYS: dict[str, Callable[[Tensor], nn.Module]] = {
    "default": default,
    "He, zero bias": he,
    "calibrate": calibrated("relu"),
    "leaky_relu": calibrated("leaky_relu"),
    "elu": calibrated("elu"),
    "gelu": calibrated("gelu"),
    "batch norm": normed,
}


def shares(model: nn.Module, data: Data, state: str) -> list[float]:
    """Return the share of each layer's units that are in a state, in percent."""
    health = unit_health(model, [data], samples=len(data[0]))
    return [100 * len(site.units_in(state) or ()) / site.sums.units for site in health.sites]


def train(model: nn.Module, data: Data, steps: int) -> float:
    """Train for some steps, and return the mean loss of the last tenth of them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(1)).split(BATCH)
    losses = []
    model.train()
    for batch in itertools.islice(itertools.cycle(order), steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[0][batch]), data[1][batch])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def main() -> None:
    """Measure, train a little, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of training, 0 for none")
    parser.add_argument("--images", type=int, default=1024, help="to measure on")
    how = parser.parse_args()
    loaded = load("mini")
    x = torch.tensor(loaded.train_images).flatten(1).float().div(255).sub(0.5).div(0.5)
    y = torch.tensor(loaded.train_labels).long()
    some = x[: how.images], y[: how.images]
    print(f"share of units in percent, layers 1 to {len(WIDTHS) - 2}, of {how.images} images")
    losses = {}
    for name, make in WAYS.items():
        model = make(some[0])
        for state, said in (("dead", "dead"), ("linear", "straight")):
            print(f"{name:14}  {said:8}", *(f"{share:6.1f}" for share in shares(model, some, state)), flush=True)
        if how.steps:
            losses[name] = train(model, (x, y), how.steps)
    for name, loss in losses.items():
        print(f"{name:14}  loss after {how.steps} steps: {loss:.3f} (chance: 2.303)")


if __name__ == "__main__":
    main()
