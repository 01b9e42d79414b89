"""The data of trials: a sample in parts to train on, to choose the learning rate on, and to report on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from softknee._diagnose.task import Batch
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Shares of a sample that are held out: to choose on, and to report on.
CHOOSING, REPORTING = 0.15, 0.25
# The same of a sample that is for validation only.
CHOOSING_OF_HELD = 0.4
FEWEST = 8


@dataclass(frozen=True)
class Pool:
    """Samples, one by one where their tensors have the same shape, else in the batches that the loader made.

    Attributes:
        batches: As the loader gave them.
        joined: All samples in one batch, None where that cannot be made.
    """

    batches: tuple[Batch, ...]
    joined: Batch | None

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Pool:
        """Gather the samples of batches."""
        return cls(tuple(batches), _joined(batches))

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(batch.size for batch in self.batches)

    @property
    def size(self) -> int:
        """Number of samples of a usual batch."""
        return self.batches[0].size

    def split(self, shares: Sequence[float], generator: torch.Generator) -> list[Pool]:
        """Cut the samples in parts, at random.

        Args:
            shares: Of all but the first part, which gets the rest.
            generator: Of the order.

        Raises:
            DataError: There are too few.
        """
        units = len(self.batches) if self.joined is None else self.count
        sizes = [round(share * units) for share in shares]
        sizes = [units - sum(sizes), *sizes]
        if min(sizes) < (1 if self.joined is None else FEWEST):
            what = "batches whose tensors differ in shape" if self.joined is None else "samples"
            raise DataError(f"{units} {what} are too few to train, choose and report on; give more, or a validation")
        order = torch.randperm(units, generator=generator)
        return [self._part(chosen) for chosen in order.split(sizes)]

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield all samples once, in batches and in an order that is drawn; what does not fill a batch is left."""
        if self.joined is None:
            yield from (self.batches[int(place)] for place in torch.randperm(len(self.batches), generator=generator))
            return
        size = min(self.size, self.count)
        order = torch.randperm(self.count, generator=generator)[: self.count // size * size]
        for chosen in order.split(size):
            yield _taken(self.joined, chosen)

    def chunks(self, size: int) -> Iterator[Batch]:
        """Yield all samples once, always in the same batches."""
        if self.joined is None:
            yield from self.batches
            return
        for chosen in torch.arange(self.count).split(size):
            yield _taken(self.joined, chosen)

    def _part(self, chosen: Tensor) -> Pool:
        if self.joined is None:
            return Pool(tuple(self.batches[int(place)] for place in chosen), None)
        part = _taken(self.joined, chosen)
        parts = tuple(_taken(part, one) for one in torch.arange(part.size).split(self.size))
        return Pool(parts, part)


@dataclass(frozen=True)
class Data:
    """What trials train on, choose learning rates on, and report on.

    Attributes:
        training: To train on.
        choosing: To choose on.
        reporting: To report on.
    """

    training: Pool
    choosing: Pool
    reporting: Pool

    @classmethod
    def of(cls, batches: Sequence[Batch], validation: Sequence[Batch] | None, generator: torch.Generator) -> Data:
        """Cut a sample in parts.

        Args:
            batches: The sample.
            validation: Of other data, to choose and report on; None to hold out a part of the sample.
            generator: Of what goes where.
        """
        sample = Pool.of(batches)
        if validation is None:
            return cls(*sample.split([CHOOSING, REPORTING], generator))
        reporting, choosing = Pool.of(validation).split([CHOOSING_OF_HELD], generator)
        return cls(sample, choosing, reporting)


def _joined(batches: Sequence[Batch]) -> Batch | None:
    """Return one batch of all samples, None where tensors differ in shape or are of no sample each."""
    parts = [_flat(batch) for batch in batches]
    _, structure = parts[0]
    if any(other != structure for _, other in parts):
        return None
    leaves = []
    for ones in zip(*(found for found, _ in parts), strict=True):
        if not all(isinstance(one, Tensor) for one in ones):
            if any(isinstance(one, Tensor) or (one is not ones[0] and one != ones[0]) for one in ones):
                return None
            leaves.append(ones[0])
        elif any(
            not one.dim() or len(one) != batch.size or one.shape[1:] != ones[0].shape[1:]
            for one, batch in zip(ones, batches, strict=True)
        ):
            return None
        else:
            leaves.append(torch.cat(ones))
    return _unflat(leaves, structure, sum(batch.size for batch in batches))


def _taken(batch: Batch, chosen: Tensor) -> Batch:
    leaves, structure = _flat(batch)
    some = [one[chosen.to(one.device)] if isinstance(one, Tensor) else one for one in leaves]
    return _unflat(some, structure, len(chosen))


def _flat(batch: Batch) -> tuple[list[Any], Any]:
    return tree_flatten((batch.inputs, dict(batch.keywords), batch.target))


def _unflat(leaves: list[Any], structure: Any, size: int) -> Batch:
    inputs, keywords, target = tree_unflatten(leaves, structure)
    return Batch(inputs, keywords, target, size)
