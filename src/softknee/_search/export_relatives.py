"""The known activations that a function is drawn beside: the usual ones, and the one it is most like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee._card.subject import Subject
from softknee._catalogue import get
from softknee.functional import SPECS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from softknee._card.card import Card
    from softknee._spec import Spec

USUAL = ("relu", "gelu", "silu")
REACH, POINTS = 5.0, 201
# What is left of one that is the same.
SAME = 1e-6
# Of one that cannot be told apart in a plot.
ALIKE = 1e-3
# Close ones that are named.
MOST = 3


@dataclass(frozen=True)
class Likeness:
    """How near a known activation comes to a function when it is scaled and shifted, which the next layer can undo.

    Attributes:
        name: In the catalogue.
        scale: Of its output.
        shift: Of its output.
        left: Root mean square of what is left on [-5, 5], over the standard deviation of the function there.
    """

    name: str
    scale: float
    shift: float
    left: float


def relatives(card: Card, x: Sequence[float]) -> dict[str, Any]:
    """Return curves of known activations beside a function's, and which it is most like.

    Args:
        card: Of the function.
        x: Positions of the curves.

    Returns:
        `nearest`: the closest of the catalogue up to scale and shift, closest first. `curves`: name, value and slope
        along `x` of ReLU, GELU and SiLU as they are, and of the nearest other one as it is scaled and shifted.
    """
    at = torch.tensor(x, dtype=torch.float64)
    near = nearest(card)
    others = [one for one in near if one.name not in USUAL and one.left > ALIKE][:1]
    shown = [*(Likeness(name, 1.0, 0.0, 0.0) for name in USUAL), *others]
    return {"nearest": near[:MOST], "curves": [_curve(one, at) for one in shown]}


def nearest(card: Card) -> list[Likeness]:
    """Return how like the function the activations of the catalogue are at their defaults, the closest first.

    Args:
        card: Of the function.
    """
    x = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    target = card(x).nan_to_num()
    spread = target.std(correction=0).item()
    found = [_likeness(spec, x, target, spread) for spec in SPECS if _is_comparable(spec)] if spread else []
    known = [one for one in found if one is not None]
    return sorted(known, key=lambda one: (one.left > SAME and one.left, len(get(one.name).parameters)))


def _is_comparable(spec: Spec) -> bool:
    plain = spec.kind == "elementwise" and not spec.channelwise and not any(one.vector for one in spec.parameters)
    return plain and all(one.default is not None for one in spec.parameters)


def _likeness(spec: Spec, x: Tensor, target: Tensor, spread: float) -> Likeness | None:
    """Scale and shift an activation by least squares; None of a constant."""
    with torch.no_grad():
        values = Subject.of(spec)(x).expand_as(x).nan_to_num()
    centred = values - values.mean()
    size = centred.square().mean().item()
    if not size:
        return None
    scale = (centred * target).mean().item() / size
    shift = target.mean().item() - scale * values.mean().item()
    left = (scale * values + shift - target).square().mean().sqrt().item() / spread
    return Likeness(spec.name, scale, shift, left)


def _curve(one: Likeness, x: Tensor) -> dict[str, Any]:
    value, slope, _ = Subject.of(get(one.name)).derivatives(x)
    return {
        "name": one.name,
        "scale": one.scale,
        "shift": one.shift,
        "value": (one.scale * value + one.shift).tolist(),
        "slope": (one.scale * slope).tolist(),
    }
