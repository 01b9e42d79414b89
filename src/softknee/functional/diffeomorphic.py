"""Activations from one-dimensional diffeomorphisms: the flow of a trained, piecewise affine velocity field (CPAB)."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._spec import Param, Spec
from softknee.functional._flow import carried_everywhere, carried_within
from softknee.functional._flow_prior import draw_smooth
from softknee.functional._flow_stated import stated_flow, stated_within
from softknee.functional._intervals import as_tensor
from softknee.functional._precision import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    Velocities = Sequence[Tensor | float]

# Knots inside the interval, of ten cells.
INNER_KNOTS = 9


def ditac(x: Tensor, velocities: Velocities, low: Tensor | float = -0.5, high: Tensor | float = 2.0) -> Tensor:
    r"""DiTAC: GELU with its input warped in between, $T(x)\,\Phi(x)$ for $l \le x \le h$, $x\,\Phi(x)$ elsewhere.

    $T(x) = y(1)$ for $\dot y = v(y)$, $y(0) = x$, where $v$ interpolates its values at evenly spaced knots and is 0 at
    both ends. With $v = 0$ it is GELU. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        velocities: $v$ at the knots inside the interval: `(knots, ...)`, or a tuple, each entry broadcastable to `x`.
        low: $l$, broadcastable to `x`.
        high: $h > l$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; at $l$ and $h$ the derivative is that of the inside.
    """
    wide = widened(x)
    return (carried_within(wide, velocities, low, high).place * _gate(wide)).to(x.dtype)


def digraf(x: Tensor, velocities: Velocities, bound: Tensor | float = 3.0) -> Tensor:
    r"""DiGRAF without its graph: $T(x)$ for $|x| \le b$, $x$ elsewhere; $T$ as in DiTAC.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        velocities: $v$ at the knots inside the interval: `(knots, ...)`, or a tuple, each entry broadcastable to `x`.
        bound: $b > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; at $\pm b$ the derivative is that of the inside.
    """
    wide = widened(x)
    return carried_within(wide, velocities, -as_tensor(bound, wide), bound).place.to(x.dtype)


def ge_ditac(x: Tensor, velocities: Velocities, high: Tensor | float = 2.0) -> Tensor:
    r"""One-sided DiTAC: $T(x)$ for $0 \le x \le h$, GELU below, $x$ above; $T$ as in DiTAC.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        velocities: $v$ at the knots inside the interval: `(knots, ...)`, or a tuple, each entry broadcastable to `x`.
        high: $h > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; at 0 and $h$ the derivative is that of the inside.
    """
    wide = widened(x)
    warped = carried_within(wide, velocities, 0.0, high).place
    return torch.where(wide < 0, F.gelu(wide), warped).to(x.dtype)


def leaky_ditac(
    x: Tensor,
    velocities: Velocities,
    low: Tensor | float = -0.5,
    high: Tensor | float = 2.0,
    slope: Tensor | float = 0.01,
) -> Tensor:
    r"""Leaky DiTAC: $T(x)$ for $l \le x \le h$, $l + a\,(x - l)$ below, $x$ above; $T$ as in DiTAC.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        velocities: $v$ at the knots inside the interval: `(knots, ...)`, or a tuple, each entry broadcastable to `x`.
        low: $l$, broadcastable to `x`.
        high: $h > l$, broadcastable to `x`.
        slope: $a$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`; at $l$ and $h$ the derivative is that of the inside.
    """
    wide = widened(x)
    start = as_tensor(low, wide)
    warped = carried_within(wide, velocities, low, high).place
    return torch.where(wide < start, start + as_tensor(slope, wide) * (wide - start), warped).to(x.dtype)


def inf_ditac(x: Tensor, velocities: Velocities, low: Tensor | float = -0.5, high: Tensor | float = 2.0) -> Tensor:
    r"""DiTAC on the whole line: $T(x)\,\Phi(x)$, where $v$ is free at both ends and goes on straight beyond them.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        velocities: $v$ at all knots, the ends among them: `(knots, ...)`, or a tuple, each entry broadcastable to `x`.
        low: The first knot, broadcastable to `x`.
        high: The last knot, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    return (carried_everywhere(wide, velocities, low, high).place * _gate(wide)).to(x.dtype)


def _gate(x: Tensor) -> Tensor:
    """Return the normal distribution function."""
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _stated_gate(x: Any) -> Any:
    return x.context.erfc(-x / x.context.sqrt(2)) / 2


def initialize_identity(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return velocities of 0: nothing is warped."""
    return {"velocities": torch.zeros(terms)}


def initialize_smooth(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw velocities as the published code does, of an interval of length 1."""
    return {"velocities": draw_smooth(terms, generator)}


_VELOCITIES = Param(name="velocities", trainable=True, vector=True)
_LOW, _HIGH = Param(name="low", default=-0.5), Param(name="high", default=2.0, above="low")
_START = "T is the flow of the velocities for unit time. At its start, which cards and pages show, it is GELU."
_OURS = "T is the flow of the velocities for unit time. The paper names it, its definition could not be found: ours."


def _spec(name: str, title: str, *, within: bool = True, **options: Any) -> Spec:
    """Return what the activations here have in common."""
    smooth = {"smooth": initialize_smooth} if within else {}
    return Spec(
        name=name,
        title=title,
        family="diffeomorphic",
        initializations=MappingProxyType({"identity": initialize_identity, **smooth}),
        terms=INNER_KNOTS if within else INNER_KNOTS + 2,
        fewest_terms=1 if within else 2,
        **options,
    )


SPECS = (
    _spec(
        "ditac",
        "DiTAC",
        function=ditac,
        formula="T(x) * (1 + erf(x / sqrt(2))) / 2 between low and high, x * (1 + erf(x / sqrt(2))) / 2 elsewhere",
        parameters=(_VELOCITIES, _LOW, _HIGH),
        source="chelly2024ditac",
        note=_START,
        statement=lambda x, velocities, low, high: stated_within(x, velocities, low, high) * _stated_gate(x),
        pieces=lambda x, velocities, low, high: carried_within(x, velocities, low, high).piece,
        kinks=("low", "high"),
    ),
    _spec(
        "digraf",
        "DiGRAF",
        function=digraf,
        formula="T(x) where |x| <= bound, x elsewhere",
        parameters=(_VELOCITIES, Param(name="bound", default=3.0, low=0.0, open_low=True)),
        source="mantri2024digraf",
        note="T is the flow of the velocities for unit time. The paper's graph network that predicts the velocities, "
        "and its tanh around them, are left out.",
        statement=lambda x, velocities, bound: stated_within(x, velocities, -bound, bound),
        pieces=lambda x, velocities, bound: carried_within(x, velocities, -bound, bound).piece,
        kinks=("-bound", "bound"),
    ),
    _spec(
        "ge_ditac",
        "GEDiTAC",
        function=ge_ditac,
        formula="x * (1 + erf(x / sqrt(2))) / 2 where x < 0, T(x) between 0 and high, x above",
        parameters=(_VELOCITIES, Param(name="high", default=2.0, low=0.0, open_low=True)),
        source="chelly2024ditac",
        note=_OURS,
        statement=lambda x, velocities, high: (
            x * _stated_gate(x) if x < 0 else stated_within(x, velocities, high * 0, high)
        ),
        pieces=lambda x, velocities, high: carried_within(x, velocities, 0.0, high).piece,
        kinks=("0", "high"),
    ),
    _spec(
        "leaky_ditac",
        "LeakyDiTAC",
        function=leaky_ditac,
        formula="low + slope * (x - low) where x < low, T(x) between low and high, x above",
        parameters=(_VELOCITIES, _LOW, _HIGH, Param(name="slope", default=0.01)),
        source="chelly2024ditac",
        note=_OURS,
        statement=lambda x, velocities, low, high, slope: (
            low + slope * (x - low) if x < low else stated_within(x, velocities, low, high)
        ),
        pieces=lambda x, velocities, low, high, _: carried_within(x, velocities, low, high).piece,
        kinks=("low", "high"),
    ),
    _spec(
        "inf_ditac",
        "InfDiTAC",
        within=False,
        function=inf_ditac,
        formula="T(x) * (1 + erf(x / sqrt(2))) / 2",
        parameters=(_VELOCITIES, _LOW, _HIGH),
        source="chelly2024ditac",
        note=_OURS,
        statement=lambda x, velocities, low, high: stated_flow(x, velocities, low, high) * _stated_gate(x),
        pieces=lambda x, velocities, low, high: carried_everywhere(x, velocities, low, high).piece,
    ),
)
