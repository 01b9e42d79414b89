"""Searches on the protocols of the bench: what `softknee.search` takes, made of a protocol's recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee._bench.examples import Points
from softknee._bench.model import build_model
from softknee._bench.protocols import get_protocol
from softknee._bench.tasks import TASKS, load_tensors
from softknee._bench.train import make_optimizer
from softknee._catalogue import parse_choice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from softknee._bench.examples import Examples
    from softknee._bench.protocol import Protocol

    Batch = tuple[Tensor, Tensor]

# What models have before anything is searched for.
USUAL = "relu"
# Batches to select by, of a function whose points never run out, and the seed that draws them.
HELD_OUT, HELD_OUT_SEED = 20, 1_000_000
# So that several batches differ as much as the data do.
FEWEST_BATCHES = 8


@dataclass(frozen=True)
class Reshuffled:
    """The training batches of a protocol; each reading draws their order anew from torch's global random state.

    Attributes:
        examples: To train on.
        batch_size: Examples of a batch.
        steps: Batches of an epoch, where examples never run out.
    """

    examples: Examples
    batch_size: int
    steps: int

    def __iter__(self) -> Iterator[Batch]:
        order = torch.Generator().manual_seed(drawn_seed())
        return self.examples.batches(order, self.batch_size, self.steps)


def arguments(protocol: str | Protocol, *, data: str | Path | None = None, epochs: int | None = None) -> dict[str, Any]:
    """Return what `softknee.search` takes of a protocol: its model, training, data and length.

    The part to train on is divided as for tuned rates: a sixth of it, or what the task holds out, is there to select
    by. Initialization and learning rate are those of the first condition.

    Args:
        protocol: A protocol, or the name of one.
        data: Where the data lie, as `softknee.bench` takes it.
        epochs: Of a full run; the protocol's own by default.

    Returns:
        Arguments by name.

    Raises:
        UsageError: Or a subclass: there is no such protocol, its data cannot be given or are not there.
    """
    frozen = get_protocol(protocol) if isinstance(protocol, str) else protocol
    recipe, task = frozen.recipe, TASKS[frozen.recipe.task]
    source = task.source(data)
    whole = load_tensors(source, "test", recipe.task)
    if isinstance(whole, Points):
        train: Examples = whole
        order = torch.Generator().manual_seed(HELD_OUT_SEED)
        held = list(whole.batches(order, recipe.batch_size, HELD_OUT))
    else:
        train = load_tensors(source, "validation", recipe.task)
        held = even_batches(train, recipe.batch_size)
    usual = parse_choice(USUAL)

    def make_model() -> nn.Module:
        return build_model(recipe, usual, seed=drawn_seed())

    def train_step(model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return train.objective(model, inputs, targets)[0]

    return {
        "make_model": make_model,
        "train_step": train_step,
        "train_batches": Reshuffled(train, recipe.batch_size, recipe.steps),
        "val_batches": held,
        "test_batches": even_batches(whole, recipe.batch_size),
        "optimizer": lambda parameters: make_optimizer(parameters, recipe, frozen.learning_rate),
        "epochs": frozen.epochs if epochs is None else epochs,
    }


def even_batches(examples: Examples, batch_size: int) -> list[Batch]:
    """Return what is evaluated on in batches of the same size but for one, so that all of it counts alike.

    Args:
        examples: With inputs and targets to evaluate on.
        batch_size: What a batch has at most.

    Returns:
        Eight batches at least.
    """
    targets = examples.test_targets
    if targets.is_floating_point():  # of the precision that models compute in
        targets = targets.to(examples.test_inputs.dtype)
    number = max(FEWEST_BATCHES, math.ceil(len(targets) / batch_size))
    inputs = examples.prepare(examples.test_inputs)
    return list(zip(inputs.tensor_split(number), targets.tensor_split(number), strict=True))


def drawn_seed() -> int:
    """Return a seed drawn from torch's global random state."""
    return int(torch.randint(2**62, ()))
