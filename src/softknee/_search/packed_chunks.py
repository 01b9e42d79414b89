"""Which candidates are trained side by side: as many together as memory and the entries of tables allow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from softknee._bench.streams import Stream
from softknee._search.batches import apart, drawing
from softknee._search.pack import Pack
from softknee._search.packed_lookup import MOST_ROWS, Lookup, PackedActivation, can_be_tabulated
from softknee._search.packed_table import tabulated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from softknee._search.candidate import Candidate
    from softknee._search.packed_table import OneTable
    from softknee._search.task import Put, Task
    from softknee._surgery.places import Site

# Bytes that the models of a pack may take together; with more of them at once they are trained no faster.
MEMORY = 256 * 2**20


@dataclass(frozen=True)
class Chunk:
    """Candidates that are trained side by side.

    Attributes:
        rows: Which ones.
        puts: What is put into the model of each; a single one is for all.
    """

    rows: list[int]
    puts: Sequence[Put]

    def pack(self, task: Task, run: int) -> Pack:
        """Return their models at the start of a run."""
        return Pack(task, run, self.puts, len(self.rows))


def chunks(task: Task, candidates: Sequence[Candidate]) -> Iterator[Chunk]:
    """Yield the candidates in the parts that are trained side by side, as many together as memory allows.

    Args:
        task: What they are trained on.
        candidates: In any order.

    Yields:
        The parts.
    """
    written: dict[Any, list[int]] = {}
    gathered = _Gathered(task)
    for row, candidate in enumerate(candidates):
        modules = [function.make() for function in candidate.functions]
        if not all(map(can_be_tabulated, modules)):
            alike = tuple((function.text, function.trained) for function in candidate.functions)
            written.setdefault(alike, []).append(row)
            continue
        tables = [tabulated(module) for module in modules]
        if not gathered.has_room(tables):
            yield gathered.chunk()
            gathered = _Gathered(task, gathered.most)
        gathered.add(row, modules, tables)
    if gathered.rows:
        yield gathered.chunk()
    for rows in written.values():
        puts = [partial(_as_written, candidates[row]) for row in rows]
        most = _most_models(task, puts[0])
        for start in range(0, len(rows), most):
            yield Chunk(rows[start : start + most], puts[start : start + most])


class _Gathered:
    """Candidates with their tables, up to what fits into a pack."""

    def __init__(self, task: Task, most: int | None = None) -> None:
        self._task, self.most = task, most
        self.rows: list[int] = []
        self._modules: list[list[nn.Module]] = []
        self._tables: list[list[OneTable]] = []

    def has_room(self, tables: Sequence[OneTable]) -> bool:
        taken = [sum(len(one.rows) for one in group) for group in zip(*self._tables, tables, strict=True)]
        return len(self.rows) != self.most and max(taken) <= MOST_ROWS

    def add(self, row: int, modules: list[nn.Module], tables: list[OneTable]) -> None:
        self.rows.append(row)
        self._modules.append(modules)
        self._tables.append(tables)
        if self.most is None:
            self.most = _most_models(self._task, self.chunk().puts[0])

    def chunk(self) -> Chunk:
        device = torch.device("cuda", self._task.devices[0]) if self._task.devices else torch.device("cpu")
        groups = zip(zip(*self._modules, strict=True), zip(*self._tables, strict=True), strict=True)
        lookups = [Lookup(modules, tables, device) for modules, tables in groups]
        return Chunk(self.rows, [partial(_through, lookups)])


def _through(lookups: Sequence[Lookup], _: Site, group: int) -> nn.Module:
    return PackedActivation(lookups[group])


def _as_written(candidate: Candidate, site: Site, group: int) -> nn.Module:
    return candidate.functions[group].make(site)


def _most_models(task: Task, put: Put) -> int:
    """Return how many models fit into `MEMORY`, by what one keeps for the backward pass of its largest batches."""
    pack, kept = Pack(task, 0, [put], 1), []
    for batches in (task.train_batches, task.val_batches):
        sizes: dict[int, int] = {}

        def note(saved: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with drawing(task.seed_of(Stream.NOISE, 0)), saved_tensors_hooks(note, lambda saved: saved):
            pack.forward(next(apart(batches, task.seed_of(Stream.ORDER, 0), task.devices)))
        kept.append(sum(sizes.values()))
    return max(1, MEMORY // (max(kept) + pack.nbytes))
