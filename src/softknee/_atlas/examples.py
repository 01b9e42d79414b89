"""Examples of functions that have no curve of one variable: vectors, and noise in training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from softknee._atlas.drawings import bar_thumbnail, bars
from softknee._card.subject import SEED
from softknee._report.lines import Band

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee import nn
    from softknee._card.subject import Subject
    from softknee._report.svg import Svg

VECTOR: Sequence[float] = (1.2, -0.4, 0.3, 2.1, -1.5, 0.8, -0.2, 1.7)
# Outputs that a drawing has room for.
MOST_BARS = 40
DRAWS, NOISE_POINTS = 1000, 101
QUANTILES = (0.05, 0.95)
# What a parameter that turns noise off is moved to, so that there is some.
SOME_NOISE = 0.5


@dataclass(frozen=True)
class VectorExample:
    """What a function of vectors makes of one.

    Attributes:
        inputs: Entries.
        outputs: What becomes of them.
    """

    inputs: Sequence[float]
    outputs: Sequence[float]

    def pictures(self) -> tuple[Svg, Svg]:
        """Return the two as bars on a common scale, if one suits both."""
        groups = len(self.outputs) // len(self.inputs) if len(self.outputs) > len(self.inputs) else 0
        first, second = _span(self.inputs), _span(self.outputs)
        if second[1] - second[0] > 0.25 * (first[1] - first[0]):
            first = second = (min(first[0], second[0]), max(first[1], second[1]))
        return (
            bars(self.inputs, title="an input", hue=6, span=first),
            bars(self.outputs, title="its output", hue=0, groups=groups if groups > 2 else 0, span=second),
        )

    def thumbnail(self, name: str) -> Svg:
        """Return the output as a thumbnail."""
        return bar_thumbnail(self.outputs, name)


def vector_example(module: nn.Activation) -> VectorExample:
    """Apply a function of vectors to one.

    Args:
        module: In eval mode.

    Returns:
        The example, shorter where there would be too many outputs.
    """
    outputs = _outputs(module, VECTOR)
    inputs = VECTOR
    if len(outputs) > MOST_BARS:
        inputs = VECTOR[: max(1, MOST_BARS * len(VECTOR) // len(outputs))]
        outputs = _outputs(module, inputs)
    return VectorExample(inputs, outputs)


def _outputs(module: nn.Activation, inputs: Sequence[float]) -> list[float]:
    with torch.no_grad():
        found: list[float] = module(torch.tensor([inputs]))[0].tolist()
    return found


@dataclass(frozen=True)
class Noise:
    """Where a function strays in training.

    Attributes:
        band: Between two quantiles of its values.
        changed: Parameters that were moved, so that there is noise at all.
    """

    band: Band
    changed: dict[str, float]


def noise_of(subject: Subject, reach: float) -> Noise | None:
    """Return where the random form of a function strays; None where it has none.

    Args:
        subject: The activation at its values.
        reach: From minus this to this.

    Returns:
        The band that holds 90 % of the values at each place.
    """
    if subject.spec.sampled is None:
        return None
    off = [name for name, value in subject.values.items() if value == 0]
    values: Any = subject.values
    low, high = _quantiles(subject, reach)
    changed: dict[str, float] = {}
    if off and max(b - a for a, b in zip(low, high, strict=True)) < 1e-9:
        changed = dict.fromkeys(off, SOME_NOISE)
        low, high = _quantiles(replace(subject, values={**values, **changed}), reach)
    x = torch.linspace(-reach, reach, NOISE_POINTS).tolist()
    return Noise(Band("90 % of the values in training", x, low, high), changed)


def _quantiles(subject: Subject, reach: float) -> tuple[list[float], list[float]]:
    values = [subject.values[param.name] for param in subject.spec.parameters]
    sampled: Any = subject.spec.sampled
    quantiles = torch.tensor(QUANTILES, dtype=torch.float64)
    found = []
    for x in torch.linspace(-reach, reach, NOISE_POINTS, dtype=torch.float64):
        # The same draws at each place, so that the band has smooth edges.
        drawn = sampled(x.repeat(DRAWS), *values, generator=torch.Generator().manual_seed(SEED))
        found.append(torch.quantile(drawn, quantiles).tolist())
    low, high = zip(*found, strict=True)
    return list(low), list(high)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min([0.0, *values]), max([0.0, *values])
    air = 0.04 * (high - low or 1.0)
    return low - air * (low < 0), high + air
