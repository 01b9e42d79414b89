"""Batch norms with the statistics of what goes through a network now, not of what went through it in training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


@contextmanager
def renormalised(model: nn.Module, look: Callable[[], object]) -> Iterator[None]:
    """Have a model's batch norms use means and variances of some batches; afterwards all is as it was before.

    A network of mixed activations gathers statistics of random functions. Those of one function are others, and by the
    wrong ones a network is worthless.

    Args:
        model: Any. Without batch norms nothing is done.
        look: Runs the batches through it; the model is in evaluation mode but for its batch norms.

    Yields:
        Nothing, with the model in evaluation mode.
    """
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    before = [(one, one.momentum, {name: buffer.clone() for name, buffer in one.named_buffers()}) for one in norms]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for one in norms:
            one.reset_running_stats()
            # The plain average over all batches.
            one.momentum = None
            one.train()
        if norms:
            with torch.no_grad():
                look()
        model.eval()
        yield
    finally:
        for one, momentum, buffers in before:
            one.momentum = momentum
            for name, buffer in one.named_buffers():
                buffer.copy_(buffers[name])
        for module, mode in modes:
            module.training = mode
