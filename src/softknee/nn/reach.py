"""Sets the range of tables from data, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._errors import UsageError
from softknee.nn.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Range = tuple[float, float]


def calibrate_reach(model: nn.Module, *inputs: Any, margin: float = 0.25) -> dict[str, Range]:
    """Run a model once and have the tables of its activations cover what they see, from now on.

    Parameters, buffers, modes and random state of the model are afterwards as they were before.

    Args:
        model: With activations of softknee in it.
        *inputs: What the model is called with.
        margin: How much further than the inputs seen to reach on either side, as a part of their width; ends are
            whole numbers.

    Returns:
        The reach of each activation that was called, by its name in the model.

    Raises:
        UsageError: The model has no activation of softknee, or one saw inputs that are not finite or all the same.
    """
    activations = {name: module for name, module in model.named_modules() if isinstance(module, Elementwise)}
    if not activations:
        raise UsageError("the model has no activation of softknee whose reach could be calibrated")
    seen: dict[str, Range] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = (float(bound) for bound in x.detach().aminmax())
        before = seen.get(name, (low, high))
        seen[name] = (min(low, before[0]), max(high, before[1]))

    watched(model, inputs, activations, widen)
    for name, (low, high) in seen.items():
        # Whole numbers, so that activations with much the same inputs share their grids.
        spare = margin * (high - low)
        activations[name].set_reach(math.floor(low - spare), math.ceil(high + spare))
    return {name: activations[name].reach for name in seen}


def watched(
    model: nn.Module, inputs: tuple[Any, ...], modules: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]
) -> None:
    """Run a model once without leaving a trace, and have what goes into some of its modules noted.

    Args:
        model: Any.
        inputs: What it is called with.
        modules: By name.
        note: Called with the name and the input of each, whenever it is called.
    """

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: note(name, arguments[0])

    hooks = [module.register_forward_pre_hook(hook_of(name)) for name, module in modules.items()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for buffer, before in buffers:
            buffer.copy_(before)
