"""The density of eigenvalues from nodes and weights of stochastic Lanczos quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from softknee._diagnose.curvature.lanczos import Krylov

POINTS = 301
# Below this share of the largest magnitude the axis is straight, above logarithmic.
STRAIGHT = 1e-3
# Standard deviation of the smoothing on that axis: relative above, and times `STRAIGHT` below.
SMOOTHING = 0.1
_MARGIN = 4


@dataclass(frozen=True)
class Spectrum:
    """Density of the eigenvalues of a symmetric operator of n rows, each counting 1 / n.

    The axis is `asinh(x / straight)`, straight near 0 and logarithmic beyond. Gaussians on it stand for the nodes, so
    that single large eigenvalues stay as visible as the bulk near 0.

    Attributes:
        x: `(k,)` float64 eigenvalues, evenly spaced on the axis.
        density: `(k,)` float64 mean over probes, per unit of `x`.
        low: `(k,)` smallest of any probe; with exact eigenvalues the density itself.
        high: `(k,)` largest of any probe.
        cumulative: `(k,)` share of eigenvalues up to `x`, not smoothed, mean over probes.
        cumulative_low: `(k,)` smallest of any probe.
        cumulative_high: `(k,)` largest of any probe.
        straight: Up to which magnitude the axis is about straight, in the unit of `x`.
        width: Standard deviation of the smoothing near 0, in the unit of `x`; beyond it is `SMOOTHING` of `|x|`.
        nodes: Of each probe, as they were found.
        weights: Of each probe, summing to 1.
        exact: Whether all eigenvalues were computed, without probes.
    """

    x: NDArray[np.float64]
    density: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    cumulative_low: NDArray[np.float64]
    cumulative_high: NDArray[np.float64]
    straight: float
    width: float
    nodes: tuple[NDArray[np.float64], ...]
    weights: tuple[NDArray[np.float64], ...]
    exact: bool

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        names = ("x", "density", "low", "high", "cumulative", "cumulative_low", "cumulative_high")
        return {
            **{name: getattr(self, name).tolist() for name in names},
            "straight": self.straight,
            "width": self.width,
            "relative_width": SMOOTHING,
            "probes": 0 if self.exact else len(self.nodes),
            "steps": max(map(len, self.nodes)),
            "exact": self.exact,
        }


def spectrum(runs: Sequence[Krylov], *, exact: bool = False) -> Spectrum:
    """Make a density of the nodes and weights of several runs.

    Args:
        runs: From start vectors of random signs, or one of all eigenvalues.
        exact: Whether it is the latter.

    Returns:
        The density with its band over the runs.
    """
    everything = np.concatenate([run.nodes for run in runs])
    largest = float(np.abs(everything).max())
    # Of an operator that is zero nothing but a point at 0 is to be seen, at any scale.
    straight = STRAIGHT * largest or 1.0
    positions = np.arcsinh(everything / straight)
    u = np.linspace(positions.min() - _MARGIN * SMOOTHING, positions.max() + _MARGIN * SMOOTHING, POINTS)
    x = straight * np.sinh(u)
    # A node counts as reached from just below: one point of rounding must not decide.
    reached = x + 1e-9 * np.hypot(x, straight)
    densities, shares = [], []
    for run in runs:
        distance = (u[:, None] - np.arcsinh(run.nodes / straight)) / SMOOTHING
        on_axis = np.exp(-0.5 * distance**2) @ run.weights / (SMOOTHING * np.sqrt(2 * np.pi))
        densities.append(on_axis / np.hypot(x, straight))
        shares.append((run.nodes <= reached[:, None]) @ run.weights)
    density, low, high = _band(densities)
    cumulative, cumulative_low, cumulative_high = _band(shares)
    return Spectrum(
        x=x,
        density=density,
        low=low,
        high=high,
        cumulative=cumulative,
        cumulative_low=cumulative_low,
        cumulative_high=cumulative_high,
        straight=straight,
        width=SMOOTHING * straight,
        nodes=tuple(run.nodes for run in runs),
        weights=tuple(run.weights for run in runs),
        exact=exact,
    )


def _band(rows: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Return mean, smallest and largest of each column."""
    return np.mean(rows, axis=0), np.min(rows, axis=0), np.max(rows, axis=0)
