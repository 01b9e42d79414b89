"""Groups of neighbours along a dimension, and sizes that keep squares in range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softknee._errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def grouped(x: Tensor, size: int, dim: int, name: str) -> tuple[Tensor, int]:
    """View the entries along a dimension as groups of neighbours: the first `size`, the next `size`, and so on.

    Args:
        x: At least one dimension.
        size: Entries of a group.
        dim: The dimension.
        name: Of the function, for the message.

    Returns:
        The view, with the entries of a group in a dimension of their own behind that of the groups; that dimension.

    Raises:
        UsageError: The entries do not make whole groups.
    """
    dim = not_negative(x, dim, name)
    entries = x.shape[dim]
    if entries % size:
        raise UsageError(
            f"{name} takes groups of {size}, got an input of shape {tuple(x.shape)} with {entries} in dimension {dim}"
        )
    return x.unflatten(dim, (entries // size, size)), dim + 1


def not_negative(x: Tensor, dim: int, name: str) -> int:
    """Return a dimension counted from the front.

    Args:
        x: The input.
        dim: The dimension.
        name: Of the function, for the message.

    Returns:
        The same dimension.

    Raises:
        UsageError: There is none of that number.
    """
    if not -x.dim() <= dim < x.dim():
        raise UsageError(f"{name} works along dimension {dim}, got an input of shape {tuple(x.shape)}")
    return dim % x.dim()


def filled(x: Tensor, dim: int, name: str) -> int:
    """Return a dimension counted from the front, which must have entries.

    Args:
        x: The input.
        dim: The dimension.
        name: Of the function, for the message.

    Returns:
        The same dimension.

    Raises:
        UsageError: There is none of that number, or it is empty.
    """
    dim = not_negative(x, dim, name)
    if x.shape[dim] == 0:
        raise UsageError(f"{name} needs entries in dimension {dim}, got an input of shape {tuple(x.shape)}")
    return dim


def along(vector: Any, x: Tensor, dim: int) -> Any:
    """Return a vector lying along a dimension of another tensor; numbers and single ones as they are."""
    return vector.view(-1, *[1] * (x.dim() - 1 - dim)) if isinstance(vector, torch.Tensor) and vector.dim() else vector


def largest(x: Tensor, dim: int) -> Tensor:
    """Return the largest absolute value along a dimension, kept, without gradient.

    Dividing by it keeps squares in range. Where the division cancels, its gradient would add up to nothing.
    """
    return x.detach().abs().amax(dim, keepdim=True)
