"""What is observed: the places that a look at a model has found, or the activation modules known by their class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from softknee._diagnose.units.modules import activations_of, has_slope
from softknee._surgery.axes import usual_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from softknee._diagnose.units.slopes import Function
    from softknee._surgery.find import Look
    from softknee._surgery.places import Place, Site

# Functions whose outputs depend on several inputs, or on chance.
_WITHOUT_SLOPE = frozenset({"glu", "softmax", "rrelu"})
# Golden ratio: its multiples spread evenly whatever the number of them.
_SPREAD = 0.618
# How many choices of values take turns.
_TURNS = 16


@dataclass(frozen=True)
class Target:
    """One place to observe.

    Attributes:
        name: Of its results.
        function: What acts there, to be called with other inputs.
        module: The activation, None if it is no module.
        place: How to find it in a run; None if all calls of the module are taken, by their number.
        site: As a look has found it, None if there was no look.
    """

    name: str
    function: Function
    module: nn.Module | None = None
    place: Place | None = None
    site: Site | None = None

    @property
    def has_slope(self) -> bool:
        """Whether each output now depends on one element of the input, and on no chance."""
        if self.module is not None:
            return has_slope(self.module)
        return self.site is not None and self.site.kind not in _WITHOUT_SLOPE

    def axis(self, x: Tensor) -> int | None:
        """Return the dimension of the units of an input or output; None where all elements are of one unit."""
        if self.site is not None and len(self.site.shape) == x.dim() and x.dim():
            return self.site.unit_axis
        return None if x.dim() < 2 else usual_axis(x.shape)


def targets_of(found: Look, model: nn.Module) -> tuple[Target, ...]:
    """Return the places that a look at a model has found, in the order of their calls.

    Those that could not be changed, and those that did not run, are among them.
    """
    sites = {site.place: site for site in found.sites}
    sites |= {one.site.place: one.site for one in found.sites.unseen if one.site is not None}
    return tuple(
        Target(sites[place].name, function, model.get_submodule(place.module) if place.module else None, place, site)
        for place, function in found.functions.items()
        if (site := sites.get(place)) is not None
    )


def targets_by_class(model: nn.Module) -> tuple[Target, ...]:
    """Return the activation modules of softknee, torch, transformers and timm, in the order of their registration."""
    return tuple(Target(name, module, module) for name, module in activations_of(model).items())


Picks = tuple[tuple[int, "Tensor"], ...]


def picks_of(x: Tensor, axis: int | None, most: int, turn: int) -> Picks:
    """Return which entries of which dimensions to take, so that each unit has as many values as any other.

    Args:
        x: Of any shape.
        axis: Dimension of the units.
        most: Values for each unit.
        turn: Others are taken at another turn.
    """
    return _picks(tuple(x.shape), axis, most, turn % _TURNS, x.device)


def pick(x: Tensor, picks: Picks) -> Tensor:
    """Return the chosen entries; all of them if nothing is to be chosen."""
    for dim, index in picks:
        x = x.index_select(dim, index)
    return x


@lru_cache(maxsize=1024)
def _picks(shape: tuple[int, ...], axis: int | None, most: int, turn: int, device: torch.device) -> Picks:
    left = float(most)
    others = [dim for dim in range(len(shape)) if dim != axis]
    chosen: list[tuple[int, int]] = []
    for position, dim in enumerate(others):
        # As many samples as possible, then evenly along the other dimensions.
        share = left if position == 0 else left ** (1 / (len(others) - position))
        count = max(1, min(shape[dim], int(share + 1e-9)))
        left /= count
        if count < shape[dim]:
            chosen.append((dim, count))
    # What leaves least comes first.
    chosen.sort(key=lambda one: one[1] / shape[one[0]])
    return tuple((dim, _spread(shape[dim], count, turn).to(device)) for dim, count in chosen)


def _spread(size: int, count: int, turn: int) -> Tensor:
    """Return different numbers below a size, at no regular distance, in order."""
    places = (torch.arange(count, dtype=torch.float64) / count + _SPREAD * turn / count) % 1.0
    jitter = (torch.arange(count, dtype=torch.float64) * _SPREAD) % 1.0 / count
    found: Tensor = ((places + jitter) % 1.0 * size).long().clamp(max=size - 1).unique()
    return found


def per_unit(shape: Sequence[int], axis: int | None, total: int) -> int:
    """Return how many values each unit may have so that all have at most as many together."""
    units = 1 if axis is None else shape[axis]
    return max(1, total // max(units, 1))
