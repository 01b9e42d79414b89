"""Checks the options of trials before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch

from softknee._catalogue import parse_choice
from softknee._diagnose.trial.run import Metric
from softknee._errors import UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from softknee._diagnose.trial.run import MakeOptimizer

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def parse_budget(budget: Any) -> float | None:
    """Return a time in seconds.

    Args:
        budget: Seconds, a text such as `"5m"`, or None.

    Raises:
        UsageError: It is something else.
    """
    if budget is None:
        return None
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(budget))
    value = float(parts[1]) * _SECONDS[parts[2] or "s"] if parts and not isinstance(budget, bool) else 0.0
    if not value > 0:
        raise UsageError(
            f"budget must be a time in seconds or a text such as '90s', '5m' or '1h', got {excerpt(budget)}"
        )
    return value


def checked_options(
    lr: Any, rates: Any, seeds: Any, steps: Any, budget: Any, margin: Any, metric: Any, candidates: Any, progress: Any
) -> float | None:
    """Return the budget in seconds.

    Raises:
        UsageError: An option is not allowed.
    """
    if not _positive(lr):
        raise UsageError(f"lr must be a positive number, got {excerpt(lr)}")
    if isinstance(rates, str) or not isinstance(rates, Sequence) or not rates or not all(map(_positive, rates)):
        raise UsageError(f"rates must be positive factors of lr, such as (1/3, 1, 3), got {excerpt(rates)}")
    for name, value in (("seeds", seeds), *((("steps", steps),) if steps is not None else ())):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, got {excerpt(value)}")
    if margin is not None and not _positive(margin):
        raise UsageError(f"margin must be a positive number, got {excerpt(margin)}")
    if metric not in {None, *get_args(Metric)}:
        raise UsageError(f"metric must be 'accuracy' or 'loss', got {excerpt(metric)}")
    if candidates is not None and (isinstance(candidates, str) or not isinstance(candidates, Sequence)):
        raise UsageError(f"candidates must be a list of names or formulas, got {excerpt(candidates)}")
    for one in candidates or ():
        parse_choice(one)
    if progress is not None and not callable(progress):
        raise UsageError(f"progress must be a function of a text, got {excerpt(progress)}")
    return parse_budget(budget)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def made_optimizer(optimizer: Any, momentum: float | None) -> MakeOptimizer:
    """Return what makes an optimizer.

    Raises:
        UsageError: There is none of that name, or it takes no momentum.
    """
    if momentum and optimizer != "sgd":
        raise UsageError(f"momentum is for optimizer='sgd'; put it into the function, got {excerpt(optimizer)}")
    if callable(optimizer):
        made: MakeOptimizer = optimizer
        return made
    if optimizer not in _OPTIMIZERS:
        listed = ", ".join(map(repr, _OPTIMIZERS))
        raise UsageError(
            f"optimizer must be {listed} or a function of parameters and a learning rate, got {excerpt(optimizer)}"
        )
    options = {"momentum": momentum or 0.0} if optimizer == "sgd" else {}
    return lambda parameters, rate: _OPTIMIZERS[optimizer](parameters, lr=rate, **options)
