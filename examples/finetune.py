"""Fine-tunes a small trained network with per-channel trainable activations that begin as its own GELU.

A convolutional network with `F.gelu` in its code is trained on Fashion-MNIST's embedded subset. Then its activations
are replaced by `x * (1 + erf(b * x)) / 2` with one `b` a channel, fitted to the GELU that was there, so that nothing
changes at first; both networks are trained on for as many epochs, from the same state over the same batches, on several
seeds.

What it shows is the way to do it, and how to tell whether it helps: on this task the difference is small against that
between seeds, and the program says so.

Usage: python examples/finetune.py [--epochs 4] [--more 2] [--seeds 3]
"""

from __future__ import annotations

import argparse
import copy
import statistics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee as sk
from softknee._bench.data import load

ACTIVATION = "x * (1 + erf(b*x)) / 2[b=0.7]"
BATCH = 128
# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
QUANTILES = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


class Network(nn.Module):
    """Three convolutions and a linear layer; the activations are functions in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 64, 3, padding=1)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 1, 28, 28)` to `(batch, 10)`."""
        x = F.max_pool2d(F.gelu(self.first(x)), 2)
        x = F.max_pool2d(F.gelu(self.second(x)), 2)
        x = F.gelu(self.third(x)).mean((2, 3))
        return self.last(x)


def train(model: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, seed: int) -> None:
    """Train with AdamW; the activations' own parameters do not decay."""
    optimizer = torch.optim.AdamW(sk.parameter_groups(model, weight_decay=0.01), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers in percent."""
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return 100 * right / len(labels)


def tensors(images: object, labels: object) -> tuple[Tensor, Tensor]:
    """Return normalized images and labels."""
    return torch.tensor(images).unsqueeze(1).float().div(255).sub(0.286).div(0.353), torch.tensor(labels).long()


def main() -> None:
    """Train, swap, train on, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="before the swap")
    parser.add_argument("--more", type=int, default=2, help="after it")
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 11))
    how = parser.parse_args()
    data = load("mini")
    images, labels = tensors(data.train_images, data.train_labels)
    test = tensors(data.test_images, data.test_labels)
    gains = []
    for seed in range(how.seeds):
        torch.manual_seed(seed)
        plain = Network()
        train(plain, images, labels, epochs=how.epochs, seed=seed)
        before = accuracy(plain, *test)
        swapped = copy.deepcopy(plain)
        swapped, report = sk.swap(
            swapped, ACTIVATION, where="gelu", like="original", example_inputs=images[:BATCH], per_channel=True
        )
        if not seed:
            print(report, end="\n\n")
            print("seed  trained  swapped  plain, trained on  swapped, trained on")
        unchanged = accuracy(swapped, *test)
        for model in (plain, swapped):
            train(model, images, labels, epochs=how.more, seed=seed + 1000)
        after = [accuracy(model, *test) for model in (plain, swapped)]
        gains.append(after[1] - after[0])
        print(f"{seed:4}  {before:7.2f}  {unchanged:7.2f}  {after[0]:17.2f}  {after[1]:19.2f}")
    mean = statistics.mean(gains)
    half = QUANTILES[how.seeds - 1] * statistics.stdev(gains) / how.seeds**0.5
    verdict = "which tells them apart" if abs(mean) > half else "which does not tell them apart"
    print(
        f"\ndifference {mean:+.2f} points, 95 % interval over seeds {mean - half:+.2f} to {mean + half:+.2f}, {verdict}"
    )


if __name__ == "__main__":
    main()
