"""Training-loop speed: one epoch of `fashion-mlp` against the usual PyTorch loop of the same model.

The usual loop is a `DataLoader` over a data set that turns one image at a time into a normalized tensor, as
torchvision's class does (without its detour through PIL, which would make it slower still), and default SGD. Both
loops run alternately in one process on one thread, from the same weights over the same order of examples; the ratio
is the median over the rounds, and the difference of the trained weights is printed beside it.

Usage: python benchmarks/training_loop.py [--rounds 9] [--data mini|full|FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from softknee._bench import data
from softknee._bench.model import build_mlp
from softknee._bench.protocols import get_protocol
from softknee._bench.tasks import load_tensors
from softknee._bench.train import train_epoch
from softknee._catalogue import parse_choice

PROTOCOL = get_protocol("fashion-mlp")


class PerSample(Dataset[tuple[Tensor, int]]):
    """Images as torchvision serves them: one at a time, scaled to [0, 1], then normalized."""

    def __init__(self, images: Tensor, labels: Tensor, order: Tensor) -> None:
        self.images, self.labels, self.order = images, labels, order

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = int(self.order[position])
        image = self.images[index].float().div(255).unsqueeze(0)
        return (image - 0.5) / 0.5, int(self.labels[index])


def usual_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, samples: PerSample) -> float:
    """Train one epoch in the way of the tutorials."""
    total = 0.0
    model.train()
    for images, labels in DataLoader(samples, batch_size=PROTOCOL.recipe.batch_size):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.flatten(1)), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(samples)


def fresh(*, fused: bool | None) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Return the model with ReLU at seed 0 and its optimizer."""
    model = build_mlp(PROTOCOL.recipe, parse_choice("relu"), seed=0)
    momentum = PROTOCOL.recipe.momentum
    return model, torch.optim.SGD(model.parameters(), lr=PROTOCOL.learning_rate, momentum=momentum, fused=fused)


def main() -> None:
    """Measure and print one line of Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", default="mini")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, tensors = data.load(options.data), load_tensors(options.data, "test")
    raw, labels = torch.tensor(images.train_images), tensors.train_labels
    ratios, ours, usual, gap = [], [], [], 0.0
    for round_ in range(options.rounds + 1):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(round_))
        model, optimizer = fresh(fused=None)
        start = time.perf_counter()
        usual_epoch(model, optimizer, PerSample(raw, labels, order))
        middle = time.perf_counter()
        mine, optimizer = fresh(fused=True)
        train_epoch(mine, optimizer, tensors, torch.Generator().manual_seed(round_), PROTOCOL.recipe.batch_size)
        end = time.perf_counter()
        if round_:  # the first round warms up
            usual.append(middle - start)
            ours.append(end - middle)
            ratios.append((end - middle) / (middle - start))
        pairs = zip(model.parameters(), mine.parameters(), strict=True)
        gap = max(gap, *((a - b).abs().max().item() for a, b in pairs))
    print(f"| data | usual s/epoch | softknee s/epoch | ratio (quartiles) | largest weight difference |\n{'|---' * 5}|")
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"| {images.name}, {len(labels):,} images | {statistics.median(usual):.3f} | {statistics.median(ours):.3f} "
        f"| {median:.2f} ({low:.2f} to {high:.2f}) | {gap:.1e} |"
    )


if __name__ == "__main__":
    main()
