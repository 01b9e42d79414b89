"""What is kept of a training that is watched: a bounded number of periods, with a few numbers for each unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from softknee._diagnose.units.states import has_slopes
from softknee._report.plain import plain

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._diagnose.units.sums import Sums

# Beyond this, neighbours are joined, so that memory does not grow with the length of the training.
MOST = 256
# Units whose firing is written down one by one.
SHOWN = 128


@dataclass(frozen=True)
class Period:
    """How the units of a site fired over some observed steps.

    Attributes:
        step: The last of the steps.
        n: Values seen of each unit.
        firing: Of each unit, in 255ths: 0 only if it never fired.
        dead: Of each unit, whether its slope was always exactly 0; None where that could not be measured.
    """

    step: int
    n: int
    firing: Tensor
    dead: Tensor | None

    def __add__(self, later: Period) -> Period:
        both = self.n + later.n
        mixed = (self.firing.double() * self.n + later.firing.double() * later.n) / both
        dead = None if self.dead is None or later.dead is None else self.dead & later.dead
        return Period(later.step, both, mixed.ceil().to(torch.uint8), dead)


def period(step: int, sums: Sums) -> Period:
    """Return a period.

    Args:
        step: The last of its steps.
        sums: What was seen in it, in the memory of the CPU.
    """
    rate = 1 - sums.parts["h_counts"][1].double() / sums.n
    dead = sums.parts["slope_counts"][0] == sums.slopes if has_slopes(sums) else None
    return Period(step, sums.n, (255 * rate).ceil().to(torch.uint8), dead)


@dataclass
class History:
    """Periods of one site.

    Attributes:
        periods: In order.
        births: Of each period, how many units died since the one before; None where that could not be measured.
        revivals: How many came back.
    """

    periods: list[Period] = field(default_factory=list)

    def add(self, one: Period) -> None:
        """Append a period."""
        if self.periods and len(self.periods[-1].firing) != len(one.firing):
            self.periods.clear()
        self.periods.append(one)
        if len(self.periods) > MOST:
            pairs = zip(self.periods[::2], self.periods[1::2], strict=False)
            odd = self.periods[-1:] if len(self.periods) % 2 else []
            self.periods = [*(before + after for before, after in pairs), *odd]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: steps; firing rates of at most 128 units by period; dead units, births and revivals."""
        if not self.periods:
            return {"steps": [], "shown": [], "firing": [], "dead": [], "births": [], "revivals": []}
        count = len(self.periods[0].firing)
        units = torch.linspace(0, count - 1, min(count, SHOWN)).round().long()
        dead = [one.dead for one in self.periods]
        return {
            "steps": [one.step for one in self.periods],
            "shown": units.tolist(),
            "firing": [[round(rate / 255, 3) for rate in one.firing[units].tolist()] for one in self.periods],
            "dead": [None if one is None else int(one.sum()) for one in dead],
            "births": [None, *(_count(old, new) for old, new in pairwise(dead))],
            "revivals": [None, *(_count(new, old) for old, new in pairwise(dead))],
        }


def _count(old: Tensor | None, new: Tensor | None) -> int | None:
    """Return how many units are dead in one period and were not in another."""
    return None if old is None or new is None else int((new & ~old).sum())


@dataclass
class Values:
    """A parameter over observed steps.

    Attributes:
        site: Name of the activation.
        parameter: Its name there.
        summary: Whether values are minimum, mean and maximum.
        steps: At which it was noted.
        values: One list for each.
    """

    site: str
    parameter: str
    summary: bool
    steps: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)

    def add(self, step: int, values: list[float]) -> None:
        """Append what it was; of too many every second one is left out."""
        self.steps.append(step)
        self.values.append(values)
        if len(self.steps) > 2 * MOST:
            self.steps, self.values = self.steps[::2], self.values[::2]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with None for what is not finite."""
        return plain(vars(self))


@dataclass(frozen=True)
class Shape:
    """A trained activation at one step.

    Attributes:
        step: The step.
        y: Its values.
    """

    step: int
    y: tuple[float, ...]


@dataclass
class Shapes:
    """A trained activation at some steps, each about twice as late as the one before.

    Attributes:
        x: Points.
        curves: In order.
    """

    x: tuple[float, ...] = ()
    curves: list[Shape] = field(default_factory=list)

    def add(self, shape: Shape) -> None:
        """Append a shape, or put it in the place of one at the same step."""
        if self.curves and self.curves[-1].step == shape.step:
            self.curves[-1] = shape
        else:
            self.curves.append(shape)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return plain(vars(self))
