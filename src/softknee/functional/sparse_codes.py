"""Sparse codes: winners keep their values, or tiles light up, and all else is 0."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Promises, Spec
from softknee.functional._groups import along, filled, grouped, not_negative
from softknee.functional._precision import widening

# Products that ought to be whole, such as 0.29 * 100, may be a little less.
ALMOST = 1e-6


def lwta(x: Tensor, group: int = 2, *, dim: int = -1) -> Tensor:
    r"""Local winner takes all: the largest of each group of neighbouring entries stays, the others become 0.

    Args:
        x: At least one dimension, any floating dtype.
        group: Entries of a group.
        dim: Dimension of the entries, of a size that is a multiple of `group`.

    Returns:
        Same shape and dtype as `x`; of equal entries the first wins, and has all of the derivative.
    """
    groups, inner = grouped(x, group, dim, "lwta")
    place = along(torch.arange(group, device=x.device), groups, inner)
    kept = torch.where(place == groups.argmax(inner, keepdim=True), groups, 0.0)
    return kept.flatten(inner - 1, inner)


def kwta(x: Tensor, ratio: Tensor | float = 0.1, *, dim: int = -1) -> Tensor:
    r"""Several winners take all: the $k = \max(1, \lfloor r n \rfloor)$ largest of $n$ entries stay, the others are 0.

    Args:
        x: At least one dimension, any floating dtype.
        ratio: $r$, the part of the entries that stays: a number.
        dim: Dimension of the entries.

    Returns:
        Same shape and dtype as `x`; entries equal to the last winner stay as well.
    """
    dim = filled(x, dim, "kwta")
    part = ratio.detach().item() if isinstance(ratio, Tensor) else ratio
    count = max(1, math.floor(part * x.shape[dim] + ALMOST))
    last = x.detach().topk(count, dim).values.narrow(dim, count - 1, 1)
    # Written so that NaN stays NaN.
    return torch.where(x < last, 0.0, x)


@widening
def fta(
    x: Tensor, tiles: int = 20, bound: Tensor | float = 20.0, eta: Tensor | float = 2.0, *, dim: int = -1
) -> Tensor:
    r"""Fuzzy tiling: each entry becomes one number for each of $k$ tiles of $[-b, b]$, 1 in the tile it is in.

    $1 - I_\eta(d)$ with the distance $d$ from the tile, $I_\eta(d) = d$ up to $\eta$ and 1 beyond. Half precision is
    computed in float32.

    Args:
        x: At least one dimension, any floating dtype.
        tiles: $k$.
        bound: $b > 0$.
        eta: $\eta \ge 0$.
        dim: Dimension of the entries.

    Returns:
        Dtype of `x`, and its shape but for $k$ times the size in `dim`; an entry's tiles are neighbours. The derivative
        at the edges of a tile is 0, at $d = \eta$ that from inside.
    """
    dim = not_negative(x, dim, "fta")
    point = x.unsqueeze(dim + 1)
    width = 2 * bound / tiles
    left = along(torch.arange(tiles, dtype=x.dtype, device=x.device), point, dim + 1) * width - bound
    distance = F.relu(left - point) + F.relu(point - width - left)
    code = 1 - torch.where(distance > eta, 1.0, distance)
    return code.flatten(dim, dim + 1)


def _lwta_stated(entries: list[Any], group: int) -> list[Any]:
    kept = []
    for start in range(0, len(entries), group):
        part = entries[start : start + group]
        winner = part.index(max(part))
        kept += [x if place == winner else 0 for place, x in enumerate(part)]
    return kept


def _kwta_stated(entries: list[Any], ratio: Any) -> list[Any]:
    count = max(1, int(ratio * len(entries) + ALMOST))
    last = sorted(entries)[-count]
    return [x if x >= last else 0 for x in entries]


def _fta_stated(entries: list[Any], tiles: int, bound: Any, eta: Any) -> list[Any]:
    codes = []
    for x in entries:
        for tile in range(tiles):
            left, right = (2 * bound * edge / tiles - bound for edge in (tile, tile + 1))
            distance = max(left - x, 0, x - right)
            codes.append(1 - distance if distance <= eta else 0)
    return codes


SPECS = (
    Spec(
        name="lwta",
        title="LWTA",
        family="vector",
        kind="vector",
        function=lwta,
        formula="the largest of each group of neighbouring entries, 0 in place of the others",
        statement=_lwta_stated,
        parameters=(Param(name="group", default=2, integer=True, low=1),),
        promises=Promises(zero_at_zero=True),
        source="srivastava2013lwta",
        note="Discontinuous where the winner changes, unless it is 0 there.",
    ),
    Spec(
        name="kwta",
        title="KWTA",
        family="vector",
        kind="vector",
        function=kwta,
        formula="entries not below the k-th largest, 0 in place of the others; k = max(1, floor(ratio * n))",
        statement=_kwta_stated,
        parameters=(Param(name="ratio", default=0.1, low=0.0, open_low=True, high=1.0, fixed=True),),
        promises=Promises(zero_at_zero=True),
        source="xiao2020kwta",
        note="The paper takes the winners among all entries of a sample: flatten them first for that. Here they are"
        " those along one dimension. At least one winner is ours. The ratio decides a number of entries, so it has no"
        " gradient.",
    ),
    Spec(
        name="fta",
        title="FTA",
        family="vector",
        kind="vector",
        function=fta,
        formula="1 - d for each tile at a distance d of no more than eta, 0 for the others; k tiles cover [-b, b]",
        statement=_fta_stated,
        parameters=(
            Param(name="tiles", default=20, integer=True, low=1),
            Param(name="bound", default=20.0, low=0.0, open_low=True),
            Param(name="eta", default=2.0, low=0.0),
        ),
        promises=Promises(lower_bound=-1.0, upper_bound=1.0, same_shape=False),
        source="pan2021fta",
        note="It makes k times as many channels. Inputs beyond the bound by more than eta have no tile and no gradient."
        " At the distance eta the code jumps from 1 - eta to 0; only eta = 1 makes it continuous, and a larger one, as"
        " the default, makes it negative before. The authors choose the bound to suit the inputs, and eta as the width"
        " of a tile.",
    ),
)
