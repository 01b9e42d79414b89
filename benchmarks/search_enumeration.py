"""Enumeration: all distinct one-core functions, in two runs each, on a small regression; and whether losses are right.

The student is a 6-12-12-1 network, the teacher another of that shape with a function of the space; 600 steps of Adam
with batches of 64. Seconds are of this process on one thread, everything included: making formulas and tables,
training, validation. Losses are compared with those of the same models trained one by one through the formulas as they
are written, and these with themselves after starting weights were changed by one part in ten million: what training
makes of rounding alone.

Usage: python benchmarks/search_enumeration.py [--functions 1251] [--compared 20]
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler

import softknee as sk
from softknee._search.candidate import Candidate
from softknee._search.packed import train_packed
from softknee._search.space import space_of
from softknee._search.task import Task
from softknee._search.train import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RUNS = (0, 1000)
WIDTHS = (6, 12, 12, 1)
TRAINED, HELD, BATCH, STEPS = 1536, 512, 64, 600
PLANTED, NOISE = "min(max(x, -3.1622776601683795), 3.1622776601683795)**2 * sigmoid(x)", 0.3
ROUNDING = 1e-7


class Batches:
    """Batches in a new order each epoch, cut out of whole tensors."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.order = BatchSampler(RandomSampler(x), BATCH, drop_last=True)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((self.x[rows], self.y[rows]) for rows in self.order)


def student() -> nn.Module:
    """Return a network with ReLU."""
    layers = [nn.Linear(*widths) for widths in pairwise(WIDTHS)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean squared error."""
    return F.mse_loss(model(batch[0]), batch[1])


def regression() -> Task:
    """Return the task."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TRAINED + HELD, WIDTHS[0], generator=generator)
    y, function = x, sk.create(PLANTED)
    for layer, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        y = y @ (torch.randn(inputs, outputs, generator=generator) * 1.5 / inputs**0.5)
        y = function(y) if layer < len(WIDTHS) - 2 else y
    y = (y - y.mean()) / y.std() + NOISE * torch.randn(y.shape, generator=generator)
    return Task(
        student,
        step,
        Batches(x[:TRAINED], y[:TRAINED]),
        [(x[TRAINED:], y[TRAINED:])],
        optimizer=lambda parameters: torch.optim.Adam(parameters, 5e-3),
        epochs=STEPS * BATCH // TRAINED,
    )


def alone(task: Task, candidate: Candidate, run: int, change: float = 0.0) -> float:
    """Train a model by itself and return its validation loss; `change` is that of its starting weights."""
    training = Training(task, candidate, run)
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.mul_(1 + change)
    failure = training.advance(task.run_steps, lambda _: None)
    return np.inf if failure else float(task.evaluate(training.model, task.val_batches).mean())


def compared(task: Task, candidates: list[Candidate], packed: NDArray[np.float64]) -> None:
    """Print how packed losses of some candidates, `(candidates, runs)`, compare with those of models alone."""
    started = time.process_time()
    exact = np.array([[alone(task, candidate, run) for run in RUNS] for candidate in candidates])
    seconds = (time.process_time() - started) / exact.size
    moved = np.array([[alone(task, candidate, run, ROUNDING) for run in RUNS] for candidate in candidates])
    print(f"one run of one model {seconds:.2f} s")
    for name, other in (("packed", packed), (f"weights changed by {ROUNDING:g}", moved)):
        error = np.abs(other / exact - 1)
        best = exact.mean(1)[other.mean(1).argmin()] - exact.mean(1).min()
        print(
            f"{name}: relative difference of losses median {np.median(error):.1e}, 90 % {np.quantile(error, 0.9):.1e}, "
            f"largest {error.max():.1e}; Spearman {spearmanr(other.mean(1), exact.mean(1)).statistic:.4f}, "
            f"regret of the best of {len(candidates)} {best:.1e}"
        )


def main() -> None:
    """Enumerate, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", type=int, default=None, help="the first so many only")
    parser.add_argument("--compared", type=int, default=20, help="functions that are also trained alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = regression()
    started, wall = time.process_time(), time.perf_counter()
    space = space_of("one-core")
    genotypes = space.distinct()[: options.functions]
    candidates = [Candidate((space.function(genotype),), "enumerate") for genotype in genotypes]
    losses = train_packed(task, candidates, RUNS).validation[..., 0]
    spent = time.process_time() - started
    print(
        f"{len(candidates)} functions x {len(RUNS)} runs of {task.run_steps} steps: {spent:.1f} s "
        f"({time.perf_counter() - wall:.1f} s on the clock), {np.isinf(losses).sum()} diverged"
    )
    best = int(losses.mean(1).argmin())
    print(f"best: {candidates[best].name}, {losses[best].mean():.4f}; planted: {PLANTED}")
    chosen = np.random.default_rng(0).choice(len(candidates), min(options.compared, len(candidates)), replace=False)
    compared(task, [candidates[row] for row in chosen], losses[chosen])


if __name__ == "__main__":
    main()
