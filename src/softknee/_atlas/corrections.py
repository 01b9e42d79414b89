"""What is often said about activations, and what holds; the numbers are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._atlas.characteristics import mean_of, slopes_of
from softknee._atlas.claims import figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from softknee._atlas.facts import Entry

    Facts = Mapping[str, Entry]
    Told = tuple[str, str]


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
    every: list[tuple[Sequence[str], Callable[[Facts], Told]]] = [
        (("gelu",), _gelu),
        (("sigmoid", "tanh"), _sigmoid),
        (("elu", "gelu", "selu"), _centred),
        (("hardswish", "elu"), _smooth),
        (("relu",), _dying),
        (("relu",), _initialization),
        (("relu",), _inactive),
        (("prelu", "leaky_relu"), _slope),
        (("telu", "trainable_elu"), _telu),
        (("nipuna",), _nipuna),
        (("sgt",), _sgt),
        (("swiglu",), _swiglu),
        (("sigmoid", "tanh"), _lstm),
        (("sigmoid",), _history),
    ]
    return [Correction(names, *tell(facts)) for names, tell in every if all(name in facts for name in names)]


def _gelu(facts: Facts) -> Told:
    x, slope = slopes_of(facts["gelu"].subject)
    lowest, steepest = slope.min().item(), slope.max().item()
    turns = x[(slope[1:].sign() != slope[:-1].sign()).nonzero()[-1]].item()
    return (
        "GELU is shaped like a sigmoid, its gradient is zero nowhere, and it is 1-Lipschitz.",
        f"It is unbounded to the right. Its slope is 0 near {figure(turns, 3)}, negative below, down to {figure(lowest, 3)},"
        f" and up to {figure(steepest)}, which is its Lipschitz constant.",
    )


def _sigmoid(facts: Facts) -> Told:
    first, second = facts["sigmoid"].gain, facts["tanh"].gain
    assert first is not None  # noqa: S101
    assert second is not None  # noqa: S101
    return (
        "Sigmoid and tanh make gradients vanish in the same way.",
        f"With weights scaled so that the signal keeps its size, the variance of the gradient is multiplied by"
        f" {figure(first.chi, 3)} a layer under the sigmoid and by {figure(second.chi, 3)} under tanh. For the sigmoid no scale"
        f" of the weights suits both directions; for tanh {figure(second.forward)} does, where 5/3 is often tabulated.",
    )


def _centred(facts: Facts) -> Told:
    means = {name: mean_of(facts[name].subject) for name in ("elu", "gelu", "selu")}
    return (
        "ELU, GELU and the like are zero-centred, for they take negative values.",
        f"For standard normal inputs the mean output of ELU is {figure(means['elu'], 3)} and that of GELU"
        f" {figure(means['gelu'], 3)}. It is 0 for odd functions, and for SELU, whose constants were solved for it.",
    )


def _smooth(facts: Facts) -> Told:
    _, slope, _ = facts["hardswish"].subject.derivatives(
        torch.tensor([-3 - 1e-9, -3 + 1e-9, 3 - 1e-9, 3 + 1e-9], dtype=torch.float64)
    )
    left, right, before, behind = (figure(value, 2) for value in slope.tolist())
    return (
        "Hardswish and ELU are smooth.",
        f"The slope of Hardswish jumps from {left} to {right} at −3 and from {before} to {behind} at 3. ELU has a continuous"
        " slope with α = 1 only, and even then its second derivative jumps at 0.",
    )


def _dying(_: Facts) -> Told:
    width, depth = 3, 5
    dead = 1 - (1 - 2.0**-width) ** depth
    return (
        "A network of ReLUs is dead with a probability of ∏ Φ(−μ/σ) over its layers.",
        "A layer is dead when all of its units are off, and the network when any layer is. With symmetric weights and no"
        f" biases that is, for one input, 1 − ∏ (1 − 2^−width): {dead:.3f} for {depth} layers of {width} units.",
    )


def _initialization(_: Facts) -> Told:
    return (
        "PyTorch initializes linear layers for ReLU by default.",
        "The default draws weights of variance 1 / (3 fan-in), a sixth of what keeps the signal of a ReLU network, and"
        " random biases. softknee.gain says what an activation needs.",
    )


def _inactive(_: Facts) -> Told:
    return (
        "The deeper a network, the more of its ReLUs are inactive.",
        "That is the default initialization: with it inputs collapse onto each other layer by layer, and units are on or"
        " off for all of them. With weights scaled for ReLU and biases of zero, the share in the seventh layer of a small"
        " perceptron fell from 44 % to 9 %.",
    )


def _slope(_: Facts) -> Told:
    return (
        "PReLU and leaky ReLU divide negative inputs by a.",
        "They multiply them by a; a survey prints the quotient and libraries copied it. The slope of PReLU is kept out of"
        " weight decay, which would pull it to a ReLU.",
    )


def _telu(_: Facts) -> Told:
    return (
        "TeLU is an ELU whose α is trained.",
        "The published TeLU is x tanh(exp(x)). The other one is trainable_elu; written with exp(x) in the branch that is"
        " not taken, its gradients are no numbers from x = 89 on in float32.",
    )


def _nipuna(_: Facts) -> Told:
    return (
        "NIPUNA is α softplus(x) below 0.",
        "That would jump by α ln 2 at 0. It is the larger of x and x sigmoid(β x), which is continuous.",
    )


def _sgt(_: Facts) -> Told:
    return (
        "SGT is the gamma function of 1.5 times tanh(γ x).",
        "It is tanh of a scaled power of x, with an exponent of its own on either side.",
    )


def _swiglu(_: Facts) -> Told:
    return (
        "SwiGLU is best at β = 1.7889 and gains 15 % accuracy.",
        "We found no source for either. What is documented is that its outliers grow during long training in 8-bit floats"
        " (arXiv 2409.12517).",
    )


def _lstm(_: Facts) -> Told:
    return (
        "In an LSTM the gradient of the cell state passes through tanh at every step.",
        "The direct path from one cell state to the next is the forget gate, a sigmoid, and no derivative of tanh: that is"
        " the point of the LSTM.",
    )


def _history(_: Facts) -> Told:
    return (
        "McCulloch and Pitts used the sigmoid in 1943.",
        "Their units were steps: all or nothing.",
    )
