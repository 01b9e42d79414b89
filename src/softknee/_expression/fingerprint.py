"""Which known function an unknown one is: values at fixed points, compared and fitted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Residual = Callable[[Tensor], Tensor]

# Dense around 0 and up to 20, at no number that a kink is likely to be at.
_STEPS = torch.linspace(-4.4, 4.4, 89, dtype=torch.float64, device="cpu")
POINTS = 0.49 * torch.sinh(_STEPS) + 0.013 * torch.sin(37 * _STEPS + 1)
# Relative difference up to which two functions count as the same; float64 rounds six digits later.
SAME = 1e-10
# Steps of a fit, how many of them must divide the sum of squares by how much, and the dampings each is tried with.
MOST_STEPS, PATIENCE, PROGRESS = 24, 4, 3.0
DAMPINGS = np.array([1e-8, 1e-5, 1e-3, 1e-1, 1e1, 1e3])
# Keeps a matrix regular where a number makes no difference.
SINGULAR = 1e-12


def fingerprint(function: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return a function's values at the fixed points, in float64.

    Args:
        function: Elementwise.

    Returns:
        The values; None where some are not finite.
    """
    with torch.no_grad():
        values = function(POINTS)
    return values if bool(values.isfinite().all()) else None


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of two fingerprints, relative where values are large."""
    return float(((first - second).abs() / (1 + first.abs())).max())


def affine(target: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and shifts with which `values` come nearest to a target, each point weighted as in `difference`.

    Args:
        target: A fingerprint.
        values: Several, `(sets, points)`.

    Returns:
        Both `(sets, 1)`.
    """
    weight = (1 + target.abs()) ** -2
    weight = weight / weight.sum()
    mean, aim = ((one * weight).sum(dim=-1, keepdim=True) for one in (values, target))
    spread = (weight * (values - mean).square()).sum(dim=-1, keepdim=True)
    scale = (weight * (values - mean) * (target - aim)).sum(dim=-1, keepdim=True) / spread.clamp(min=1e-300)
    return scale, aim - scale * mean


def fit(residual: Residual, start: Sequence[float]) -> tuple[Tensor, float]:
    """Find numbers that make a residual small, by Levenberg and Marquardt's method with numerical derivatives.

    Args:
        residual: Of several sets of numbers at once, `(sets, numbers)` to `(sets, points)`.
        start: Where to begin.

    Returns:
        The numbers, and the largest residual there.
    """
    place = torch.tensor(start, dtype=torch.float64)
    here, sizes = residual(place[None])[0], [math.inf]
    for step in range(MOST_STEPS):
        sizes.append(float(here.square().sum()))
        stuck = step >= PATIENCE and not sizes[-1] * PROGRESS < sizes[-1 - PATIENCE]
        if stuck or not math.isfinite(sizes[-1]) or float(here.abs().max()) < SAME / 100:
            break
        tried = _steps(residual, place, here)
        residuals = residual(tried)
        best = int(residuals.square().sum(dim=1).nan_to_num(math.inf).argmin())
        if not float(residuals[best].square().sum()) < sizes[-1]:
            break
        place, here = tried[best], residuals[best]
    return place, float(here.abs().max())


def _steps(residual: Residual, place: Tensor, here: Tensor) -> Tensor:
    """Return where the steps of each damping lead, `(dampings, numbers)`."""
    moves = (1e-6 * place.abs().clamp(min=1.0)).diag()
    above, below = residual(torch.cat([place + moves, place - moves])).chunk(2)
    # By NumPy: torch wakes all its threads for a matrix of four numbers.
    slopes = ((above - below) / (2 * moves.diag()[:, None])).nan_to_num(0.0, 0.0, 0.0).numpy()
    square = slopes @ slopes.T
    damped = square + DAMPINGS[:, None, None] * np.diag(square.diagonal() + SINGULAR)
    downhill = np.broadcast_to(slopes @ here.numpy(), (len(DAMPINGS), len(place)))
    return place - torch.from_numpy(np.linalg.solve(damped, downhill[..., None])[..., 0])
