"""In which states the units of a site are, concluded from its sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee._diagnose.units.histogram import Histogram

if TYPE_CHECKING:
    from softknee._diagnose.units.sums import Sums

NAMES = ("dead", "silent", "constant", "linear", "saturated", "dormant", "gradient_dormant")
# Of a unit whose outputs vary by no more than this share of what is usual in its layer, or slopes of the largest one.
CONSTANT = 1e-6
STRAIGHT = 1e-3
# What never happened in n samples happens in less than 1 - 0.05**(1/n) of all, with 95 % confidence.
_CHANCE = 0.05


@dataclass(frozen=True)
class Limits:
    """From where on a unit is said to be in a state.

    Attributes:
        dormant: Mean of |h|, or of |dL/dh|, in parts of the mean over the layer.
        saturated: Share of slopes below a hundredth of the steepest.
    """

    dormant: float = 0.025
    saturated: float = 0.95


@dataclass(frozen=True)
class State:
    """How many units of a site are in a state.

    Attributes:
        count: Units.
        share: Of all units.
        n: Values of each unit that this is concluded from.
        bound: 95 % upper bound on how often what was never seen happens.
    """

    count: int
    share: float
    n: int
    bound: float

    def to_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return dict(vars(self))


def masks(sums: Sums, limits: Limits) -> dict[str, tuple[Tensor, int] | None]:
    """Return which units are in which state, and how many values of each this is concluded from.

    Args:
        sums: In the memory of the CPU, of at least one value.
        limits: From where on.

    Returns:
        By the name of the state; None where it cannot be said.
    """
    zero = sums.parts["h_counts"][1]
    found: dict[str, tuple[Tensor, int] | None] = dict.fromkeys(NAMES)
    found["silent"] = (zero == sums.n, sums.n)
    # A unit without a finite value is in no state that is said of values.
    known = sums.parts["h_counts"][0] < sums.n
    constant = _is_small(variance(sums, "h"), known, CONSTANT)
    found["constant"] = (constant, sums.n) if sums.n > 1 else None
    found["dormant"] = (_is_small(sums.parts["h_sums"][2], known, limits.dormant), sums.n)
    if has_slopes(sums):
        flat, low = sums.parts["slope_counts"]
        least, most = -sums.parts["slope_edges"][0], sums.parts["slope_edges"][1]
        dead = flat == sums.slopes
        straight = most - least <= STRAIGHT * torch.maximum(most.abs(), least.abs())
        found["dead"] = (dead, sums.slopes)
        found["linear"] = (straight & ~dead & ~constant, sums.slopes)
        found["saturated"] = (low >= limits.saturated * sums.slopes, sums.slopes)
    if sums.gradients:
        sizes, zero = sums.parts["grad_sums"][0], sums.parts["grad_zero"][0]
        known = (sizes > 0) | (zero == sums.gradients)
        found["gradient_dormant"] = (_is_small(sizes, known, limits.dormant), sums.gradients)
    return found


def state(mask: Tensor, n: int) -> State:
    """Return how many units are in a state."""
    count = int(mask.sum())
    return State(count, count / len(mask), n, 1 - _CHANCE ** (1 / n))


def has_slopes(sums: Sums) -> bool:
    """Return whether each output had a slope."""
    return sums.slopes > 0 and not sums.flat


def variance(sums: Sums, side: str) -> Tensor:
    """Return the variance of each unit's finite inputs (`"z"`) or outputs (`"h"`)."""
    first, second = sums.parts[f"{side}_sums"][:2]
    good = finite(sums, side)
    spread: Tensor = second / good - (first / good) ** 2
    return spread.clamp(min=0.0)


def mean(sums: Sums, side: str) -> Tensor:
    """Return the mean of each unit's finite inputs or outputs."""
    found: Tensor = sums.parts[f"{side}_shift"][0] + sums.parts[f"{side}_sums"][0] / finite(sums, side)
    return found


def finite(sums: Sums, side: str) -> Tensor:
    """Return how many finite inputs or outputs each unit had, at least 1."""
    bad = sums.parts["z_bad"][0] if side == "z" else sums.parts["h_counts"][0]
    seen: Tensor = (sums.inputs if side == "z" else sums.n) - bad
    return seen.double().clamp(min=1.0)


@dataclass(frozen=True)
class Moments:
    """Of all values of a site together.

    Attributes:
        mean: Mean.
        std: Standard deviation.
        q: Mean square.
        kurtosis: Fourth central moment by the squared variance: 3 for a normal distribution; None for outputs.
        minimum: Smallest.
        maximum: Largest.
    """

    mean: float
    std: float
    q: float
    kurtosis: float | None
    minimum: float
    maximum: float


def moments(sums: Sums, side: str) -> Moments:
    """Return the moments of a site's finite inputs or outputs."""
    # By numpy, which takes less time for so few numbers.
    names = (f"{side}_shift", f"{side}_sums", f"{side}_edges", "z_bad" if side == "z" else "h_counts")
    (shift, *_), powers, edges, (bad, *_) = (sums.parts[name].numpy() for name in names)
    good = (sums.inputs if side == "z" else sums.n) - bad
    total = float(good.sum())
    if not total:
        return Moments(math.nan, math.nan, math.nan, None, math.nan, math.nan)
    centre = float((good * shift + powers[0]).sum()) / total
    d = shift - centre
    # What is not a number stays so: the order of the two matters.
    second = max(float((powers[1] + 2 * d * powers[0] + good * d**2).sum()) / total, 0.0)
    kurtosis = None
    if side == "z" and second > 0:
        fourth = powers[3] + 4 * d * powers[2] + 6 * d**2 * powers[1] + 4 * d**3 * powers[0] + good * d**4
        kurtosis = float(fourth.sum()) / total / second**2
        kurtosis = kurtosis if math.isfinite(kurtosis) else None
    low, high = edges.max(1).tolist()
    return Moments(centre, math.sqrt(second), second + centre**2, kurtosis, -low, high)


def histogram(sums: Sums) -> Histogram:
    """Return the histogram of a site's finite inputs."""
    z, counts = moments(sums, "z"), sums.parts["cells"][0].tolist()
    count = sum(counts)
    if not count:
        return Histogram(tuple(counts), math.inf, -math.inf, 0.0, 0.0)
    return Histogram(tuple(counts), z.minimum, z.maximum, z.mean * count, z.q * count)


def linear_r2(sums: Sums) -> float | None:
    """Return the share of the outputs' variance that one straight line for each unit explains.

    None where shapes differ, something or its square is not finite, or the outputs do not vary.
    """
    bad = int(sums.parts["z_bad"].sum() + sums.parts["h_counts"][0].sum())
    if "zh" not in sums.parts or bad:
        return None
    z, h = sums.parts["z_sums"][0], sums.parts["h_sums"][0]
    together = sums.parts["zh"][0] / sums.n - z * h / sums.n**2
    before, after = variance(sums, "z"), variance(sums, "h")
    total = float(after.sum())
    explained = torch.where(before > 0, together**2 / before.clamp(min=torch.finfo(before.dtype).tiny), 0.0)
    known = 0 < total < math.inf and bool(before.isfinite().all() & explained.isfinite().all())
    return min(1.0, float(explained.sum()) / total) if known else None


def _is_small(sizes: Tensor, known: Tensor, limit: float) -> Tensor:
    """Return which units have at most a part of what is usual among those that are known; squares may be infinite."""
    known = known & sizes.isfinite()
    usual = torch.where(known, sizes, 0.0).sum() / known.sum().clamp(min=1)
    return known & (sizes <= limit * usual)
