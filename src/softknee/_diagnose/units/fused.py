"""The values of several sites and steps summed at once, so that an observed step costs little more than another."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from softknee._diagnose.units.slopes import slope_of
from softknee._diagnose.units.sums import SHIFTS, Packed, Sums, by_unit, fetched, merged, wide
from softknee._surgery.compose import replay
from softknee._surgery.probe import TORCH
from softknee._surgery.trace import Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._diagnose.units.slopes import Function
    from softknee._surgery.trace import Call


@dataclass
class Record:
    """What was chosen of one call at one site.

    Attributes:
        name: Of the site.
        z: Inputs, `(values, units)`.
        h: Outputs.
        slopes: Their slopes; a function of the inputs where sites with the same one are to share the work; None where
            they have none.
        steepest: To be broadcast, `(1, units)` or `(1, 1)`.
        gradients: Of each backward pass.
    """

    name: str
    z: Tensor
    h: Tensor
    slopes: Tensor | Common | None
    steepest: Tensor | None
    gradients: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Common:
    """A function that is the same at several sites.

    Attributes:
        key: Equal for the same function.
        function: One of them.
    """

    key: str
    function: Function = field(compare=False)


def common(function: Function) -> Common | None:
    """Return a function as one of several that are the same, None if it has parameters or is of an unknown kind.

    Modules of torch with the same options are the same, and calls of the same functions with the same numbers.
    """
    if isinstance(function, nn.Module) and type(function) in TORCH and next(function.parameters(), None) is None:
        return Common(repr(function), function)
    if isinstance(function, partial) and function.func is replay:
        return _written(function, *function.args)
    return None


def _written(function: Function, calls: Sequence[Call], source: int) -> Common | None:
    """Return what calls compute, with tensors numbered from the input on; None if they take other tensors."""
    numbers = {source: 0}
    words = []
    for call in calls:
        given, _ = tree_flatten((call.arguments, call.keywords), is_leaf=lambda one: isinstance(one, Ref))
        tensors = [one for one in given if isinstance(one, Ref | Tensor)]
        if call.function is None or any(not isinstance(one, Ref) or one.number not in numbers for one in tensors):
            return None
        plain = [f"#{numbers[one.number]}" if isinstance(one, Ref) else repr(one) for one in given]
        words.append(f"{call.function!r}({', '.join(plain)}, {sorted(call.keywords)})")
        numbers[call.output] = len(numbers)
    return Common("; ".join(words), function)


@dataclass(frozen=True)
class Fused:
    """Sums of several sites side by side.

    Attributes:
        names: Of the sites.
        widths: Their numbers of units.
        packed: Their sums, the histograms one in a row each.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    packed: Packed

    @property
    def layout(self) -> Any:
        """What those have in common that can be merged as they are."""
        return self.names, self.widths, self.packed.shapes

    def sums(self) -> list[tuple[str, Sums]]:
        """Return those of each site."""
        whole = self.packed.sums()
        if len(self.names) == 1:
            return [(self.names[0], whole)]
        counts = self.packed.counts
        parts = [Sums(*counts, {"cells": row[None]}) for row in whole.parts.pop("cells")]
        for name, part in whole.parts.items():
            for one, columns in zip(parts, part.split(self.widths, dim=1), strict=True):
                one.parts[name] = columns
        return list(zip(self.names, parts, strict=True))


def flat(x: Tensor, axis: int | None) -> Tensor:
    """Return values as `(values, units)`."""
    rows = by_unit(x, axis)
    return rows[..., 0] if rows.shape[2] == 1 else rows.transpose(1, 2).reshape(-1, rows.shape[1])


Shifts = dict[Any, "dict[str, Tensor]"]


def fuse(records: Sequence[Record], shifts: Shifts) -> list[Fused]:
    """Sum the values of records.

    Args:
        records: In the order of the calls.
        shifts: What was subtracted from values of the same sites before, and so will be again.

    Returns:
        Sums on the device of the values.
    """
    groups: dict[Any, list[Record]] = {}
    seen: dict[str, int] = {}
    for one in records:
        # Calls at one site, of several steps or one, are first told apart.
        turn = seen[one.name] = seen.get(one.name, -1) + 1
        slopes = one.slopes.key if isinstance(one.slopes, Common) else one.slopes is None
        own = None if one.z.shape == one.h.shape else one.name
        kind = (one.h.dtype, one.z.dtype, one.h.device, slopes, len(one.gradients), own)
        groups.setdefault((turn, len(one.h), kind), []).append(one)
    alike: dict[Any, list[list[Record]]] = {}
    for (_, _, kind), group in groups.items():
        names, widths = tuple(one.name for one in group), tuple(one.h.shape[1] for one in group)
        alike.setdefault((names, widths, kind), []).append(group)
    return [_fused(names, widths, several, shifts) for (names, widths, _), several in alike.items()]


def _fused(
    names: tuple[str, ...], widths: tuple[int, ...], groups: Sequence[Sequence[Record]], shifts: Shifts
) -> Fused:
    z = _joined([[one.z for one in group] for group in groups])
    h = _joined([[one.h for one in group] for group in groups])
    sums = Sums(parts=dict(shifts.get((names, widths), {})))
    # What is summed is about to be fetched, so that it does no harm to wait for one number more.
    finite = bool((z.sum() + h.sum()).isfinite())
    owner = None if len(names) == 1 else owners(widths, h.device)
    sums.add(wide(z), wide(h), owner, len(names), finite=finite)
    shifts[names, widths] = {name: sums.parts[name] for name in SHIFTS}
    _add_slopes(sums, groups, z, widths)
    for turn in range(len(groups[0][0].gradients)):
        sums.add_gradient(wide(_joined([[one.gradients[turn] for one in group] for group in groups])))
    return Fused(names, widths, sums.packed())


def _add_slopes(sums: Sums, groups: Sequence[Sequence[Record]], z: Tensor, widths: Sequence[int]) -> None:
    first = groups[0][0].slopes
    # Parameters may have changed between the steps, but hardly.
    steepest = [
        one.steepest.expand(1, width) for one, width in zip(groups[-1], widths, strict=True) if one.steepest is not None
    ]
    if first is None or not steepest:
        sums.add_slopes(None, None)
        return
    if isinstance(first, Common):
        slopes = slope_of(first.function, z)
    else:
        slopes = _joined([[one.slopes for one in group if isinstance(one.slopes, torch.Tensor)] for group in groups])
    sums.add_slopes(wide(slopes), _joined([steepest]))


def collected(several: Sequence[Fused]) -> dict[str, Sums]:
    """Return the sums of each site over all that was fused, in the memory of the CPU.

    Of a site whose number of units changed, what was seen last of as many units.
    """
    by_layout: dict[Any, list[Fused]] = {}
    for one in several:
        by_layout.setdefault(one.layout, []).append(one)
    found: dict[str, list[Sums]] = {}
    for alike in by_layout.values():
        first = alike[0]
        if len(alike) > 1:
            first = Fused(first.names, first.widths, merged([one.packed.sums() for one in alike]).packed())
        for name, sums in first.sums():
            found.setdefault(name, []).append(sums)
    last = {name: width for one in several for name, width in zip(one.names, one.widths, strict=True)}
    return {name: merged([one for one in parts if one.units == last[name]]) for name, parts in found.items()}


def to_cpu(several: Sequence[Fused]) -> list[Fused]:
    """Return the same in the memory of the CPU, after one transfer for each device."""
    packs = fetched([one.packed for one in several])
    return [Fused(one.names, one.widths, pack) for one, pack in zip(several, packs, strict=True)]


def _joined(groups: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return values of several sites side by side, and those of several groups of them one after another."""
    rows = [group[0] if len(group) == 1 else torch.cat(list(group), dim=1) for group in groups]
    return (rows[0] if len(rows) == 1 else torch.cat(rows))[..., None]


@lru_cache(maxsize=64)
def owners(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return for each unit the index of its site."""
    return torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)).to(device)
