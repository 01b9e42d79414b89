"""Trained sums of sines and cosines."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widening
from softknee.functional._series import recurrent_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

# Samples of the discrete cosine transform that ENN's cosines come from.
RESOLUTION = 512
# The root of 1 / I_0(2); the Bessel function is the sum of 1 / k!^2 over all k.
OFFSET = math.fsum(1 / math.factorial(k) ** 2 for k in range(20)) ** -0.5


@widening
def fourier(
    x: Tensor,
    amplitude: Sequence[Tensor | float],
    frequency: Sequence[Tensor | float],
    phase: Sequence[Tensor | float],
    offset: Tensor | float = OFFSET,
) -> Tensor:
    r"""Trained Fourier series, $a_0 + \sum_{k=1}^K a_k \cos(\omega_k x - \varphi_k)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        amplitude: $a_1, \dots, a_K$: `(K, ...)`, or a tuple, each entry broadcastable to `x`.
        frequency: $\omega$, likewise.
        phase: $\varphi$, likewise.
        offset: $a_0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    total: Any = offset
    for k in range(len(amplitude)):
        total = total + amplitude[k] * torch.cos(frequency[k] * x - phase[k])
    result: Tensor = total
    return result


@widening
def rowdy(
    x: Tensor, amplitude: Sequence[Tensor | float], frequency: Sequence[Tensor | float], n: Tensor | float = 1.0
) -> Tensor:
    r"""Rowdy: a hyperbolic tangent that can learn to oscillate, $\tanh x + n \sum_{k=1}^K a_k \sin(\omega_k k n x)$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        amplitude: $a$: `(K, ...)`, or a tuple, each entry broadcastable to `x`.
        frequency: $\omega$, likewise.
        n: $n$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    total = torch.tanh(x)
    for k in range(len(amplitude)):
        total = total + n * amplitude[k] * torch.sin(frequency[k] * (k + 1) * n * x)
    return total


@widening
def enn(x: Tensor, coefficients: Sequence[Tensor | float]) -> Tensor:
    r"""Activation of the expressive neural network, $\sum_{q=1}^Q F_q \cos\frac{\pi (2q-1)(x + 1 - 1/N)}{2}$.

    These are the odd cosines of a discrete cosine transform of $N = 512$ samples of $[-1, 1]$. Half precision is
    computed in float32.

    Args:
        x: Any shape, any floating dtype.
        coefficients: $F$: `(Q, ...)`, or a tuple, each entry broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    angle = (x + (1 - 1 / RESOLUTION)) * (math.pi / 2)
    first = torch.cos(angle)
    return recurrent_sum(coefficients, first, first, 2 * torch.cos(2 * angle))


@widening
def odd_wave(x: Tensor, amplitude: Sequence[Tensor | float], omega: Tensor | float = 1.0) -> Tensor:
    r"""Odd periodic function of unit energy, $\sqrt 2 \sum_{k=1}^K a_k \sin(k \omega x) \big/ \sqrt{\sum_k a_k^2}$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        amplitude: $a$: `(K, ...)`, or a tuple, each entry broadcastable to `x`; not all zero.
        omega: $\omega$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    angle = omega * x
    first = torch.sin(angle)
    wave = recurrent_sum(amplitude, torch.zeros_like(first), first, 2 * torch.cos(angle))
    return wave * _scale(amplitude, first)


@widening
def even_wave(x: Tensor, amplitude: Sequence[Tensor | float], omega: Tensor | float = 1.0) -> Tensor:
    r"""Even periodic function of unit energy, $\sqrt 2 \sum_{k=1}^K a_k \cos(k \omega x) \big/ \sqrt{\sum_k a_k^2}$.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        amplitude: $a$: `(K, ...)`, or a tuple, each entry broadcastable to `x`; not all zero.
        omega: $\omega$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    first = torch.cos(omega * x)
    return recurrent_sum(amplitude, torch.ones_like(first), first, 2 * first) * _scale(amplitude, first)


def _scale(amplitude: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Return the factor that gives a sum of harmonics a mean square of 1; it stays finite where all are 0."""
    entries = [amplitude[k] for k in range(len(amplitude))]
    total: Any = sum(entry * entry for entry in entries)
    power = total if isinstance(total, Tensor) else like.new_full((), total)
    return torch.sqrt(2 / power.clamp(min=torch.finfo(like.dtype).tiny))


def balanced_series(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return harmonics of the amplitudes c / k!, c the root of 2 / I_0(2).

    Then value and derivative have a mean square of 1 over a period, up to parts of 1 / terms!^2.
    """
    return _series(terms, math.sqrt(2) * OFFSET)


def published_series(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the start of the authors' code: harmonics of the amplitudes c / k!, c the root of 1 / I_0(2)."""
    return _series(terms, OFFSET)


def _series(terms: int, scale: float) -> dict[str, Tensor]:
    k = torch.arange(1, terms + 1, dtype=torch.float64)
    return {"amplitude": scale * torch.exp(-torch.lgamma(k + 1)), "frequency": k, "phase": k * 0 + math.pi / 4}


def without_oscillation(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return amplitudes of 0 and frequencies of 1."""
    return {"amplitude": torch.zeros(terms), "frequency": torch.ones(terms)}


def line(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return the cosine coefficients of the line through the origin, of slope 1 on [-1, 1]."""
    odd = 2 * torch.arange(terms, dtype=torch.float64) + 1
    return {"coefficients": -8 / (math.pi * odd).square()}


def falling_harmonics(terms: int, _: torch.Generator | None = None) -> dict[str, Tensor]:
    """Return amplitudes that fall with the square of the frequency."""
    return {"amplitude": 1 / torch.arange(1, terms + 1, dtype=torch.float64).square()}


SPECS = (
    Spec(
        name="fourier",
        title="Fourier",
        family="oscillating",
        function=fourier,
        formula="offset + sum(amplitude * cos(frequency * x - phase))",
        parameters=(
            Param(name="amplitude", trainable=True, vector=True),
            Param(name="frequency", trainable=True, vector=True),
            Param(name="phase", trainable=True, vector=True),
            Param(name="offset", default=OFFSET, trainable=True),
        ),
        promises=Promises(
            smooth=True, lipschitz=2.392579, lower_bound=-0.2209439, upper_bound=2.1709152, period=2 * math.pi
        ),
        source="khalfaoui2025polynomial",
        note=(
            "The source divides the k-th amplitude by k!; here the amplitude contains that. Over a period its balanced"
            ' start, derived here, has a mean square of 1 in value and derivative; `initialization="published"` is the'
            " authors' code, whose amplitudes are smaller by the root of 2. Periodic until frequencies are trained."
        ),
        initializations=MappingProxyType({"balanced": balanced_series, "published": published_series}),
        terms=6,
    ),
    Spec(
        name="rowdy",
        title="Rowdy",
        family="oscillating",
        function=rowdy,
        formula="tanh(x) + sum(n * amplitude * sin(frequency * (index + 1) * n * x))",
        parameters=(
            Param(name="amplitude", trainable=True, vector=True),
            Param(name="frequency", trainable=True, vector=True),
            Param(name="n", default=1.0, low=0.0, open_low=True),
        ),
        promises=Promises(
            monotonic=True,
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=1.0,
            lower_bound=-1.0,
            upper_bound=1.0,
        ),
        source="jagtap2022kronecker",
        note=(
            "Starts as tanh; other base functions are possible in the source. There, n is at least 1 and chosen by the"
            " user; 1 and the number of terms are ours. Promises are those of the start."
        ),
        initializations=MappingProxyType({"zero": without_oscillation}),
        terms=4,
    ),
    Spec(
        name="enn",
        title="ENN",
        family="oscillating",
        function=enn,
        formula="sum(coefficients * cos(pi / 2 * (2 * index + 1) * (x + 1 - 1 / 512)))",
        parameters=(Param(name="coefficients", trainable=True, vector=True),),
        promises=Promises(smooth=True, lipschitz=1.181302, lower_bound=-0.96630371, upper_bound=0.96630371, period=4.0),
        source="martinezgost2024enn",
        note=(
            "Made for inputs in [-1, 1]; of period 4, whatever the coefficients, and bounded by the sum of their"
            " absolute values. The authors start from a line as well, by numbers that agree with the exact ones here to"
            " 0.001."
        ),
        initializations=MappingProxyType({"line": line}),
        terms=6,
    ),
    Spec(
        name="odd_wave",
        title="OddWave",
        family="oscillating",
        function=odd_wave,
        formula="sqrt(2) * sum(amplitude * sin((index + 1) * omega * x)) / sqrt(sum(amplitude**2))",
        parameters=(Param(name="amplitude", trainable=True, vector=True), Param(name="omega", default=1.0)),
        promises=Promises(
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=2.836698,
            lower_bound=-1.4252092,
            upper_bound=1.4252092,
            period=2 * math.pi,
        ),
        source="folklore",
        note=(
            "Ours, for networks that solve differential equations. Guaranteed for all amplitudes and frequencies: it is"
            " odd and of period 2 pi / omega, its mean square over a period is 1, and no value is larger than the root"
            " of twice the number of terms. Amplitudes only distribute the energy among the harmonics; their common"
            " factor has no effect."
        ),
        initializations=MappingProxyType({"falling": falling_harmonics}),
        terms=4,
    ),
    Spec(
        name="even_wave",
        title="EvenWave",
        family="oscillating",
        function=even_wave,
        formula="sqrt(2) * sum(amplitude * cos((index + 1) * omega * x)) / sqrt(sum(amplitude**2))",
        parameters=(Param(name="amplitude", trainable=True, vector=True), Param(name="omega", default=1.0)),
        promises=Promises(
            smooth=True,
            even=True,
            lipschitz=2.079565,
            lower_bound=-1.0874006,
            upper_bound=1.9384097,
            period=2 * math.pi,
        ),
        source="folklore",
        note=(
            "Ours, for networks that solve differential equations. Guaranteed for all amplitudes and frequencies: it is"
            " even and of period 2 pi / omega, its mean square over a period is 1, and no value is larger than the root"
            " of twice the number of terms. Amplitudes only distribute the energy among the harmonics; their common"
            " factor has no effect."
        ),
        initializations=MappingProxyType({"falling": falling_harmonics}),
        terms=4,
    ),
)
