"""Sliders: which parameters a reader may move, and how far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._card.subject import CHANNEL
from softknee._expression.tree import Expression, Name

if TYPE_CHECKING:
    from softknee._card.subject import Subject
    from softknee._spec import Param

# Entries of a vector that get a slider.
MOST_ENTRIES = 8
# How far around 0 a slider goes at least, and how far beyond its default, as a multiple of it.
LEAST, BEYOND = 2.0, 2.5
# Excluded ends are approached up to this part of the range.
OPEN_END = 200


@dataclass(frozen=True)
class Slider:
    """A parameter, or an entry of one, that can be moved.

    Attributes:
        name: Of the parameter.
        entry: Which entry of a vector, None for a number.
        symbol: As it stands in the formula, in LaTeX.
        start: Default.
        low: Left end.
        high: Right end.
        whole: Whether it takes whole numbers only.
    """

    name: str
    entry: int | None
    symbol: str
    start: float
    low: float
    high: float
    whole: bool = False

    @property
    def label(self) -> str:
        """Name for those who cannot see the symbol."""
        return self.name.replace("_", " ") + ("" if self.entry is None else f" {self.entry}")

    @property
    def key(self) -> str:
        """Name that no other slider of the page has."""
        return self.name if self.entry is None else f"{self.name}-{self.entry}"


def sliders_of(subject: Subject) -> tuple[Slider, ...]:
    """Return the sliders for all numbers and the first entries of vectors in a formula, those given with x first."""
    stated = subject.spec.statement is not None
    used = set() if stated else set(subject.expression.parameters)
    if stated or subject.spec.surrogate:
        used |= {param.name for param in subject.spec.parameters}
    sliders = []
    for param in sorted(subject.spec.parameters, key=lambda param: not param.given):
        value = subject.values[param.name]
        if param.name not in used:
            continue
        if isinstance(value, tuple):
            low, high = _ends(param, _nice(max(LEAST / 2, 1.5 * max(map(abs, value)))))
            symbol = _symbol(param.name)
            sliders += [
                Slider(param.name, i, f"{symbol}_{{{i}}}", start, min(low, start), max(high, start))
                for i, start in enumerate(value[:MOST_ENTRIES])
            ]
        else:
            sliders.append(_scalar(param, value))
    if subject.spec.channelwise:
        sliders.append(Slider(CHANNEL, None, _symbol(CHANNEL), 0.0, 0.0, 1.0, whole=True))
    return tuple(sliders)


def _scalar(param: Param, value: float) -> Slider:
    low, high = _ends(param, _nice(max(LEAST, BEYOND * abs(value))))
    return Slider(param.name, None, _symbol(param.name), value, min(low, value), max(high, value), whole=param.integer)


def _ends(param: Param, reach: float) -> tuple[float, float]:
    """Return where a slider ends: so far on either side of 0 where the parameter has no limits."""
    low = -reach if param.low is None else param.low
    high = max(reach, low + LEAST) if param.high is None else param.high
    return low + (high - low) / OPEN_END * param.open_low, high


def _symbol(name: str) -> str:
    return Expression.of(Name(name)).to_latex()


def _nice(value: float) -> float:
    """Return a round number of at least `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if factor * power >= value * 0.999999)
