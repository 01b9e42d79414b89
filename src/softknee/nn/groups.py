"""Parameters by what an optimizer should do with them: activations decay apart, matrices may have one of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from softknee._errors import UsageError
from softknee.nn.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Iterable

# Rows of these are looked up, so that they are no linear maps.
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    activation_decay: float = 0.0,
    exclude: Iterable[nn.Parameter] = (),
) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimizer, so that those of its activations do not decay, or decay otherwise.

    A slope or a frequency that decays is pulled towards 0, which is another activation, not a simpler one; He et al.
    (2015) train PReLU without decay for this reason. Weights of small networks inside an activation do decay.

    Args:
        model: With activations of softknee or `torch.nn.PReLU` in it; already sharded where it is to be.
        weight_decay: Of all other parameters, not negative.
        activation_decay: Of the activations' parameters, not negative.
        exclude: Parameters that another optimizer has.

    Returns:
        Two groups, `{"params": [...], "weight_decay": ...}`, as optimizers take them; the second, for activations, only
        if it has parameters. Parameters that need no gradient are left out, shared ones stand once.

    Raises:
        UsageError: A decay is negative.
    """
    for name, decay in (("weight_decay", weight_decay), ("activation_decay", activation_decay)):
        if not decay >= 0:
            raise UsageError(f"{name} must not be negative, got {decay!r}")
    own, left_out = _of_activations(model), {id(parameter) for parameter in exclude}
    trained = [one for one in model.parameters() if one.requires_grad and id(one) not in left_out]
    others = [parameter for parameter in trained if id(parameter) not in own]
    slopes = [parameter for parameter in trained if id(parameter) in own]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": weight_decay}]
    return [*groups, {"params": slopes, "weight_decay": activation_decay}] if slopes else groups


def matrix_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that are matrices, for an optimizer such as Muon that orthogonalizes its updates.

    A parameter with two dimensions need not be a matrix: vectors of an activation's terms for each channel are a table
    `(terms, channels)`, and an embedding is one too. Give all other parameters to another optimizer:
    `parameter_groups(model, 0.1, exclude=matrices)`.

    Args:
        model: Any.

    Returns:
        Trained parameters with two dimensions, but for those of activations and embeddings, each once. The layer that
        makes the logits is among them; whoever wants it elsewhere takes it out.
    """
    embeddings = [module for module in model.modules() if isinstance(module, _EMBEDDINGS)]
    tables = _of_activations(model) | {id(parameter) for module in embeddings for parameter in module.parameters()}
    return [one for one in model.parameters() if one.requires_grad and one.dim() == 2 and id(one) not in tables]


def _of_activations(model: nn.Module) -> set[int]:
    """Return the identities of the parameters of activations, but for those of networks inside of them."""
    activations = [module for module in model.modules() if isinstance(module, Activation | nn.PReLU)]
    return {id(parameter) for module in activations for parameter in module.parameters(recurse=False)}
