"""Mean-field theory of wide networks of one activation: variance, correlation, gradients, criticality.

`z' = W phi(z) + b` with weights of variance `sigma_w2 / inputs` and biases of variance `sigma_b2`, all independent.
Sources: Poole et al. 2016 (arXiv 1606.05340), Schoenholz et al. 2017 (1611.01232), Hayou et al. 2019 (1902.06853),
Klambauer et al. 2017 (1706.02515).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from softknee._card.correlation import Correlation, check_correlation
from softknee._card.propagation import Moments
from softknee._card.quadrature import integrate
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._card.function import Function
    from softknee._card.kinks import Kink
    from softknee._card.quadrature import Quadrature

# Variances among which fixed points are looked for.
LOWEST, PER_DECADE, DECADES = -8, 6, 14
GRID = tuple(10 ** (LOWEST + step / PER_DECADE) for step in range(PER_DECADE * DECADES + 1))
# Stands for a variance that goes to 0.
VANISHING = 1e-12
# A map that moves no variance of the grid by more, relatively, leaves all as they are.
SAME = 1e-12
# How close to 1 a slope of a map counts as 1.
CRITICAL = 1e-9
KEPT = 16
# How far beside a place its slope is taken, relatively: rounding and curvature then cost about 1e-9 each.
BESIDE = 1e-4


class Edge(NamedTuple):
    """Where gradients neither vanish nor explode while a variance stays as it is.

    Attributes:
        sigma_w2: Variance of the weights times the number of inputs.
        sigma_b2: Variance of the biases.
    """

    sigma_w2: float
    sigma_b2: float


class EdgeRate(NamedTuple):
    """How slowly two inputs become alike on the edge: `1 - c_l ~ coefficient / l^power` in layer `l`.

    Attributes:
        power: 1 for a function with a second derivative, 2 for one with kinks.
        coefficient: 0 where inputs keep their correlation.
        early: Of a function with kinks that bends between them: `1 - c_l` falls like `early / l` as long as that is
            less. Infinite for others.
    """

    power: int
    coefficient: float
    early: float = math.inf


@dataclass(frozen=True)
class FixedPoint:
    """A variance that a layer keeps.

    Attributes:
        q: The variance.
        slope: Of the variance map there.
        stable: Whether variances nearby get closer to it.
        every: Whether all variances are kept, of which this is one.
    """

    q: float
    slope: float
    stable: bool
    every: bool = False


@dataclass(frozen=True)
class DepthScales:
    """How deep signals go, at the variance that a network settles at.

    Attributes:
        q: That variance.
        chi: `sigma_w2 E[phi'^2]`: what a layer multiplies the variance of gradients by.
        slope: Of the variance map: `chi + sigma_w2 E[phi'' phi]`.
        c: The correlation that two inputs end up with.
        correlation: Layers over which the distance from it shrinks by e; infinite on the edge.
        variance: The same for the distance of a variance from `q`.
        phase: `"ordered"`, `"edge"` or `"chaotic"`: chi below, at or above 1; always chaotic where the function jumps.
    """

    q: float
    chi: float
    slope: float
    c: float
    correlation: float
    variance: float
    phase: str


@dataclass(frozen=True)
class SelfNormalising:
    """The map of mean and variance at (0, 1), for weights of mean 0 and `inputs * variance` 1.

    Attributes:
        mean: Of the output.
        variance: Of the output.
        mean_slope: Derivative of the mean by the variance of the input.
        variance_slope: Derivative of the variance by the variance of the input.
        fixed: Whether (0, 1) is mapped onto itself, to 1e-6.
        attracting: Whether it is fixed and draws others near.
    """

    mean: float
    variance: float
    mean_slope: float
    variance_slope: float
    fixed: bool
    attracting: bool


class MeanField:
    """What a wide network of one activation does to variances, correlations and gradients.

    Args:
        function: The activation.
        kinks: Where it is not smooth.
    """

    def __init__(self, function: Function, kinks: Sequence[Kink]) -> None:
        self.function = function
        self.kinks = kinks
        self._rules: dict[tuple[float, float], Quadrature] = {}
        self._correlations: dict[float, Correlation] = {}

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        """Where integration is cut: kinks, and places declared as such."""
        return tuple(sorted({*self.function.declared, *(kink.place for kink in self.kinks)}))

    def rule(self, q: float, mean: float = 0.0) -> Quadrature:
        """Return the rule for a normal density."""
        if (q, mean) not in self._rules:
            if len(self._rules) >= KEPT:
                self._rules.pop(next(iter(self._rules)))
            self._rules[q, mean] = integrate(self.function, q, mean, self.breaks)
        return self._rules[q, mean]

    def moments(self, q: float = 1.0, mean: float = 0.0) -> Moments:
        """Return the moments for a normal density."""
        return Moments.of(self.rule(q, mean))

    def correlation(self, q: float) -> Correlation:
        """Return two inputs of a variance."""
        if q not in self._correlations:
            self._correlations[q] = Correlation(self.function, self.breaks, self.rule(q))
        return self._correlations[q]

    def chi(self, sigma_w2: float, q: float = 1.0) -> float:
        """Return `sigma_w2 E[phi'^2]`."""
        check_variances(sigma_w2)
        return sigma_w2 * self.rule(q).slope_square

    def variance_map(self, q: float, sigma_w2: float, sigma_b2: float = 0.0) -> float:
        """Return `sigma_w2 E[phi^2] + sigma_b2`."""
        check_variances(sigma_w2, sigma_b2)
        return sigma_w2 * self.rule(q).square + sigma_b2

    def correlation_map(self, c: float, sigma_w2: float, sigma_b2: float = 0.0, q: float = 1.0) -> float:
        """Return the correlation behind a layer."""
        check_variances(sigma_w2, sigma_b2)
        check_correlation(c)
        return 1 - self.correlation(q).step(1 - c, sigma_w2, sigma_b2)

    def fixed_points(self, sigma_w2: float, sigma_b2: float = 0.0) -> tuple[FixedPoint, ...]:
        """Return the variances from 1e-8 to 1e6, and 0, that a layer keeps, ascending."""
        check_variances(sigma_w2, sigma_b2)

        def moved(q: float, square: float) -> float:
            return sigma_w2 * square + sigma_b2 - q

        moves = [(q, moved(q, square)) for q, square in self._squares if math.isfinite(square)]
        if all(abs(move) <= SAME * q for q, move in moves):
            return (FixedPoint(1.0, 1.0, stable=False, every=True),)
        found = []
        smallest = integrate(self.function, VANISHING, kinks=self.breaks)
        if sigma_w2 * smallest.square + sigma_b2 <= 1e6 * VANISHING:
            slope = sigma_w2 * smallest.square / VANISHING
            found.append(FixedPoint(0.0, slope, stable=slope < 1 - CRITICAL))
        for (low, before), (high, after) in pairwise(moves):
            if before == 0 or before * after < 0:
                q = low if before == 0 else root(lambda q: moved(q, self._square(q)), low, high)
                slope = sigma_w2 * self.rule(q).growth
                found.append(FixedPoint(q, slope, stable=abs(slope) < 1))
        return tuple(found)

    def settled(self, sigma_w2: float, sigma_b2: float = 0.0) -> FixedPoint | None:
        """Return the fixed point that a variance of 1 goes to; None where it grows without end."""
        points = self.fixed_points(sigma_w2, sigma_b2)
        if points and points[0].every:
            return points[0]
        move = self.variance_map(1.0, sigma_w2, sigma_b2) - 1
        above = [point for point in points if point.stable and point.q >= 1]
        below = [point for point in points if point.stable and point.q <= 1]
        return next(iter(above), None) if move > 0 else next(iter(reversed(below)), None)

    def depth_scales(self, sigma_w2: float, sigma_b2: float = 0.0) -> DepthScales | None:
        """Return how deep signals go; None where the variance grows without end."""
        point = self.settled(sigma_w2, sigma_b2)
        if point is None:
            return None
        q = max(point.q, VANISHING)
        chi = sigma_w2 * self.rule(q).slope_square
        phase = "edge" if abs(chi - 1) < CRITICAL else "ordered" if chi < 1 else "chaotic"
        if self._jumps:
            # However close two inputs are, a jump between them tears them apart; the slope of the map at 1 is infinite.
            phase = "chaotic"
        c, slope = (1.0, chi) if phase != "chaotic" else self._chaotic(q, sigma_w2, sigma_b2)
        return DepthScales(point.q, chi, point.slope, c, _scale(slope), _scale(point.slope), phase)

    def edge_of_chaos(self, q: float = 1.0) -> Edge | None:
        """Return the edge at a variance, or None; `no_edge` says why."""
        rule = self.rule(q)
        return None if self._no_edge(q) else _edge(q, rule.square, rule.slope_square)

    def no_edge(self, q: float = 1.0) -> str:
        """Return why there is no edge at a variance; empty where there is one."""
        reason = self._no_edge(q)
        if not reason or self._jumps:
            return reason
        valid = [_edge(*moments) is not None for moments in self._both]
        if not any(valid):
            return f"{reason} It has none at any variance from 1e-8 to 1e6: normalise, or choose another activation."
        first, last = valid.index(True), len(valid) - 1 - valid[::-1].index(True)
        ends = [f"from {self._border(first - 1, first):.3g} up"] if first else []
        ends += [f"up to {self._border(last, last + 1):.3g}"] if last + 1 < len(valid) else []
        return f"{reason} There is one at variances {' and '.join(ends)}."

    def edge_rate(self, q: float = 1.0) -> EdgeRate | None:
        """Return how inputs become alike on the edge at a variance; None where there is no edge."""
        edge = self.edge_of_chaos(q)
        if edge is None or any(math.isinf(kink.size) for kink in self.kinks):
            return None
        # 1 - c' = (1 - c) - s (1 - c)^(3/2) - (1 - c)^2 / b: slopes differ where a kink lies between two inputs, and
        # where the function bends.
        rule, kinks = self.rule(q), [kink for kink in self.kinks if kink.kind == "kink"]
        density = sum(kink.size**2 * _normal(kink.place / math.sqrt(q)) for kink in kinks)
        s = 2 / 3 * edge.sigma_w2 * density / math.sqrt(math.pi)
        square = rule.expect(self.function.derivatives(rule.x, 2)[2].square())
        b = 2 * rule.slope_square / (q * square) if square else math.inf
        if s:
            return EdgeRate(2, 4 / s**2, b)
        return EdgeRate(1, b if math.isfinite(b) else 0.0)

    def self_normalising(self) -> SelfNormalising:
        """Return the map of mean and variance at (0, 1)."""
        rule = self.rule(1.0)
        mean, variance = rule.first, rule.square - rule.first**2
        mean_slope = rule.expect(rule.value * (rule.z.square() - 1)[:, None]) / 2
        variance_slope = rule.growth - 2 * mean * mean_slope
        fixed = abs(mean) < 1e-6 and abs(variance - 1) < 1e-6
        return SelfNormalising(
            mean, variance, mean_slope, variance_slope, fixed, attracting=fixed and abs(variance_slope) < 1
        )

    def _chaotic(self, q: float, sigma_w2: float, sigma_b2: float) -> tuple[float, float]:
        """Return the correlation that inputs of the chaotic phase end up with, and the slope of the map there."""
        two = self.correlation(q)
        gap = root(lambda d: two.step(d, sigma_w2, sigma_b2) - d, 1e-12, 1.0)
        # Of the map itself: jumps contribute to its slope, and are not in the function's.
        above, below = (two.step(gap * (1 + side), sigma_w2, sigma_b2) for side in (BESIDE, -BESIDE))
        return 1 - gap, (above - below) / (2 * BESIDE * gap)

    def _no_edge(self, q: float) -> str:
        """Return why there is no edge at a variance, without looking at others."""
        rule = self.rule(q)
        name = self.function.name
        if self._jumps:
            return f"{name} jumps, so inputs that are almost alike are torn apart, however small the weights."
        if not 0 < rule.slope_square < math.inf:
            return f"{name} has no slope on average at the variance {q:g}, so no weights keep gradients."
        if _edge(q, rule.square, rule.slope_square) is None:
            sigma_w2 = 1 / rule.slope_square
            return (
                f"weights that keep gradients (sigma_w2 = {sigma_w2:.4g}) turn the variance {q:g} into "
                f"more ({sigma_w2 * rule.square:.4g}) before any bias is added, so {name} has no edge of chaos there."
            )
        return ""

    def _border(self, low: int, high: int) -> float:
        """Return the variance between two of the grid where the biases of the edge become 0."""

        def left(q: float) -> float:
            rule = integrate(self.function, q, kinks=self.breaks)
            return q * rule.slope_square - rule.square

        return root(left, GRID[low], GRID[high])

    @property
    def _jumps(self) -> bool:
        return any(kink.kind == "jump" for kink in self.kinks)

    @cached_property
    def _both(self) -> list[tuple[float, float, float]]:
        """Variances with `E[phi^2]` and `E[phi'^2]`."""
        rules = ((q, integrate(self.function, q, kinks=self.breaks)) for q in GRID)
        return [(q, rule.square, rule.slope_square) for q, rule in rules]

    @property
    def _squares(self) -> list[tuple[float, float]]:
        return [(q, square) for q, square, _ in self._both]

    def _square(self, q: float) -> float:
        return integrate(self.function, q, kinks=self.breaks).square


def check_variances(sigma_w2: float, sigma_b2: float = 0.0) -> None:
    """Refuse what are no variances.

    Raises:
        UsageError: One is not.
    """
    if not 0 < sigma_w2 < math.inf:
        raise UsageError(f"sigma_w2 must be a positive number, got {sigma_w2}")
    if not 0 <= sigma_b2 < math.inf:
        raise UsageError(f"sigma_b2 must be a number of at least 0, got {sigma_b2}")


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function changes its sign between two positive numbers, by bisection of their logarithms."""
    a, b = math.log(low), math.log(high)
    sign = math.copysign(1, function(low))
    while b - a > 4e-16 * max(1.0, abs(a)):
        middle = (a + b) / 2
        if middle in {a, b}:
            break
        a, b = (middle, b) if math.copysign(1, function(math.exp(middle))) == sign else (a, middle)
    return math.exp((a + b) / 2)


def _edge(q: float, square: float, slope_square: float) -> Edge | None:
    if not 0 < slope_square < math.inf:
        return None
    sigma_w2 = 1 / slope_square
    sigma_b2 = q - sigma_w2 * square
    # Of ReLU it is 0 but for rounding.
    return Edge(sigma_w2, max(sigma_b2, 0.0)) if sigma_b2 >= -1e-13 * q else None


def _scale(slope: float) -> float:
    """Return over how many layers what is multiplied by a slope shrinks by e."""
    if abs(abs(slope) - 1) < CRITICAL or abs(slope) > 1:
        return math.inf
    return -1 / math.log(abs(slope)) if slope else 0.0


def _normal(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
