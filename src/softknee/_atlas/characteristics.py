"""The table of characteristics that textbooks have, computed instead of copied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._atlas.claims import figure, kinks_text, range_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._atlas.facts import Entry
    from softknee._atlas.subject import Subject

CLASSIC = (
    *("sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu"),
    *("selu", "celu", "softplus", "gelu", "silu", "mish", "hardswish", "telu", "staf"),
)
# How far out a unit is looked at: its slope there says whether it still learns.
NEAR, POINTS = 20.0, 40_001
FAINT = 1e-3
# A gradient that loses more than half of its variance in a layer vanishes soon.
VANISHING, EXPLODING = 0.5, 2.0
DEVIATIONS = 13.0
# Slopes below are rounding, and means below count as 0.
UNDERFLOW, CENTRED = 1e-6, 5e-4


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        entry: The activation.
        range: Of its values.
        slopes: Range of its derivative.
        mean: Of its value for standard normal inputs, as text.
        centred: Whether that is 0.
        chi: By what a layer multiplies the variance of gradients.
        gradient: What that means: `"vanishes"`, `"kept"` or `"grows"`.
        flat: On which sides its slope vanishes.
        dead: What becomes of units far to the left.
        smooth: Whether it is, in words.
    """

    entry: Entry
    range: str
    slopes: str
    mean: str
    centred: bool
    chi: str
    gradient: str
    flat: str
    dead: str
    smooth: str


def row_of(entry: Entry) -> Row:
    """Return the line of an activation of single elements."""
    seen, gain = entry.seen, entry.gain
    assert seen is not None  # noqa: S101 (only functions of one element stand in the table)
    assert gain is not None  # noqa: S101
    x, slope = _slopes(entry.subject)
    mean = 0.0 if seen.odd else mean_of(entry.subject)
    return Row(
        entry=entry,
        range=range_of(entry, 3),
        slopes=f"{_short(slope.min().item())} to {_short(slope.max().item())}",
        mean=f"{mean:.3f}".replace("-0.000", "0.000").replace("-", "−"),
        centred=abs(mean) < CENTRED,
        chi=figure(gain.chi, 3),
        gradient="vanishes" if gain.chi < VANISHING else "grows" if gain.chi > EXPLODING else "kept",
        flat=_flat_sides(seen.left_slope, seen.right_slope),
        dead=left_tail(x, slope),
        smooth="yes" if entry.spec.promises.smooth else kinks_text(entry),
    )


def mean_of(subject: Subject) -> float:
    """Return the mean of a function for standard normal inputs."""
    z = torch.linspace(-DEVIATIONS, DEVIATIONS, 26_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(subject(z) * density, z).item()


def left_tail(x: torch.Tensor, slope: torch.Tensor) -> str:
    """Return what becomes of a unit whose input is far to the left: off, fading or learning.

    Args:
        x: Positions, ascending, from far on the left.
        slope: Derivative there.

    Returns:
        A few words.
    """
    off, faint = _until(slope == 0), _until(slope.abs() < FAINT)
    # Where a slope merely underflows, the next one is as good as 0.
    if off is not None and (off + 1 == len(x) or slope[off + 1].abs() > UNDERFLOW):
        return f"off below {figure(x[off].item(), 2)}"
    return "learning" if faint is None else f"fading below {figure(x[faint].item(), 2)}"


def _until(holds: torch.Tensor) -> int | None:
    """Return the last place up to which something holds from the left end on; None where it does not hold there."""
    if not holds[0]:
        return None
    failing = (~holds).nonzero()
    return int(failing[0]) - 1 if len(failing) else len(holds) - 1


def _flat_sides(left: float, right: float) -> str:
    sides = [name for name, end in (("left", left), ("right", right)) if abs(end) < FAINT]
    return {2: "both", 0: "none"}.get(len(sides), "".join(sides))


def _short(value: float) -> str:
    return figure(0.0 if abs(value) < UNDERFLOW else value, 3)


def _slopes(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-NEAR, NEAR, POINTS, dtype=torch.float64)
    _, slope, _ = subject.derivatives(x)
    return x, slope


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


def corrections(facts: dict[str, Entry]) -> list[Correction]:
    """Return wrong claims of textbooks with what holds; numbers in them are computed.

    Args:
        facts: Entries by name; corrections that need one that is missing are left out.

    Returns:
        The corrections.
    """
    every = [
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


def _gelu(facts: dict[str, Entry]) -> tuple[str, str]:
    x, slope = _slopes(facts["gelu"].subject)
    seen = facts["gelu"].seen
    lowest = slope.min().item()
    turns = x[(slope[1:].sign() != slope[:-1].sign()).nonzero()[-1]].item()
    return (
        "GELU is shaped like a sigmoid, its gradient is zero nowhere, and it is 1-Lipschitz.",
        f"It is unbounded to the right. Its slope is 0 near {figure(turns, 3)}, negative below, down to {figure(lowest, 3)},"
        f" and up to {figure(seen.lipschitz if seen else math.nan)}, which is its Lipschitz constant.",
    )


def _sigmoid(facts: dict[str, Entry]) -> tuple[str, str]:
    first, second = facts["sigmoid"].gain, facts["tanh"].gain
    assert first is not None  # noqa: S101
    assert second is not None  # noqa: S101
    return (
        "Sigmoid and tanh make gradients vanish in the same way.",
        f"With weights scaled so that the signal keeps its size, the variance of the gradient is multiplied by"
        f" {figure(first.chi, 3)} a layer under the sigmoid and by {figure(second.chi, 3)} under tanh. For the sigmoid no scale"
        f" of the weights suits both directions; for tanh {figure(second.forward)} does, where 5/3 is often tabulated.",
    )


def _centred(facts: dict[str, Entry]) -> tuple[str, str]:
    means = {name: mean_of(facts[name].subject) for name in ("elu", "gelu", "selu")}
    return (
        "ELU, GELU and the like are zero-centred, for they take negative values.",
        f"For standard normal inputs the mean output of ELU is {figure(means['elu'], 3)} and that of GELU"
        f" {figure(means['gelu'], 3)}. It is 0 for odd functions, and for SELU, whose constants were solved for it.",
    )


def _smooth(facts: dict[str, Entry]) -> tuple[str, str]:
    _, slope, _ = facts["hardswish"].subject.derivatives(
        torch.tensor([-3 - 1e-9, -3 + 1e-9, 3 - 1e-9, 3 + 1e-9], dtype=torch.float64)
    )
    left, right, before, behind = (figure(value, 2) for value in slope.tolist())
    return (
        "Hardswish and ELU are smooth.",
        f"The slope of Hardswish jumps from {left} to {right} at -3 and from {before} to {behind} at 3. ELU has a continuous"
        " slope with α = 1 only, and even then its second derivative jumps at 0.",
    )


def _dying(_: dict[str, Entry]) -> tuple[str, str]:
    width, depth = 3, 5
    dead = 1 - (1 - 2.0**-width) ** depth
    return (
        "A network of ReLUs is dead with a probability of ∏ Φ(-μ/σ) over its layers.",
        "A layer is dead when all of its units are off, and the network when any layer is. With symmetric weights and no"
        f" biases that is, for one input, 1 - ∏ (1 - 2^-width): {dead:.3f} for {depth} layers of {width} units.",
    )


def _initialization(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "PyTorch initializes linear layers for ReLU by default.",
        "The default draws weights of variance 1 / (3 fan-in), a sixth of what keeps the signal of a ReLU network, and"
        " random biases. softknee.gain says what an activation needs.",
    )


def _inactive(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "The deeper a network, the more of its ReLUs are inactive.",
        "That is the default initialization: with it inputs collapse onto each other layer by layer, and units are on or"
        " off for all of them. With weights scaled for ReLU and biases of zero, the share in the seventh layer of a small"
        " perceptron fell from 44 % to 9 %.",
    )


def _slope(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "PReLU and leaky ReLU divide negative inputs by a.",
        "They multiply them by a; a survey prints the quotient and libraries copied it. The slope of PReLU is kept out of"
        " weight decay, which would pull it to a ReLU.",
    )


def _telu(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "TeLU is an ELU whose α is trained.",
        "The published TeLU is x tanh(exp(x)). The other one is trainable_elu; written with exp(x) in the branch that is"
        " not taken, its gradients are no numbers from x = 89 on in float32.",
    )


def _nipuna(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "NIPUNA is α softplus(x) below 0.",
        "That would jump by α ln 2 at 0. It is the larger of x and x sigmoid(β x), which is continuous.",
    )


def _sgt(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "SGT is the gamma function of 1.5 times tanh(γ x).",
        "It is tanh of a scaled power of x, with an exponent of its own on either side.",
    )


def _swiglu(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "SwiGLU is best at β = 1.7889 and gains 15 % accuracy.",
        "We found no source for either. What is documented is that its outliers grow during long training in 8-bit floats"
        " (arXiv 2409.12517).",
    )


def _lstm(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "In an LSTM the gradient of the cell state passes through tanh at every step.",
        "The direct path from one cell state to the next is the forget gate, a sigmoid, and no derivative of tanh: that is"
        " the point of the LSTM.",
    )


def _history(_: dict[str, Entry]) -> tuple[str, str]:
    return (
        "McCulloch and Pitts used the sigmoid in 1943.",
        "Their units were steps: all or nothing.",
    )
