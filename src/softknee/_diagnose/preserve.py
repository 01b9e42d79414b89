"""Lets a model be measured so that nothing of it remains: with gradients, and in the mode that is asked for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from softknee._surgery.untouched import restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
