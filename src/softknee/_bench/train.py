"""Training and evaluation of a model, epoch by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from softknee._bench.examples import Examples
    from softknee._bench.protocol import Recipe

EVALUATION_BATCH = 2000


class Trained(NamedTuple):
    """What an epoch of training was like.

    Attributes:
        loss: Mean over its examples, as they were before each step.
        score: The metric over them, likewise.
        steps: How many there were.
    """

    loss: float
    score: float
    steps: int


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    order: torch.Generator,
    batch_size: int,
    steps: int = 0,
) -> Trained:
    """Train one epoch.

    Args:
        model: In any mode.
        optimizer: Of its parameters.
        examples: To train on.
        order: Draws the batches.
        batch_size: Examples of a batch.
        steps: Of the epoch, where the examples never run out.

    Returns:
        What it was like.
    """
    model.train()
    # They are read once, behind the last step: until then a GPU need not be waited for, and then it has done its work.
    total, tally = torch.zeros(2, dtype=torch.float64, device=examples.device)
    number = taken = 0
    for inputs, targets in examples.batches(order, batch_size, steps):
        loss, outputs = examples.objective(model, inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach() * len(targets)
        tally += examples.tally(outputs.detach(), targets).sum()
        number, taken = number + len(targets), taken + 1
    return Trained(total.item() / number, examples.score(tally.item() / number), taken)


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, prepare: Callable[[Tensor], Tensor] = lambda inputs: inputs) -> Tensor:
    """Return the outputs in eval mode.

    Args:
        model: In any mode.
        inputs: `(n, ...)`, as they are stored.
        prepare: Makes of some of them what the model takes.

    Returns:
        `(n, outputs)`.
    """
    model.eval()
    return torch.cat([model(prepare(part)) for part in inputs.split(EVALUATION_BATCH)])


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe."""
    decay = recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, rate: float, *, done: float) -> None:
    """Set the learning rate of an epoch.

    Args:
        optimizer: From `make_optimizer`.
        recipe: With the schedule.
        rate: At the start.
        done: Share of the run's epochs before this one.
    """
    factor = (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = factor * rate
