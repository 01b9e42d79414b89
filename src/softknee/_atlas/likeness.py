"""Which functions look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._atlas.facts import Entry

REACH, POINTS = 5.0, 201
MOST = 8


@dataclass(frozen=True)
class Alike:
    """A function that is close to another one.

    Attributes:
        name: Of the activation.
        distance: Root mean square of their difference on [-5, 5], at their defaults.
    """

    name: str
    distance: float


def alike(entries: Sequence[Entry]) -> dict[str, list[Alike]]:
    """Return the closest functions of each function of one number, the closest first.

    Args:
        entries: The activations.

    Returns:
        A few for each, by name.
    """
    x = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    found = [entry for entry in entries if entry.subject.elementwise]
    if len(found) < 2:
        return {}
    with torch.no_grad():
        values = torch.stack([entry.subject(x).expand_as(x).nan_to_num() for entry in found])
    distances = (values[:, None] - values[None]).square().mean(-1).sqrt()
    result = {}
    for entry, row in zip(found, distances, strict=True):
        order = [i for i in row.argsort(stable=True).tolist() if found[i] is not entry]
        result[entry.name] = [Alike(found[i].name, row[i].item()) for i in order[:MOST]]
    return result
