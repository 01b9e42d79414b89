"""What is often said about activations, and what holds; the numbers are computed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

from softknee._atlas.characteristics import mean_of, slopes_of
from softknee._atlas.claims import figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softknee._atlas.facts import Entry

    Facts = Mapping[str, Entry]


@dataclass(frozen=True)
class Correction:
    """A claim that is often made, and what holds.

    Attributes:
        about: Names of the activations, for links.
        claim: What is said.
        fact: What is so.
    """

    about: Sequence[str]
    claim: str
    fact: str


def corrections(facts: Facts) -> list[Correction]:
    """Return wrong claims of textbooks with what holds; numbers in them are computed.

    Args:
        facts: Entries by name; corrections that need one that is missing are left out.

    Returns:
        The corrections.
    """
    told = chain(_of_shapes(facts), _of_signals(facts), STATED)
    return [correction for correction in told if all(name in facts for name in correction.about)]


def _of_shapes(facts: Facts) -> Iterator[Correction]:
    """Yield what curves show."""
    if "gelu" in facts:
        x, slope = slopes_of(facts["gelu"].subject)
        turn = x[(slope[1:].sign() != slope[:-1].sign()).nonzero()[-1]].item()
        lowest, steepest = figure(slope.min().item(), 3), figure(slope.max().item())
        yield Correction(
            ("gelu",),
            "GELU is shaped like a sigmoid, its gradient is zero nowhere, and it is 1-Lipschitz.",
            f"It is unbounded to the right. Its slope is 0 near {figure(turn, 3)}, negative below, down to {lowest},"
            f" and up to {steepest}, which is its Lipschitz constant.",
        )
    if "hardswish" in facts:
        places = torch.tensor([-3 - 1e-9, -3 + 1e-9, 3 - 1e-9, 3 + 1e-9], dtype=torch.float64)
        left, right, before, behind = (
            figure(value, 2) for value in facts["hardswish"].subject.derivatives(places)[1].tolist()
        )
        yield Correction(
            ("hardswish", "elu"),
            "Hardswish and ELU are smooth.",
            f"The slope of Hardswish jumps from {left} to {right} at −3 and from {before} to {behind} at 3. ELU has a"
            " continuous slope with α = 1 only, and even then its second derivative jumps at 0.",
        )


def _of_signals(facts: Facts) -> Iterator[Correction]:
    """Yield what becomes of signals and gradients."""
    sigmoid, tanh = (facts[name].gain if name in facts else None for name in ("sigmoid", "tanh"))
    if sigmoid is not None and tanh is not None:
        yield Correction(
            ("sigmoid", "tanh"),
            "Sigmoid and tanh make gradients vanish in the same way.",
            "With weights scaled so that the signal keeps its size, the variance of the gradient is multiplied by"
            f" {figure(sigmoid.chi, 3)} a layer under the sigmoid and by {figure(tanh.chi, 3)} under tanh. For the"
            f" sigmoid no scale of the weights suits both directions; for tanh {figure(tanh.forward)} does, where 5/3"
            " is often tabulated.",
        )
    if "elu" in facts and "gelu" in facts:
        elu, gelu = (figure(mean_of(facts[name].subject), 3) for name in ("elu", "gelu"))
        yield Correction(
            ("elu", "gelu", "selu"),
            "ELU, GELU and the like are zero-centred, for they take negative values.",
            f"For standard normal inputs the mean output of ELU is {elu} and that of GELU {gelu}. It is 0 for odd"
            " functions, and for SELU, whose constants were solved for it.",
        )
    dead = 1 - (1 - 2.0**-WIDTH) ** DEPTH
    yield Correction(
        ("relu",),
        "A network of ReLUs is dead with a probability of ∏ Φ(−μ/σ) over its layers.",
        "A layer is dead when all of its units are off, and the network when any layer is. With symmetric weights and"
        f" no biases that is, for one input, 1 − ∏ (1 − 2^−width): {dead:.3f} for {DEPTH} layers of {WIDTH} units.",
    )


WIDTH, DEPTH = 3, 5
STATED = (
    Correction(
        ("relu",),
        "PyTorch initializes linear layers for ReLU by default.",
        "The default draws weights of variance 1 / (3 fan-in), a sixth of what keeps the signal of a ReLU network, and"
        " random biases. softknee.gain says what an activation needs.",
    ),
    Correction(
        ("relu",),
        "The deeper a network, the more of its ReLUs are inactive.",
        "That is the default initialization: with it inputs collapse onto each other layer by layer, and units are on"
        " or off for all of them. With weights scaled for ReLU and biases of zero, the share in the seventh layer of a"
        " small perceptron fell from 44 % to 9 %.",
    ),
    Correction(
        ("prelu", "leaky_relu"),
        "PReLU and leaky ReLU divide negative inputs by a.",
        "They multiply them by a; a survey prints the quotient and libraries copied it. The slope of PReLU is kept out"
        " of weight decay, which would pull it to a ReLU.",
    ),
    Correction(
        ("telu", "trainable_elu"),
        "TeLU is an ELU whose α is trained.",
        "The published TeLU is x tanh(exp(x)). The other one is trainable_elu; written with exp(x) in the branch that"
        " is not taken, its gradients are no numbers from x = 89 on in float32.",
    ),
    Correction(
        ("nipuna",),
        "NIPUNA is α softplus(x) below 0.",
        "That would jump by α ln 2 at 0. It is the larger of x and x sigmoid(β x), which is continuous.",
    ),
    Correction(
        ("sgt",),
        "SGT is the gamma function of 1.5 times tanh(γ x).",
        "It is tanh of a scaled power of x, with an exponent of its own on either side.",
    ),
    Correction(
        ("swiglu",),
        "SwiGLU is best at β = 1.7889 and gains 15 % accuracy.",
        "We found no source for either. What is documented is that its outliers grow during long training in 8-bit"
        " floats (arXiv 2409.12517).",
    ),
    Correction(
        ("sigmoid", "tanh"),
        "In an LSTM the gradient of the cell state passes through tanh at every step.",
        "The direct path from one cell state to the next is the forget gate, a sigmoid, and no derivative of tanh: that"
        " is the point of the LSTM.",
    ),
    Correction(
        ("sigmoid",),
        "McCulloch and Pitts used the sigmoid in 1943.",
        "Their units were steps: all or nothing.",
    ),
)
