"""Shaped activations: scaled and shifted so that deep networks of them start critical (DKS and TAT).

`phi_hat(x) = output_scale * (phi(input_scale * x + input_shift) + output_shift)`. With inputs of variance 1, `Q` and
`C` are the maps of variances and correlations of `phi_hat`, and `C_f` that of the whole network, here a chain of
`depth` layers. Conditions: DKS, Martens et al. 2021 (arXiv 2110.01765); TAT, Zhang et al. 2022 (arXiv 2203.08120).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from softknee._card.function import function_of
from softknee._card.kinks import kinks_of
from softknee._card.quadrature import integrate
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from softknee._card.function import Function

ZETA, TAU, ETA = 1.5, 0.3, 0.9
# Where solving starts: scales and shifts of the input.
SCALES = (1.0, 0.5, 2.0, 0.2, 0.1, 0.05, 4.0)
SHIFTS = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)
STEPS, HALVINGS, MOST_STARTS = 30, 10, 10
CLOSE, DIFFERENCE, SMALLEST_SCALE = 1e-12, 1e-6, 1e-4
# Bounds within which a shift of the input is looked for.
FARTHEST = 12.0


@dataclass(frozen=True)
class Shaped:
    """How an activation is scaled and shifted.

    Attributes:
        input_scale: Of `x`.
        input_shift: Added to that.
        output_scale: Of the result.
        output_shift: Added to the activation before.
    """

    input_scale: float
    input_shift: float
    output_scale: float
    output_shift: float

    def apply(self, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Evaluate the shaped activation.

        Args:
            activation: The one it is made of.
            x: Any shape.

        Returns:
            Same shape as what the activation gives.
        """
        return self.output_scale * (activation(self.input_scale * x + self.input_shift) + self.output_shift)


@dataclass(frozen=True)
class _Maps:
    """What conditions are about, for an activation at `input_scale * z + input_shift`.

    Attributes:
        mean: `E[phi]`.
        variance: Of `phi`.
        tilt: `E[phi phi' z]` times the input scale, per unit of output scale.
        lean: `E[phi' z]` times the input scale.
        slope: `E[phi'^2]` times the input scale squared.
        bend: `E[phi''^2]` times its fourth power; None unless asked for.
    """

    mean: float
    variance: float
    tilt: float
    lean: float
    slope: float
    bend: float | None


def dks(activation: Any, depth: int, *, zeta: float = ZETA) -> Shaped:
    """Shape an activation by Deep Kernel Shaping.

    `Q(1) = 1`, `Q'(1) = 1`, `C(0) = 0` and `C_f'(1) = C'(1)^depth = zeta`.

    Args:
        activation: As in `softknee.card`.
        depth: Layers of the activation in the chain, at least 1.
        zeta: Above 1: the larger, the less linear the network.

    Returns:
        Scales and shifts.

    Raises:
        UsageError: An argument is out of range, or no scales and shifts do it, as for ReLU.
    """
    _check(depth, zeta > 1, f"zeta must be above 1, got {zeta}")
    function = function_of(activation)

    def conditions(scale: float, shift: float) -> tuple[float, float]:
        maps = _maps(function, scale, shift)
        if not 0 < maps.variance < math.inf:
            return math.nan, math.nan
        # With the output scaled to variance 1 around mean 0.
        growth = (maps.tilt - maps.mean * maps.lean) / maps.variance
        return growth - 1, math.log(maps.slope / maps.variance) - math.log(zeta) / depth

    _, scale, shift = _solve([conditions], f"{function.name} cannot be shaped by DKS to depth {depth}, zeta {zeta:g}")
    maps = _maps(function, scale, shift)
    return Shaped(scale, shift, maps.variance**-0.5, -maps.mean)


def tat(activation: Any, depth: int, *, tau: float = TAU) -> Shaped:
    """Shape a smooth activation by Tailored Activation Transformation.

    `Q(1) = 1`, `Q'(1) = 1`, `C'(1) = 1` and `C_f''(1) = depth C''(1) = tau`.

    Args:
        activation: As in `softknee.card`, with a second derivative.
        depth: Layers of the activation in the chain, at least 1.
        tau: Positive: the larger, the less linear the network.

    Returns:
        Scales and shifts.

    Raises:
        UsageError: An argument is out of range, the activation has kinks, or no scales and shifts do it.
    """
    _check(depth, tau > 0, f"tau must be positive, got {tau}")
    function = function_of(activation)
    if any(kink.kind != "bend" for kink in kinks_of(function)):
        raise UsageError(
            f"TAT needs a slope without jumps, which {function.name} has not; leaky ReLU has tat_leaky_relu"
        )

    def conditions(sign: float, scale: float, shift: float) -> tuple[float, float]:
        maps = _maps(function, scale, shift, bend=True)
        rest = maps.slope - maps.variance
        if not (0 < maps.slope < math.inf and rest >= 0 and maps.bend):
            return math.nan, math.nan
        # The output scale makes the slope 1, its shift what is missing of the mean square: by a root of either sign.
        growth = (maps.tilt + (sign * math.sqrt(rest) - maps.mean) * maps.lean) / maps.slope
        return growth - 1, math.log(maps.bend / maps.slope) - math.log(tau / depth)

    signs = (1.0, -1.0)
    failure = f"{function.name} cannot be shaped by TAT to depth {depth}, tau {tau:g}"
    which, scale, shift = _solve([partial(conditions, sign) for sign in signs], failure)
    maps = _maps(function, scale, shift)
    root = math.sqrt(max(maps.slope - maps.variance, 0.0))
    return Shaped(scale, shift, maps.slope**-0.5, signs[which] * root - maps.mean)


def tat_leaky_relu(depth: int, *, eta: float = ETA) -> tuple[float, float]:
    """Return the negative slope and the output scale of the leaky ReLU of TAT.

    `C_f(0) = eta` for the chain, with the scale `sqrt(2 / (1 + slope^2))` that keeps variances.

    Args:
        depth: Layers of the activation in the chain, at least 1.
        eta: Between 0 and the value that ReLU has.

    Returns:
        Slope and scale.

    Raises:
        UsageError: An argument is out of range, or ReLU itself keeps the correlation below `eta` at that depth.
    """
    _check(depth, 0 < eta < 1, f"eta must be between 0 and 1, got {eta}")
    if leaky_correlation(0.0, depth, 0.0) < eta:
        raise UsageError(f"at depth {depth} even ReLU has C_f(0) below {eta:g}; give a smaller eta")
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if leaky_correlation(middle, depth, 0.0) > eta else (low, middle)
    slope = (low + high) / 2
    return slope, math.sqrt(2 / (1 + slope**2))


def leaky_correlation(slope: float, depth: int, c: float) -> float:
    """Return the correlation behind a chain of leaky ReLUs (Cho and Saul 2009)."""
    for _ in range(depth):
        root = math.sqrt(max(1 - c * c, 0.0))
        c += (1 - slope) ** 2 / (math.pi * (1 + slope**2)) * (root - c * math.acos(max(-1.0, min(1.0, c))))
        c = min(c, 1.0)
    return c


def _maps(function: Function, scale: float, shift: float, *, bend: bool = False) -> _Maps:
    rule = integrate(function, scale**2, shift)
    across = rule.slope * rule.z[:, None]
    second = function.derivatives(rule.x, 2)[2] if bend else None
    return _Maps(
        mean=rule.first,
        variance=rule.square - rule.first**2,
        tilt=scale * rule.expect(rule.value * across),
        lean=scale * rule.expect(across),
        slope=scale**2 * rule.slope_square,
        bend=None if second is None else scale**4 * rule.expect(second.square()),
    )


def _solve(variants: Sequence[Callable[[float, float], tuple[float, float]]], failure: str) -> tuple[int, float, float]:
    """Return a positive scale and a shift at which two conditions are 0, by Newton's method from several starts.

    Args:
        variants: Of the conditions: one of them is enough.
        failure: What could not be done.

    Returns:
        Which variant, the scale and the shift.

    Raises:
        UsageError: None was found.
    """

    def at(which: int, place: Tensor) -> Tensor:
        return torch.tensor(variants[which](math.exp(place[0].item()), place[1].item()), dtype=torch.float64)

    starts = [(which, math.log(a), b) for which in range(len(variants)) for a in SCALES for b in SHIFTS]
    residuals = {start: at(start[0], _place(start)).abs().max().item() for start in starts}
    close = sorted((start for start in starts if math.isfinite(residuals[start])), key=residuals.__getitem__)
    for start in close[:MOST_STARTS]:
        place = _newton(partial(at, start[0]), _place(start))
        if place is not None:
            return start[0], math.exp(place[0].item()), place[1].item()
    raise UsageError(f"{failure}: no scale and shift of its input do it")


def _place(start: tuple[int, float, float]) -> Tensor:
    return torch.tensor(start[1:], dtype=torch.float64)


def _newton(at: Callable[[Tensor], Tensor], place: Tensor) -> Tensor | None:
    """Return a root near a place, with steps halved until they help; None where they lead nowhere."""
    here = at(place)
    for _ in range(STEPS):
        if here.abs().max().item() < CLOSE:
            return place
        steps = DIFFERENCE * torch.eye(2, dtype=torch.float64)
        columns = [(at(place + one) - at(place - one)) / (2 * DIFFERENCE) for one in steps]
        slopes = torch.stack(columns, dim=1)
        if not bool(slopes.isfinite().all()) or slopes.det().abs().item() < 1e-300:
            return None
        step = -torch.linalg.solve(slopes, here)
        step = step / max(1.0, step.abs().max().item())
        for _ in range(HALVINGS):
            there = at(place + step)
            if bool(there.isfinite().all()) and there.norm() < here.norm():
                break
            step = step / 2
        else:
            return place if here.abs().max().item() < 100 * CLOSE else None
        place, here = place + step, there
        if abs(place[1].item()) > FARTHEST or place[0].item() < math.log(SMALLEST_SCALE):
            return None
    return place if here.abs().max().item() < 100 * CLOSE else None


def _check(depth: int, holds: bool, sentence: str) -> None:
    """Refuse arguments out of range.

    Raises:
        UsageError: One is.
    """
    if depth < 1:
        raise UsageError(f"depth must be at least 1, got {depth}")
    if not holds:
        raise UsageError(sentence)
