"""What it costs to watch a training, to record one, and to measure the health of units.

Training steps of the MLP 784-256-192-128-64-10 (batch 128) and of ResNet-20 (batch 64, random images) with ReLU and
plain SGD. In each round, every variant runs a block of 50 steps (ResNet-20: 10), in another order each time, and is
divided by the plain block of the same round; medians over the rounds, with quartiles. Times are those of the process,
one thread. The health of units is divided by one run of the model in evaluation mode over the same samples.

Usage: python benchmarks/diagnostics_observe.py [--rounds 41] [--samples 512]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from engines import table
from torch import Tensor, nn
from torch.nn import functional as F

from softknee._bench.resnet import build_resnet20
from softknee._diagnose.units.health import unit_health
from softknee._diagnose.units.watch import Watch
from softknee.integrations import ActivationRecorder

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = (784, 256, 192, 128, 64)
CLASSES = 10
WARM_UP = 2


class Functional(nn.Module):
    """The same MLP with its activations called as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*ends) for ends in pairwise(WIDTHS)])
        self.last = nn.Linear(WIDTHS[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, 784)` to `(batch, 10)`."""
        for layer in self.layers:
            x = F.relu(layer(x))
        logits: Tensor = self.last(x)
        return logits


def mlp() -> nn.Module:
    """Return the chapter's MLP, an activation for each layer."""
    parts = [part for ends in pairwise(WIDTHS) for part in (nn.Linear(*ends), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(WIDTHS[-1], CLASSES))


def training(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a step of training."""
    y = torch.arange(len(x)) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def variants(model: nn.Module, step: Callable[[], None], every: int, steps: int) -> dict[str, Callable[[], None]]:
    """Return blocks of steps: plain, and with what is compared."""

    def plain() -> None:
        for _ in range(steps):
            step()

    def watched(gradients: bool) -> Callable[[], None]:
        seen = Watch(model, every=every, gradients=gradients)

        def block() -> None:
            with seen:
                plain()

        return block

    recorder = (
        ActivationRecorder(model, every=every) if any(isinstance(one, nn.ReLU) for one in model.modules()) else None
    )

    def recorded() -> None:
        for number in range(steps):
            assert recorder is not None
            with recorder.step(number):
                step()

    found = {"plain": plain, "watch": watched(True), "watch without gradients": watched(False)}
    return {**found, "recorder": recorded} if recorder is not None else found


def measured(blocks: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the quartiles of each variant's time in parts of the plain one's."""
    for _ in range(WARM_UP):
        for block in blocks.values():
            block()
    ratios: dict[str, list[float]] = {name: [] for name in blocks}
    order = list(blocks)
    for _ in range(rounds):
        seconds = {}
        for name in order:
            begin = time.process_time()
            blocks[name]()
            seconds[name] = time.process_time() - begin
        order.append(order.pop(0))
        for name, one in seconds.items():
            ratios[name].append(one / seconds["plain"])
    return {name: statistics.quantiles(values, n=4) for name, values in ratios.items()}


def shown(quartiles: list[float]) -> str:
    """Return the median with the other quartiles."""
    low, middle, high = quartiles
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def health(model: nn.Module, x: Tensor, batch: int, rounds: int) -> str:
    """Return the time of unit health in parts of one evaluation pass."""
    model.eval()

    def evaluate() -> None:
        with torch.no_grad():
            for part in x.split(batch):
                model(part)

    def units() -> None:
        unit_health(model, x.split(batch), samples=len(x))

    return shown(measured({"plain": evaluate, "health": units}, rounds)["health"])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--samples", type=int, default=512)
    how = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {how.rounds} rounds\n")
    cases = {
        "MLP": (mlp(), torch.randn(128, WIDTHS[0]), 1),
        "MLP, `F.relu`": (Functional(), torch.randn(128, WIDTHS[0]), 1),
        "ResNet-20": (build_resnet20(lambda _: nn.ReLU(), seed=0), torch.randn(64, 3, 32, 32), 4),
    }
    rows = []
    for name, (model, x, fewer) in cases.items():
        step = training(model.train(), x)
        for every in (1, 10, 50) if fewer == 1 else (1, 10):
            blocks = variants(model, step, every, 50 if fewer == 1 else 10)
            found = measured(blocks, max(3, how.rounds // fewer))
            rows += [[name, variant, every, shown(one)] for variant, one in found.items() if variant != "plain"]
    table(("model", "what", "every n-th step", "with / without (quartiles)"), rows)
    x = {"MLP": torch.randn(how.samples, WIDTHS[0]), "ResNet-20": torch.randn(how.samples, 3, 32, 32)}
    table(
        ("model", "samples", "`unit_health` / evaluation pass"),
        [[name, how.samples, health(cases[name][0], one, 64, max(3, how.rounds // 8))] for name, one in x.items()],
    )


if __name__ == "__main__":
    main()
