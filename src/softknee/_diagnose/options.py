"""What a diagnosis may be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from softknee._diagnose.schema import LEVELS
from softknee._diagnose.trial.options import parse_budget
from softknee._errors import UsageError, did_you_mean
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._diagnose.trial.run import MakeOptimizer


@dataclass(frozen=True)
class Options:
    """What is known of the training, and how long trials may take.

    Attributes:
        level: How much is measured.
        seed: Of all random choices.
        optimizer: Of the model, None if it is not known.
        kind: Of the optimizer: `"sgd"`, another class's name, or None.
        lr: Learning rate, None if it is not known.
        momentum: Its momentum.
        budget: Time for trials.
        progress: Called with the name of what is measured.
        make_model: Makes new models of the kind, None if only one is there.
    """

    level: str
    seed: int
    optimizer: torch.optim.Optimizer | None = None
    kind: str | None = None
    lr: float | None = None
    momentum: float | None = None
    budget: float | str | None = None
    progress: Callable[[str], None] | None = field(default=None, repr=False)
    make_model: Callable[[], nn.Module] | None = field(default=None, repr=False)


def options(
    model: Any,
    level: str,
    seed: int,
    optimizer: torch.optim.Optimizer | None,
    lr: float | None,
    momentum: float | None,
    budget: float | str | None,
    progress: Callable[[str], None] | None,
) -> Options:
    """Return the options of `diagnose`, checked.

    Raises:
        UsageError: One is wrong.
    """
    if level not in LEVELS:
        raise UsageError(
            f"level must be one of {', '.join(LEVELS)}, got {excerpt(level)}{did_you_mean(str(level), LEVELS)}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed must be a whole number, got {excerpt(seed)}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer must be a torch.optim.Optimizer, got {excerpt(optimizer)}")
    if optimizer is not None and (lr is not None or momentum is not None):
        raise UsageError("give the optimizer, or lr and momentum, not both")
    if lr is not None and not lr > 0:
        raise UsageError(f"lr must be over 0, got {excerpt(lr)}")
    if momentum is not None and not 0 <= momentum < 1:
        raise UsageError(f"momentum must be at least 0 and under 1, got {excerpt(momentum)}")
    if momentum is not None and lr is None:
        raise UsageError("momentum is that of SGD at a learning rate; give lr too")
    kind = "sgd" if lr is not None else None
    if optimizer is not None:
        kind = type(optimizer).__name__.lower()
        group = optimizer.param_groups[0]
        lr, momentum = float(group["lr"]), group.get("momentum")
    if level == "trial" and lr is None:
        raise UsageError("level 'trial' trains the model and needs its learning rate: give the optimizer, or lr")
    if budget is not None:
        parse_budget(budget)
        if level != "trial":
            raise UsageError(f"budget is the time for trials, which level {level!r} has not; ask for level 'trial'")
    make = model if not isinstance(model, nn.Module) and callable(model) else None
    return Options(level, seed, optimizer, kind, lr, momentum, budget, progress, make)


def like(optimizer: torch.optim.Optimizer) -> MakeOptimizer:
    """Return what makes optimizers of the kind and with the options of another, but for the learning rate.

    Args:
        optimizer: Its class takes parameters and `lr`. Of several groups the options of the largest count.
    """
    largest = max(optimizer.param_groups, key=lambda group: sum(one.numel() for one in group["params"]))
    options = {name: largest.get(name, value) for name, value in optimizer.defaults.items() if name != "lr"}

    def made(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        new = type(optimizer)(parameters, lr=rate)  # type: ignore[call-arg]  # all of torch's take it
        for group in new.param_groups:
            group.update(options)
        return new

    return made
