"""Values of many functions of a space at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from softknee._search.operations import Operation
    from softknee._search.space import Genotype, Space


def values(space: Space, genotypes: Sequence[Genotype], x: Tensor) -> Tensor:
    """Return the values of functions, their learnable scalars at the means.

    Each operation is applied once for all functions that have it in a place.

    Args:
        space: Where they are from.
        genotypes: Which ones.
        x: Points, `(points,)`, floating.

    Returns:
        `(genotypes, points)` in the dtype of `x`.
    """
    chosen = [space.names(genotype) for genotype in genotypes]
    columns = dict(zip([group.name for group in space.groups], zip(*chosen, strict=True), strict=True))
    result = x.expand(len(genotypes), -1)
    for core in range(space.cores):
        left = _applied(space, space.unary, columns[f"U{2 * core}"], [result if core else x])
        right = _applied(space, space.unary, columns[f"U{2 * core + 1}"], [x])
        result = _applied(space, space.binary, columns[f"B{core}"], [left, right])
    return result


def _applied(space: Space, operations: Sequence[Operation], names: Sequence[str], inputs: Sequence[Tensor]) -> Tensor:
    """Return the results of the operation that each row names, on its rows of the inputs."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    result = inputs[0].new_empty(len(names), inputs[0].shape[-1])
    for operation in operations:
        if operation.name not in rows:
            continue
        own = torch.tensor(rows[operation.name], device=result.device)
        # What is the same for all is computed once.
        parts = [part if part.dim() == 1 else part[own] for part in inputs]
        mean = () if operation.beta is None else (operation.beta[0],)
        result[own] = operation.function(*parts, *mean, bound=space.bound)
    return result
