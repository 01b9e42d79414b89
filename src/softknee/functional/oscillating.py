"""Oscillating functions."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened

# Frequencies below which a snake is a parabola.
SMALL = 1e-10

OMEGA = 30.0


def snake(x: Tensor, a: Tensor | float = 1.0) -> Tensor:
    r"""Snake, $x + \sin^2(a x) / a$; the identity at $a = 0$.

    Below $|a| = 10^{-10}$ it is $x + a x^2$, the same up to rounding, so that nothing is divided by zero. Half
    precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    a = widened(a) if isinstance(a, Tensor) else wide.new_full((), a)
    small = a.abs() < SMALL
    divisor = torch.where(small, 1.0, a)
    wave = torch.sin(divisor * wide).square() / divisor
    return (wide + torch.where(small, a * wide.square(), wave)).to(x.dtype)


def staf(x: Tensor, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    r"""Sinusoidal trainable activation, $\sum_{i=1}^{\tau} C_i \sin(\Omega_i x + \Phi_i)$.

    Half precision is computed in float32, because $\Omega x$ leaves its range.

    Args:
        x: Any shape, any floating dtype.
        amplitude: $C$, `(terms, ...)`, each entry broadcastable to `x`.
        frequency: $\Omega$, likewise.
        phase: $\Phi$, likewise.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = widened(x)
    total = amplitude[0] * torch.sin(frequency[0] * wide + phase[0])
    for i in range(1, len(amplitude)):
        total = total + amplitude[i] * torch.sin(frequency[i] * wide + phase[i])
    return total.to(x.dtype)


def _laplace(terms: int, scale: float, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Draw frequencies from 30 U(0, 1), phases from U(-pi, pi), amplitudes as signed roots of Laplace(0, scale)."""
    uniform = torch.rand(3, terms, generator=generator)
    # Inverse distribution function of the Laplace density.
    centred = uniform[0] - 0.5
    magnitude = -scale * torch.log1p(-2 * centred.abs().clamp(max=0.5 - 1e-7))
    return {
        "amplitude": centred.sign() * magnitude.sqrt(),
        "frequency": OMEGA * uniform[1],
        "phase": math.pi * (2 * uniform[2] - 1),
    }


def initialize_by_theorem(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw STAF's parameters as its unit-variance theorem asks: squared amplitudes from Laplace(0, 2 / terms)."""
    return _laplace(terms, 2 / terms, generator)


def initialize_by_code(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw STAF's parameters as its authors' code does: squared amplitudes from Laplace(0, 1 / (2 terms))."""
    return _laplace(terms, 1 / (2 * terms), generator)


def initialize_normal(terms: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Draw amplitudes, frequencies and phases from a standard normal, as the chapter does."""
    amplitude, frequency, phase = torch.randn(3, terms, generator=generator)
    return {"amplitude": amplitude, "frequency": frequency, "phase": phase}


SPECS = (
    Spec(
        name="snake",
        title="Snake",
        family="oscillating",
        function=snake,
        formula="x + where(abs(a) > 0, sin(a * x)**2 / a, 0)",
        parameters=(Param(name="a", default=1.0, trainable=True),),
        promises=Promises(monotonic=True, smooth=True, zero_at_zero=True, lipschitz=2.0),
        source="ziyin2020snake",
    ),
    Spec(
        name="staf",
        title="STAF",
        family="oscillating",
        function=staf,
        formula="sum(amplitude * sin(frequency * x + phase))",
        parameters=(
            Param(name="amplitude", trainable=True, vector=True),
            Param(name="frequency", trainable=True, vector=True),
            Param(name="phase", trainable=True, vector=True),
        ),
        promises=Promises(smooth=True),
        source="morsali2025staf",
        note="By default drawn as the paper's theorem of unit variance asks: amplitudes are signed square roots of "
        "draws from Laplace(0, 2 / terms). `initialization='code'` is the start of the authors' code, with the scale "
        "1 / (2 terms). In both, frequencies reach 30. `initialization='normal'` draws all three from a standard "
        "normal, as one book chapter has it.",
        initializations=MappingProxyType(
            {"theorem": initialize_by_theorem, "code": initialize_by_code, "normal": initialize_normal}
        ),
        terms=5,
    ),
)
