"""The relaxed cell: on every edge a weighted sum of operations, for many samples of the weights at once.

u0 = U0(x)   u1 = U1(x)   b0 = B0(u0, u1)
u2 = U2(b0)  u3 = U3(x)   y  = B1(u2, u3)     and so on for more cores
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._search.operations import Operation
    from softknee._search.space import Space

    # Numbers of the operations that are left, for each edge or vertex.
    Left = tuple[tuple[int, ...], ...]


class Weights(NamedTuple):
    """What a relaxed cell is evaluated with, for each of several samples.

    Attributes:
        unary: `(samples, edges, operations)`.
        binary: `(samples, vertices, operations)`.
        unary_betas: `(samples, edges, those with one)` learnable scalars.
        binary_betas: `(samples, vertices, those with one)`.
    """

    unary: Tensor
    binary: Tensor
    unary_betas: Tensor
    binary_betas: Tensor

    def of(self, sample: int) -> Weights:
        """Return one sample alone."""
        return Weights(*(part[sample : sample + 1] for part in self))


def relaxed(space: Space, x: Tensor, weights: Weights, unary: Left, binary: Left) -> Tensor:
    """Evaluate the relaxed cell.

    Args:
        space: Of the operations.
        x: `(points,)` for all samples, or `(samples, points)`, in the dtype of the weights.
        weights: Of each sample.
        unary: The operations that are left on each edge.
        binary: Likewise of each vertex.

    Returns:
        `(samples, points)`.
    """
    on_input = _on_input(space, x, weights, unary)
    out = None
    for core in range(space.cores):
        edge = 2 * core
        left = on_input[edge] if out is None else _summed(_results(space, "unary", edge, unary, weights, out))
        inputs = (left, on_input[edge + 1])
        out = _summed(_results(space, "binary", core, binary, weights, *inputs))
    assert out is not None  # noqa: S101 - a space has a core
    return out


def _on_input(space: Space, x: Tensor, weights: Weights, left: Left) -> dict[int, Tensor]:
    """Return what the edges that act on `x` give; operations without a scalar are evaluated once for all of them."""
    edges = [edge for edge in range(space.edges) if edge == 0 or edge % 2]
    plain = sorted({one for edge in edges for one in left[edge] if space.unary[one].beta is None})
    sums: Sequence[Tensor | None] = [None] * len(edges)
    if plain:
        bank = torch.stack([space.unary[one].function(x, bound=space.bound) for one in plain], -2)
        sums = _product(weights.unary[:, edges][..., plain], bank).unbind(1)
    scalar = tuple(tuple(one for one in ones if space.unary[one].beta is not None) for ones in left)
    return {
        edge: _summed(_results(space, "unary", edge, scalar, weights, x), total)
        for edge, total in zip(edges, sums, strict=True)
    }


def _product(weights: Tensor, bank: Tensor) -> Tensor:
    """Return the matrix product in all digits, however few suffice for the network's: slopes are differences of it."""
    if bank.device.type == "mps":  # has no wider numbers, and rounds none
        return torch.matmul(weights, bank)
    return torch.matmul(weights.double(), bank.double()).to(bank.dtype)


def _results(
    space: Space, kind: str, place: int, left: Left, weights: Weights, *inputs: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weight, `(samples, 1)`, and the result of each operation that is left on an edge or vertex."""
    operations: tuple[Operation, ...] = getattr(space, kind)
    shares, betas = getattr(weights, kind)[:, place], getattr(weights, f"{kind}_betas")[:, place]
    scalars = iter(range(betas.shape[-1]))
    columns = [next(scalars) if one.beta is not None else None for one in operations]
    for one in left[place]:
        column = columns[one]
        beta = () if column is None else (betas[:, column, None],)
        yield shares[:, one, None], operations[one].function(*inputs, *beta, bound=space.bound)


def _summed(parts: Iterator[tuple[Tensor, Tensor]], total: Tensor | None = None) -> Tensor:
    for weight, result in parts:
        total = weight * result if total is None else torch.addcmul(total, weight, result)
    assert total is not None  # noqa: S101 - an operation is always left
    return total
