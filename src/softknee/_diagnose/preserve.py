"""Lets a model be measured so that nothing of it remains: with gradients, and in the mode that is asked for."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call

from softknee._surgery.untouched import restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn


@contextlib.contextmanager
def preserved(model: nn.Module, *, training: bool | None = False) -> Iterator[None]:
    """Measure a model; its modes, buffers, gradients and what requires them, and the random states are restored.

    Gradients are on inside, and `.grad` of all parameters is None.

    Args:
        model: Any module.
        training: Mode inside: False for `eval()`, None for the modes it has.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(one, one.grad, one.requires_grad) for one in model.parameters()]
    try:
        with restored(model), torch.enable_grad():
            for parameter, _, _ in parameters:
                parameter.grad = None
            if training is not None:
                model.train(training)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, gradient, required in parameters:
            parameter.requires_grad_(required)
            parameter.grad = gradient


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers by a seed; the global random states are afterwards as before.

    Args:
        seed: Of torch, numpy and Python.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            seed_all(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_all(seed: int) -> None:
    """Seed the global random states, which the caller restores."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Return the gradients of a loss; inside `preserved` only.

    By a whole backward pass, which reentrant checkpoints demand.

    Args:
        loss: One number.
        parameters: By which to differentiate.

    Returns:
        A tensor for each; None for those that the loss does not depend on.
    """
    loss.backward()
    found = [one.grad for one in parameters]
    for one in parameters:
        one.grad = None
    return found


def called_with(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: tuple[Any, ...], keywords: Mapping[str, Any] | None = None
) -> Any:
    """Call a model with other tensors in the place of parameters.

    Each place is filled once: `functional_call` by itself goes by all names of a module that occurs at several, and
    leaves the tensor there instead of the parameter.

    Args:
        model: Any module.
        weights: By the names that `named_parameters` has, a shared parameter once; it is replaced wherever it is.
        inputs: Arguments.
        keywords: Named arguments.

    Returns:
        What the model makes of them.
    """
    named = dict(model.named_parameters())
    instead = {named[name]: one for name, one in weights.items()}
    places = {
        f"{path}.{name}".lstrip("."): instead[one]
        for path, module in model.named_modules()
        for name, one in module._parameters.items()
        if one is not None and one in instead
    }
    return functional_call(model, places, inputs, dict(keywords or {}), tie_weights=False)
