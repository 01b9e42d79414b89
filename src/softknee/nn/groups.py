"""Weight decay: none for the parameters of activations."""

from __future__ import annotations

from typing import Any

from torch import nn

from softknee._errors import UsageError
from softknee.nn.activation import Activation


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimizer, so that those of its activations do not decay.

    A slope or a frequency that decays is pulled towards 0, which is another activation, not a simpler one; He et al.
    (2015) train PReLU without decay for this reason. Weights of small networks inside an activation do decay.

    Args:
        model: With activations of softknee or `torch.nn.PReLU` in it.
        weight_decay: Of all other parameters, not negative.

    Returns:
        Two groups, `{"params": [...], "weight_decay": ...}`, as optimizers take them; the second, without decay, only
        if it has parameters. Parameters that need no gradient are left out, shared ones stand once.

    Raises:
        UsageError: `weight_decay` is negative.
    """
    if not weight_decay >= 0:
        raise UsageError(f"weight_decay must not be negative, got {weight_decay!r}")
    activations = [module for module in model.modules() if isinstance(module, Activation | nn.PReLU)]
    own = {id(parameter) for module in activations for parameter in module.parameters(recurse=False)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decaying = [parameter for parameter in trained if id(parameter) not in own]
    kept = [parameter for parameter in trained if id(parameter) in own]
    groups: list[dict[str, Any]] = [{"params": decaying, "weight_decay": weight_decay}]
    return [*groups, {"params": kept, "weight_decay": 0.0}] if kept else groups
