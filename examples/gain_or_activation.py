"""Is it the activation, or the scale of the weights? A table of eleven activations, made twice.

The network 784-256-192-128-64-10 is trained on Fashion-MNIST's embedded subset (10,000 + 2,000 images; batches of 32,
SGD with momentum 0.8, eight epochs, which are 2,500 steps) with each activation in two ways:

- *default*: PyTorch's initialization and a learning rate of 0.001, as such tables are often made;
- *matched*: the same network after `softknee.calibrate`, which draws weights by the gain of the activation before them,
  with that learning rate of 0.001, 0.003, 0.01 and 0.03 that is best on a held-out sixth of the training images, with a
  seed that is not reported.

At one seed all activations begin with the same draws and see the same batches. The spread of a column is that of its
means over seeds, without the sigmoid, for which no scale of the weights suits both directions.

One number, computed before training, tells much of the default column: by how much the mean square of gradients shrinks
on the way back through the hidden layers. That is the product of E[phi'(z)^2] / 3, for PyTorch's weights have variance
1 / (3 fan_in). Its rank correlation with the accuracies is printed; it was looked for after the results were known.

Usage: python examples/gain_or_activation.py [--epochs 8] [--seeds 5] [--out results.json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.data import load

ACTIVATIONS = (
    "sigmoid",
    "tanh",
    "relu",
    "gelu",
    "mish",
    "leaky_relu",
    "silu",
    "hardswish",
    "prelu",
    "rrelu",
    "trainable_elu",
)
HIDDEN = (256, 192, 128, 64)
CLASSES = 10
DEFAULT_RATE = 1e-3
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MOMENTUM = 0.8
# Weights of PyTorch's linear layers have this variance, times the number of inputs; biases too.
DEFAULT_VARIANCE = 1 / 3
# Of the rate's choice; those that are reported count from 1.
CHOOSING_SEED = 0

Data = tuple[Tensor, Tensor]


def images(pixels: object, labels: object, size: int, most: int | None = None) -> Data:
    """Return images between -1 and 1, `(n, size * size)`, and labels."""
    x = torch.tensor(pixels).unsqueeze(1).float().div(255).sub(0.5).div(0.5)[:most]
    return F.adaptive_avg_pool2d(x, size).flatten(1), torch.tensor(labels).long()[:most]


def network(activation: str, inputs: int, seed: int) -> nn.Sequential:
    """Make the network with PyTorch's initialization; parameters of activations are drawn after the weights."""
    torch.manual_seed(seed)
    widths = (inputs, *HIDDEN, CLASSES)
    linear = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    hidden = itertools.chain.from_iterable((layer, sk.create(activation)) for layer in linear[:-1])
    return nn.Sequential(*hidden, linear[-1])


def train(
    activation: str, data: Data, test: Data, *, rate: float, seed: int, epochs: int, size: int, matched: bool
) -> float:
    """Train once and return the accuracy in percent."""
    x, y = data
    model = network(activation, x.shape[1], seed)
    if matched:
        sk.calibrate(model, x[:1000], generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=order).split(size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return 100 * float((model(test[0]).argmax(1) == test[1]).double().mean())


def chosen(activation: str, rates: list[float], data: Data, held: Data, *, epochs: int, size: int) -> float:
    """Return the learning rate that is best on held-out images; a single one needs no choice."""
    how = {"seed": CHOOSING_SEED, "epochs": epochs, "size": size, "matched": True}
    return max(rates, key=lambda rate: train(activation, data, held, rate=rate, **how)) if len(rates) > 1 else rates[0]


def shrinking(activation: str, square: float, inputs: int) -> float:
    """Return by how much the mean square of gradients shrinks through the hidden layers of the default network.

    Args:
        activation: Of all layers.
        square: Mean square of the network's inputs.
        inputs: Their number.
    """
    module, product = sk.create(activation).eval(), 1.0
    for fan_in in (inputs, *HIDDEN[:-1]):
        q = DEFAULT_VARIANCE * (square + 1 / fan_in)
        at = sk.moments(module, q=q)
        product *= DEFAULT_VARIANCE * at.slope_square
        square = at.square
    return product


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's coefficient of numbers without ties."""
    ranks = [np.argsort(np.argsort(one)) for one in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def main() -> None:
    """Train, print the table, write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32, help="images of a step")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates to try, matched")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=28, help="width to which images are made smaller")
    parser.add_argument("--images", type=int, default=None, help="how many of the training images to use")
    parser.add_argument("--out", type=Path, default=None, help="file of JSON to write")
    how = parser.parse_args()
    loaded = load("mini")
    full = images(loaded.train_images, loaded.train_labels, how.size, how.images)
    test = images(loaded.test_images, loaded.test_labels, how.size)
    held = loaded.validation()
    part = images(held.train_images, held.train_labels, how.size, how.images)
    choosing = images(held.test_images, held.test_labels, how.size)
    square, inputs = float(full[0].square().mean()), full[0].shape[1]
    usual = {"epochs": how.epochs, "size": how.batch}
    rows = []
    print("activation      before training  default, 0.001      matched gain, tuned rate")
    for name in how.activations:
        best = chosen(name, how.rates, part, choosing, **usual)
        default, matched = (
            [train(name, full, test, rate=rate, seed=seed, matched=gain, **usual) for seed in range(1, how.seeds + 1)]
            for rate, gain in ((DEFAULT_RATE, False), (best, True))
        )
        row = {"activation": name, "product": shrinking(name, square, inputs), "rate": best}
        rows.append({**row, "default": default, "matched": matched})
        print(f"{name:14}  {row['product']:15.2g}  {text(default):18}  {text(matched)} at {best:g}", flush=True)
    counted = [row for row in rows if row["activation"] != "sigmoid"]
    spreads = {}
    for way in ("default", "matched"):
        means = [statistics.mean(row[way]) for row in counted]
        spreads[way] = max(means) - min(means)
    noise = (
        math.sqrt(statistics.mean(statistics.variance(row["matched"]) for row in counted)) if how.seeds > 1 else None
    )
    print(f"\nspread without the sigmoid: {spreads['default']:.1f} points by default, {spreads['matched']:.1f} matched")
    if noise is not None:
        print(f"standard deviation between seeds, matched: {noise:.1f} points")
    means = [statistics.mean(row["default"]) for row in rows]
    correlation = rank_correlation([row["product"] for row in rows], means) if len(rows) > 2 else None
    if correlation is not None:
        print(f"rank correlation of the product with the default accuracies: {correlation:.2f} (found after the fact)")
    if how.out is not None:
        found = {"rows": rows, "spreads": spreads, "between_seeds": noise, "rank_correlation": correlation}
        about = {"epochs": how.epochs, "batch": how.batch, "seeds": how.seeds, "images": len(full[0])}
        how.out.write_text(json.dumps({**about, **found}, indent=1), encoding="utf-8")


def text(scores: list[float]) -> str:
    """Return mean and standard deviation between seeds."""
    spread = f" (sd {statistics.stdev(scores):.1f})" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
