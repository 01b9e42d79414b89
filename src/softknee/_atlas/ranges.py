"""Ranges of values: which of their ends are reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from softknee._card.properties import Properties
    from softknee._card.subject import Subject

NEAR, POINTS = 10.0, 20_001
# Bounds that functions of bounded pieces reach are met to the last digits, those of smooth ones between two points.
EXACT, CLOSE = 1e-12, 1e-5
OSCILLATING = 12


def reached(subject: Subject, seen: Properties) -> tuple[bool, bool]:
    """Return whether the smallest and the largest value are taken, or only approached far out.

    A smooth function takes its bound where its slope changes sign; others may have pieces that stay at it. One that
    turns again and again comes near it too often to tell.

    Args:
        subject: A function of one number.
        seen: Its properties.

    Returns:
        One answer for each end; infinite ends are not reached.
    """
    x = torch.linspace(-NEAR, NEAR, POINTS, dtype=torch.float64)
    value, slope, _ = subject.derivatives(x)
    if subject.spec.promises.smooth:
        value = value[1:][slope[1:] * slope[:-1] < 0]
        if len(value) > OSCILLATING:
            return math.isfinite(seen.minimum), math.isfinite(seen.maximum)
    slack = CLOSE if subject.spec.promises.smooth else EXACT
    return _meets(value, seen.minimum, slack), _meets(value, seen.maximum, slack)


def _meets(values: torch.Tensor, bound: float, slack: float) -> bool:
    if not math.isfinite(bound) or not len(values):
        return False
    return bool((values - bound).abs().min() <= slack * (1 + abs(bound)))
