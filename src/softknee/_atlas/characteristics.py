"""The table of characteristics that textbooks have, computed instead of copied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._atlas.claims import figure, kinks_text, range_of

if TYPE_CHECKING:
    from softknee._atlas.facts import Entry
    from softknee._card.subject import Subject

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
    x, slope = slopes_of(entry.subject)
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


def slopes_of(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions on [-20, 20] and the derivative there."""
    x = torch.linspace(-NEAR, NEAR, POINTS, dtype=torch.float64)
    _, slope, _ = subject.derivatives(x)
    return x, slope
