"""Which functions are the same up to a scale and a shift of the output, which the next layer absorbs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._errors import UsageError
from softknee._expression.fingerprint import POINTS
from softknee._expression.nodes import size_of
from softknee._search.evaluation import values
from softknee._search.formula import formula_of, scalars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from softknee._search.space import Genotype, Space

    Numbers = NDArray[np.float64]

# Where functions are compared: further out few inputs lie, and clamps that no input meets would tell them apart.
REACH = 8.0
WITHIN = POINTS[POINTS.abs() <= REACH]
# Largest difference of functions that count as the same, their deviation over the points being 1. Those of the one-core
# space that are not the same differ by 4e-5 at least; rounding leaves 1e-11, and 1e-7 where parameters are float32.
SAME = 1e-6
# Deviation, relative to the values, below which a function counts as constant.
FLAT = 1e-9
# Directions that fingerprints are told apart by before they are compared, and to how many decimals.
DIRECTIONS, DECIMALS = 3, 3
# The largest space whose functions are enumerated.
MOST = 200_000


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A function up to scale and shift of its output, to be compared and kept in sets.

    Two are equal if their values differ by less than `SAME` everywhere, whatever their last digits. Equal ones have one
    hash but for a chance of about one in a hundred million, where rounding differs just at a decimal.

    Attributes:
        values: At the points, their mean 0 and their deviation 1; the sign is of no account.
    """

    values: Numbers = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fingerprint) and bool(differences(self.values, other.values) < SAME)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(np.round(np.abs(_directions() @ self.values), DECIMALS).tolist()))


def fingerprints(space: Space, genotypes: Sequence[Genotype]) -> list[Fingerprint | None]:
    """Return the fingerprints of functions, their learnable scalars at the means.

    Args:
        space: Where they are from.
        genotypes: They.

    Returns:
        One each; None for those that are constant or not finite.
    """
    return [None if one is None else Fingerprint(one) for one in normalised(_evaluated(space, genotypes))]


def distinct(space: Space) -> tuple[Genotype, ...]:
    """Return one genotype for each function up to scale and shift of its output, the simplest formulas first.

    Args:
        space: Where they are from.

    Returns:
        For each function that is finite and not constant, the genotype whose formula has fewest nodes.

    Raises:
        UsageError: The space is too large to look at all of it.
    """
    if space.size > MOST:
        raise UsageError(
            f"a space of {space.size:,} genotypes is too large to enumerate, {MOST:,} is the most; take fewer "
            "operations, or one core as in 'one-core'"
        )
    genotypes = [*space.genotypes()]
    rows = normalised(_evaluated(space, genotypes))
    found = [_simplest(space, [genotypes[row] for row in same]) for same in classes(rows)]
    return tuple(genotype for _, _, genotype in sorted(found, key=lambda one: one[:2]))


def classes(rows: Sequence[Numbers | None]) -> Iterator[list[int]]:
    """Yield the rows that are the same, by comparing each with its neighbours in one direction.

    Args:
        rows: Normalised values; those that are None are left out.
    """
    finite = [(row, one) for row, one in enumerate(rows) if one is not None]
    along = np.array([abs(_directions()[0] @ one) for _, one in finite])
    # Equal ones are no further apart along a direction of length 1 than in all places together.
    reach = SAME * len(WITHIN) ** 0.5
    left = [finite[place] for place in np.argsort(along, kind="stable")]
    places = np.sort(along)
    taken = np.zeros(len(left), dtype=bool)
    for start, (_, own) in enumerate(left):
        if taken[start]:
            continue
        stop = int(np.searchsorted(places, places[start] + reach, side="right"))
        near = [other for other in range(start, stop) if not taken[other]]
        same = [other for other in near if differences(own, left[other][1]) < SAME]
        taken[same] = True
        yield [left[other][0] for other in same]


def _evaluated(space: Space, genotypes: Sequence[Genotype]) -> Tensor:
    with torch.no_grad():
        return values(space, genotypes, WITHIN)


def normalised(table: Tensor) -> list[Numbers | None]:
    """Return values of functions without their scale and shift; the sign is of no account.

    Args:
        table: At `WITHIN`, `(functions, points)` float64.

    Returns:
        Those with the mean 0 and the deviation 1; None for those that are constant or not finite.
    """
    raw = table.numpy()
    finite = np.isfinite(raw).all(axis=1)
    raw = np.where(finite[:, None], raw, 0.0)
    centred = raw - raw.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1))
    usable = finite & (deviation > FLAT * (1 + np.abs(raw).max(axis=1)))
    shapes = centred / np.where(usable, deviation, 1.0)[:, None]
    return [shape if keep else None for shape, keep in zip(shapes, usable, strict=True)]


def differences(one: Numbers, others: Numbers) -> Numbers:
    """Return the largest difference of normalised values from others, at the sign that suits each of these best.

    Args:
        one: `(points,)`.
        others: `(..., points)`.
    """
    found: Numbers = np.minimum(np.abs(one - others).max(-1), np.abs(one + others).max(-1))
    return found


@cache
def _directions() -> Numbers:
    """Return vectors of length 1 that have nothing to do with any function, `(DIRECTIONS, points)`."""
    found = np.random.default_rng(0).standard_normal((DIRECTIONS, len(WITHIN)))
    lengths: Numbers = np.linalg.norm(found, axis=1, keepdims=True)
    return found / lengths


def _simplest(space: Space, genotypes: Iterable[Genotype]) -> tuple[int, str, Genotype]:
    """Return the genotype with the shortest formula, with the size and text of that."""
    formulas = ((formula_of(space, genotype, scalars_of(space, genotype)), genotype) for genotype in genotypes)
    sized = ((size_of(root), str(root), genotype) for root, genotype in formulas)
    return min(sized, key=lambda one: one[:2])
