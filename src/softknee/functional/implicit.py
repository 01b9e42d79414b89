"""Activations of networks that represent a signal: functions of coordinates, such as images, shapes and fields."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softknee._spec import Param, Promises, Spec
from softknee.functional._precision import widened, widening


@widening
def sine(x: Tensor, omega: Tensor | float = 30.0) -> Tensor:
    r"""Sine of a fixed frequency, $\sin(\omega x)$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        omega: $\omega$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.sin(omega * x)


def finer(x: Tensor, omega: Tensor | float = 30.0) -> Tensor:
    r"""Sine of variable period, $\sin(\omega (|x| + 1) x)$; once, not twice, differentiable at 0.

    Half precision is computed in float64, which holds the phase without rounding it: for large $x$ every other number
    would have the wrong sign in float32.

    Args:
        x: Any shape, any floating dtype.
        omega: $\omega$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    wide = x.double() if x.dtype in {torch.float16, torch.bfloat16} and x.device.type != "mps" else widened(x)
    return torch.sin(omega * (wide.abs() + 1) * wide).to(x.dtype)


@widening
def hosc(x: Tensor, beta: Tensor | float = 8.0) -> Tensor:
    r"""Hyperbolic oscillation, $\tanh(\beta \sin x)$: a sine for small $\beta$, a square wave for large.

    Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        beta: $\beta$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.tanh(beta * torch.sin(x))


@widening
def wire(x: Tensor, omega: Tensor | float = 20.0, scale: Tensor | float = 10.0) -> Tensor:
    r"""Real part of a Gabor wavelet, $\cos(\omega x)\, e^{-(s x)^2}$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        omega: $\omega$, broadcastable to `x`.
        scale: $s$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.cos(omega * x) * torch.exp(-(scale * x).square())


@widening
def gauss(x: Tensor, a: Tensor | float = 1.0) -> Tensor:
    r"""Gaussian, $e^{-x^2 / (2 a^2)}$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.
        a: $a > 0$, broadcastable to `x`.

    Returns:
        Same shape and dtype as `x`.
    """
    return torch.exp(-0.5 * (x / a).square())


@widening
def spder(x: Tensor) -> Tensor:
    r"""Damped sine, $\sin(x) \sqrt{|x|}$. Half precision is computed in float32.

    Args:
        x: Any shape, any floating dtype.

    Returns:
        Same shape and dtype as `x`; the derivative at 0 is 0, which it is exactly, the second one infinite around 0.
    """
    # The root alone has an infinite derivative at 0.
    size = x.abs().clamp(min=torch.finfo(x.dtype).tiny)
    return torch.where(x == 0, 0.0, torch.sin(x) * torch.sqrt(size))


SPECS = (
    Spec(
        name="sine",
        title="Sine",
        family="oscillating",
        function=sine,
        formula="sin(omega * x)",
        parameters=(Param(name="omega", default=30.0),),
        promises=Promises(
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=30.0,
            lower_bound=-1.0,
            upper_bound=1.0,
            period=2 * math.pi / 30,
        ),
        source="sitzmann2020siren",
        note=(
            "The activation of SIREN. It needs weights drawn for it: `softknee.nn.siren_init_`. The paper's"
            " frequency of 30 belongs to those weights; `sin` is the same at a frequency of 1."
        ),
        aliases=("siren",),
    ),
    Spec(
        name="finer",
        title="FINER",
        family="oscillating",
        function=finer,
        formula="sin(omega * (abs(x) + 1) * x)",
        parameters=(Param(name="omega", default=30.0),),
        promises=Promises(odd=True, zero_at_zero=True, lower_bound=-1.0, upper_bound=1.0),
        source="liu2024finer",
        note=(
            "Its frequency grows with the input, without bound, and so does its derivative. The paper chooses the band"
            " of frequencies by drawing the biases of the first layer from a wide uniform distribution."
        ),
    ),
    Spec(
        name="hosc",
        title="HOSC",
        family="oscillating",
        function=hosc,
        formula="tanh(beta * sin(x))",
        parameters=(Param(name="beta", default=8.0),),
        promises=Promises(
            smooth=True,
            odd=True,
            zero_at_zero=True,
            lipschitz=8.0,
            lower_bound=-0.9999998,
            upper_bound=0.9999998,
            period=2 * math.pi,
        ),
        source="serrano2024hosc",
        note=(
            "The sharpness is its Lipschitz constant. The source varies it from layer to layer or trains it (AdaHOSC);"
            " the default of 8 is one of its values."
        ),
    ),
    Spec(
        name="wire",
        title="WIRE",
        family="oscillating",
        function=wire,
        formula="cos(omega * x) * exp(-(scale * x)**2)",
        parameters=(Param(name="omega", default=20.0), Param(name="scale", default=10.0)),
        promises=Promises(smooth=True, even=True, lipschitz=17.39519, lower_bound=-0.1775718, upper_bound=1.0),
        source="saragadam2023wire",
        note=(
            "The paper's wavelet is complex, with weights to match; this is its real part. The authors' own real"
            " variant takes the sine and the envelope of two different linear maps of the input. They tune both"
            " constants to the signal."
        ),
    ),
    Spec(
        name="gauss",
        title="Gauss",
        family="oscillating",
        function=gauss,
        formula="exp(-x**2 / (2 * a**2))",
        parameters=(Param(name="a", default=1.0, low=0.0, open_low=True),),
        promises=Promises(smooth=True, even=True, lipschitz=0.6065307, lower_bound=0.0, upper_bound=1.0),
        source="ramasinghe2022periodicity",
        note="The paper tunes the width to the signal, well below 1 for coordinates in [-1, 1]; the default is ours.",
    ),
    Spec(
        name="spder",
        title="SPDER",
        family="oscillating",
        function=spder,
        formula="sin(x) * sqrt(abs(x))",
        promises=Promises(odd=True, zero_at_zero=True),
        source="shah2023spder",
        note=(
            "Its derivative is continuous and 0 at 0. Differentiated factor by factor, as by autograd, it is the"
            " product of 0 and infinity there."
        ),
    ),
)
