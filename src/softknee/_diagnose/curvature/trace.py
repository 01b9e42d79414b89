"""Hutchinson's method: trace, Frobenius norm and diagonal of an operator from its products with random signs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softknee._report.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

CONFIDENCE = 0.95
# Fewer probes give intervals that are too often too short when their widths decide when to stop.
FEWEST_PROBES = 10
# Signs are drawn for one probe at a time, each by a seed of its own.
_STRIDE = 1_000_003
_BISECTIONS = 60
# Degrees of freedom from which on the quantile of t is that of the normal distribution with a few corrections.
_MANY = 100
_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """An estimate.

    Attributes:
        value: The estimate.
        low: Lower end of its 95 % interval; the value itself where nothing was drawn.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Probed:
    """What products with random signs show of a symmetric operator A.

    Attributes:
        trace: Mean of `v'Av`.
        frobenius: Root of the mean of `|Av|^2`.
        diagonal: `(n,)` mean of `v * Av`.
        products: `v'Av` of each probe.
    """

    trace: Interval
    frobenius: Interval
    diagonal: Tensor
    products: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the diagonal."""
        return plain(
            {
                "trace": self.trace.to_dict(),
                "frobenius": self.frobenius.to_dict(),
                "probes": len(self.products),
            }
        )


def signs(count: int, *, seed: int, probe: int, like: Tensor) -> Tensor:
    """Return random signs, the same on every device.

    Args:
        count: How many.
        seed: Of all probes.
        probe: Which one.
        like: Gives dtype and device.

    Returns:
        `(count,)` of -1 and 1.
    """
    generator = torch.Generator().manual_seed((seed * _STRIDE + probe) % 2**63)
    return (torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8) * 2 - 1).to(like)


def hutchinson(
    product: Callable[[Tensor], Tensor], *, like: Tensor, probes: int, tolerance: float = 0.0, seed: int = 0
) -> Probed:
    """Estimate trace, Frobenius norm and diagonal of a symmetric operator from products with random signs.

    The variance of `v'Av` is `2 (|A|_F^2 - sum a_ii^2)` (Hutchinson 1990): what lies on the diagonal adds nothing.

    Args:
        product: Maps `(n,)` to the same shape.
        like: `(n,)` gives size, dtype and device.
        probes: Most products to make.
        tolerance: Stop once the interval of the trace reaches at most this share of the trace to either side; 0 makes
            all products.
        seed: Of the signs.

    Returns:
        The estimates with 95 % t intervals.
    """
    products: list[float] = []
    squares: list[float] = []
    diagonal = torch.zeros_like(like)
    for probe in range(probes):
        v = signs(like.numel(), seed=seed, probe=probe, like=like)
        w = product(v)
        products.append(float(torch.dot(v, w)))
        squares.append(float(torch.linalg.vector_norm(w)) ** 2)
        diagonal += v * w
        if tolerance and probe + 1 >= FEWEST_PROBES and _is_narrow(mean_interval(products), tolerance):
            break
    square = mean_interval(squares)
    root = Interval(*(math.sqrt(max(one, 0.0)) for one in (square.value, square.low, square.high)))
    return Probed(mean_interval(products), root, diagonal / len(products), tuple(products))


def _is_narrow(found: Interval, tolerance: float) -> bool:
    return found.high - found.value <= tolerance * abs(found.value)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with its 95 % t interval; not finite for a single one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    reach = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def t_quantile(freedom: int) -> float:
    """Return what Student's t stays below in magnitude with a probability of 95 %.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    if freedom > _MANY:
        # To 1e-8 (Abramowitz and Stegun 1964, 26.7.5).
        z, n = _NORMAL, 4.0 * freedom
        return z + (z**3 + z) / n + (5 * z**5 + 16 * z**3 + 3 * z) / (6 * n**2) + _third(z) / (6 * n**3)
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _third(z: float) -> float:
    return 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z


def _within(angle: float, freedom: int) -> float:
    """Return the probability of `|t| < sqrt(freedom) tan(angle)`.

    It is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    cosine, total = math.cos(angle), 0.0
    odd = freedom % 2
    term = cosine if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return (2 / math.pi) * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
