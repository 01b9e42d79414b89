"""Directions in the space of a model's weights, and what filter normalisation makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._errors import UsageError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    Direction = dict[str, Tensor]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_GIVEN = (
    "a direction is a mapping from names of parameters, tensors in their order, or one vector of all their elements"
)


def movable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a landscape is drawn over: those that require gradients, or all where none does.

    Args:
        model: Any module.

    Returns:
        Parameters of floating point by name, shared ones once.

    Raises:
        UsageError: There is none.
    """
    every = {name: one for name, one in model.named_parameters() if one.is_floating_point() and one.numel()}
    found = {name: one for name, one in every.items() if one.requires_grad} or every
    if not found:
        raise UsageError("the model has no parameters to move")
    return found


def random_direction(model: nn.Module, generator: torch.Generator, *, vectors: bool = False) -> Direction:
    """Draw a direction from the standard normal distribution and normalise it by filters.

    Args:
        model: Any module.
        generator: On the CPU.
        vectors: As in `filter_normalised`.

    Returns:
        A tensor for each movable parameter, on its device and in its dtype.
    """
    drawn = {
        name: torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one)
        for name, one in movable(model).items()
    }
    return filter_normalised(model, drawn, vectors=vectors)


def filter_normalised(model: nn.Module, direction: Any, *, vectors: bool = False) -> Direction:
    """Give each filter of a direction the norm of the same filter of the weights (Li et al. 2018, section 4).

    A filter is what one output is made from: a row of a linear layer, a kernel of a convolution over all its inputs, an
    embedding. Of parameters with other roles it is an entry of the first dimension.

    Args:
        model: Any module.
        direction: As `given_direction` takes it.
        vectors: Whether parameters of at most one dimension (biases, norms) move, each as one filter; else they are 0.

    Returns:
        A tensor for each movable parameter.

    Raises:
        UsageError: The direction does not fit the model.
    """
    given = given_direction(model, direction)
    owners = {id(own): module for module in model.modules() for own in module.parameters(recurse=False)}
    result = {}
    for name, weight in movable(model).items():
        if weight.dim() < 2:
            result[name] = _scaled(given[name][None], weight.detach()[None])[0] if vectors else 0 * given[name]
            continue
        module = owners[id(weight)]
        groups = module.groups if isinstance(module, _TRANSPOSED) else 0
        filters = _scaled(_filters(given[name], groups), _filters(weight.detach(), groups))
        result[name] = _unfiltered(filters, weight.shape, groups)
    return result


def orthogonal_to(direction: Direction, other: Direction) -> Direction:
    """Return what is left of a direction without its part along another one."""
    along = _inner(direction, other) / _inner(other, other) if _inner(other, other) else 0.0
    return {name: one - along * other[name] for name, one in direction.items()}


def towards(model: nn.Module, end: nn.Module | Mapping[str, Tensor]) -> Direction:
    """Return the direction from a model's weights to others, which a step of 1 reaches.

    Buffers, running statistics among them, take no part: they stay the model's.

    Args:
        model: Where it begins.
        end: A model of the same structure, or its `state_dict()`.

    Returns:
        A tensor for each movable parameter.

    Raises:
        UsageError: A parameter is missing or has another shape.
    """
    state = dict(end.named_parameters()) if isinstance(end, nn.Module) else end
    result = {}
    for name, weight in movable(model).items():
        if name not in state or state[name].shape != weight.shape:
            there = tuple(state[name].shape) if name in state else "none"
            raise UsageError(f"the end needs {name} of shape {tuple(weight.shape)}, it has {there}")
        result[name] = state[name].detach().to(weight) - weight.detach()
    return result


def given_direction(model: nn.Module, direction: Any) -> Direction:
    """Return a direction with a tensor for each movable parameter.

    Args:
        model: Any module.
        direction: A mapping from names, what is missing being 0; or one tensor for each movable parameter, in order; or
            one vector of all their elements, such as an eigenvector of the Hessian.

    Returns:
        By name, on the parameters' devices and in their dtypes.

    Raises:
        UsageError: It does not fit the model.
    """
    weights = movable(model)
    if isinstance(direction, Tensor):
        sizes = [one.numel() for one in weights.values()]
        if direction.dim() != 1 or len(direction) != sum(sizes):
            shape = tuple(direction.shape)
            raise UsageError(f"the direction has shape {shape}, but the model moves {sum(sizes)} elements; {_GIVEN}")
        direction = direction.split(sizes)
    if isinstance(direction, Mapping):
        unknown = next((name for name in direction if name not in weights), None)
        if unknown is not None:
            raise UsageError(f"the direction has {excerpt(unknown)}, which is no parameter that the model moves")
        parts = [direction.get(name, torch.zeros(())) for name in weights]
        parts = [one.expand(w.shape) if not one.dim() else one for one, w in zip(parts, weights.values(), strict=True)]
    elif isinstance(direction, Sequence) and all(isinstance(one, Tensor) for one in direction):
        parts = list(direction)
    else:
        raise UsageError(f"no direction: {excerpt(direction)}; {_GIVEN}")
    if len(parts) != len(weights) or any(
        part.numel() != weight.numel() for part, weight in zip(parts, weights.values(), strict=False)
    ):
        raise UsageError(f"the direction does not fit the {len(weights)} parameters of the model; {_GIVEN}")
    return {
        name: part.detach().reshape(weight.shape).to(weight)
        for part, (name, weight) in zip(parts, weights.items(), strict=True)
    }


def _filters(weight: Tensor, groups: int) -> Tensor:
    """Return a weight as a matrix with a row a filter; `groups` is not 0 for transposed convolutions."""
    if not groups:
        return weight.reshape(len(weight), -1)
    # (in, out / groups, ...): an output is made from the inputs of its group.
    grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return grouped.transpose(1, 2).reshape(groups * weight.shape[1], -1)


def _unfiltered(filters: Tensor, shape: torch.Size, groups: int) -> Tensor:
    if not groups:
        return filters.reshape(shape)
    grouped = filters.reshape(groups, shape[1], shape[0] // groups, *shape[2:])
    return grouped.transpose(1, 2).reshape(shape)


def _scaled(filters: Tensor, like: Tensor) -> Tensor:
    """Return rows with the norms that the rows of another matrix have; rows of 0 stay."""
    own, wanted = (torch.linalg.vector_norm(one.double(), dim=1, keepdim=True) for one in (filters, like))
    factors: Tensor = torch.where(own > 0, wanted / own, torch.zeros_like(own))
    return (filters.double() * factors).to(filters.dtype)


def _inner(first: Direction, second: Direction) -> float:
    return sum(float((one.double() * second[name].double()).sum()) for name, one in first.items())
