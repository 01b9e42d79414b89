"""Counts what a search costs, in training runs."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What a forward pass costs, as a share of forward and backward.
FORWARD = 1 / 3
# Rounding in sums of shares of runs.
SLACK = 1e-9


class BudgetSpent(Exception):
    """A training would cost more than is left; it was not begun."""


class Cost(NamedTuple):
    """What a phase has cost.

    Attributes:
        runs: In training runs.
        seconds: Of training and evaluation.
    """

    runs: float
    seconds: float


@dataclass
class Meter:
    """Counts training-run equivalents: one is the forward and backward passes of one full run.

    Attributes:
        run_steps: Steps of a full run.
        budget: How many runs may be spent in all.
        progress: Is told what has been spent.
        phases: What each phase has cost so far.
    """

    run_steps: int
    budget: float = math.inf
    progress: Callable[[str], None] = lambda _: None
    phases: dict[str, Cost] = field(default_factory=dict)
    _ceilings: list[float] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Runs spent so far."""
        return math.fsum(cost.runs for cost in self.phases.values())

    @property
    def left(self) -> float:
        """Runs that may still be spent, within the limit of the phase that goes on."""
        return max(0.0, min([self.budget, *self._ceilings]) - self.spent)

    @property
    def pace(self) -> float | None:
        """Seconds that a run took on average, None before the first."""
        return math.fsum(cost.seconds for cost in self.phases.values()) / self.spent if self.spent else None

    @contextmanager
    def limited(self, runs: float) -> Iterator[None]:
        """Allow a phase no more than so many runs from now on, and never more than is left.

        Args:
            runs: Its budget.

        Yields:
            Nothing.
        """
        self._ceilings.append(self.spent + runs)
        try:
            yield
        finally:
            self._ceilings.pop()

    def affords(self, runs: float) -> bool:
        """Whether so many runs are left."""
        return runs <= self.left + SLACK

    def allow(self, steps: float) -> None:
        """See that something may begin.

        Args:
            steps: What it costs at most, in steps of training.

        Raises:
            BudgetSpent: Less than that is left.
        """
        runs = steps / self.run_steps
        if not self.affords(runs):
            raise BudgetSpent(f"{runs:.3g} runs are needed, and {self.left:.3g} are left")

    def charge(self, phase: str, steps: float, seconds: float) -> None:
        """Add what something has cost.

        Args:
            phase: That it belongs to.
            steps: In steps of training; a forward pass alone is `FORWARD` of one.
            seconds: How long it took.
        """
        before = self.phases.get(phase, Cost(0.0, 0.0))
        self.phases[phase] = Cost(before.runs + steps / self.run_steps, before.seconds + seconds)
        self.tell(phase)

    def tell(self, phase: str, steps: float = 0.0) -> None:
        """Say how far the search is.

        Args:
            phase: That goes on.
            steps: What it has spent and not been charged for yet.
        """
        self.progress(f"{phase}: {self.spent + steps / self.run_steps:.1f} of {self.budget:g} training runs")
