"""Which trial runs when: learning rates, rounds that halve the candidates where time is short, and seeds.

Nothing here knows of models: a run is a function, so that its order and its end can be tested without training.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["no change", "matched gain", "new seed", "candidate"]
Ended = Literal["complete", "out of time", "interrupted"]

# Of steps in the first two rounds, where not all candidates can be tried in full.
ROUNDS = (1 / 4, 1 / 2)
# Of the time left, what runs are planned for: they are never as fast as was measured.
PLANNED = 0.9
TIMED_STEPS = 3
FEWEST_STEPS = 50
# The run that learning rates are chosen by; those that are reported come after.
CHOOSING_SEED = 0


class OutOfTime(Exception):
    """The time is over in the middle of a run."""


@dataclass(frozen=True)
class Arm:
    """One way to train a model that is compared with the others.

    Attributes:
        kind: A control or a candidate.
        activation: What is put in; None for the activations that the model has.
    """

    kind: Kind
    activation: str | None = None

    @property
    def label(self) -> str:
        """What to call it."""
        return self.activation or self.kind


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        choosing: Mean score on the data to choose on, higher is better; minus infinity if the run diverged.
        scores: `(examples,)`, by example of the data to report on; None if the run diverged.
        seconds: Of one step.
    """

    choosing: float
    scores: NDArray[np.float64] | None
    seconds: float


class Run(Protocol):
    """Trains and evaluates once."""

    def __call__(self, arm: Arm, rate: float, seed: int, steps: int, late: Callable[[], bool]) -> Outcome:
        """Run; raise `OutOfTime` as soon as `late()`."""


@dataclass
class Record:
    """What has been found so far.

    Attributes:
        steps: Of each reported run.
        choosing: Scores by arm and learning rate, of the longest run that chose.
        outcomes: Of the reported runs, by arm and number.
        dropped: Why candidates were tried no further.
        seconds: Of the steps of each arm.
        ended: How the search ended.
    """

    steps: int
    choosing: dict[Arm, dict[float, float]] = field(default_factory=dict)
    outcomes: dict[Arm, dict[int, Outcome]] = field(default_factory=dict)
    dropped: dict[Arm, str] = field(default_factory=dict)
    seconds: dict[Arm, list[float]] = field(default_factory=dict)
    ended: Ended = "complete"

    def best(self, arm: Arm) -> float | None:
        """Return the rate with the highest score, the smallest of equals; None where none has trained."""
        scores = self.choosing.get(arm, {})
        rates = [rate for rate in sorted(scores) if scores[rate] > -math.inf]
        return max(rates, key=scores.__getitem__) if rates else None


@dataclass(frozen=True)
class Search:
    """Tries arms with all learning rates on one seed, then with its best rate on others.

    Attributes:
        run: Trains once.
        arms: Controls first; `"new seed"` is the reference on seeds of its own, at the reference's rate.
        rates: Learning rates to try.
        seeds: How many runs of each arm are reported.
        steps: Of each run; None for as many as there is time for.
        most_steps: Where that is decided here.
        budget: Seconds for all, None for as long as it takes.
        progress: Called with a line after each run.
        clock: Seconds of any origin.
    """

    run: Run
    arms: Sequence[Arm]
    rates: Sequence[float]
    seeds: int
    steps: int | None
    most_steps: int
    budget: float | None = None
    progress: Callable[[str], None] | None = None
    clock: Callable[[], float] = time.monotonic

    def __call__(self) -> Record:
        """Return what was found until the end, the end of the time, or an interruption from the keyboard."""
        end = math.inf if self.budget is None else self.clock() + self.budget
        record = Record(self.steps or self.most_steps)
        tuned = [arm for arm in self.arms if arm.kind != "new seed"]
        try:
            if self.budget is not None:
                costs = self._costs(tuned, end)
                record.steps = self.steps or self._fitting(tuned, costs, end)
                tuned = self._halved(tuned, costs, record, end)
            self._choose(tuned, record, record.steps, end)
            self._report(tuned, record, end)
        except OutOfTime:
            record.ended = "out of time"
        except KeyboardInterrupt:
            record.ended = "interrupted"
        return record

    def _costs(self, arms: Sequence[Arm], end: float) -> dict[Arm, tuple[float, float]]:
        """Return the seconds that a run of each arm takes before and after its steps, and those of a step."""
        costs = {}
        for arm in arms:
            start = self.clock()
            outcome = self._once(arm, min(self.rates), CHOOSING_SEED, TIMED_STEPS, end)
            costs[arm] = max(self.clock() - start - TIMED_STEPS * outcome.seconds, 0.0), outcome.seconds
        return costs

    def _fitting(self, arms: Sequence[Arm], costs: dict[Arm, tuple[float, float]], end: float) -> int:
        """Return how many steps all planned runs have time for."""
        rest = PLANNED * (end - self.clock())
        fixed, each = self._need(arms, costs, 0), self._need(arms, costs, 1) - self._need(arms, costs, 0)
        steps = self.most_steps if each <= 0 else math.floor((rest - fixed) / each)
        return max(min(steps, self.most_steps), min(FEWEST_STEPS, self.most_steps))

    def _need(self, arms: Sequence[Arm], costs: dict[Arm, tuple[float, float]], steps: float) -> float:
        """Return the seconds that all planned runs take."""
        counts = dict.fromkeys(arms, len(self.rates) + self.seeds)
        counts[arms[0]] += self.seeds * sum(arm.kind == "new seed" for arm in self.arms)
        return sum(count * (costs[arm][0] + steps * costs[arm][1]) for arm, count in counts.items())

    def _halved(self, arms: list[Arm], costs: dict[Arm, tuple[float, float]], record: Record, end: float) -> list[Arm]:
        """Return the arms there is time for: the better half of the candidates after short runs, twice if need be."""
        for share in ROUNDS:
            candidates = [arm for arm in arms if arm.kind == "candidate"]
            if len(candidates) < 2 or self._need(arms, costs, record.steps) <= end - self.clock():
                break
            steps = max(1, round(share * record.steps))
            self._choose(arms, record, steps, end)
            ranked = sorted(candidates, key=lambda arm: -max(record.choosing[arm].values()))
            kept = ranked[: (len(ranked) + 1) // 2]
            for arm in ranked[len(kept) :]:
                record.dropped[arm] = f"not among the better half after {steps} steps, and time was short"
            arms = [arm for arm in arms if arm not in record.dropped]
        return arms

    def _choose(self, arms: Sequence[Arm], record: Record, steps: int, end: float) -> None:
        """Try all rates; the scores of shorter runs are kept until an arm has all of the longer ones."""
        for arm in arms:
            scores = {}
            for rate in self.rates:
                outcome = self._once(arm, rate, CHOOSING_SEED, steps, end)
                scores[rate] = outcome.choosing
                record.seconds.setdefault(arm, []).append(outcome.seconds)
                self._tell(f"{arm.label}: rate {rate:.3g}, {steps} steps: {outcome.choosing:.4g}")
            record.choosing[arm] = scores

    def _report(self, arms: Sequence[Arm], record: Record, end: float) -> None:
        """Run every arm at its best rate, seed by seed, so that all have as many when time is over."""
        again = [arm for arm in self.arms if arm.kind == "new seed"]
        for number in range(1, self.seeds + 1):
            for arm in (*arms, *again):
                rate = record.best(arms[0] if arm.kind == "new seed" else arm)
                if rate is None:
                    continue
                seed = number + (self.seeds if arm.kind == "new seed" else 0)
                outcome = self._once(arm, rate, seed, record.steps, end)
                record.outcomes.setdefault(arm, {})[number] = outcome
                record.seconds.setdefault(arm, []).append(outcome.seconds)
                self._tell(f"{arm.label}: rate {rate:.3g}, seed {number} of {self.seeds}")

    def _once(self, arm: Arm, rate: float, seed: int, steps: int, end: float) -> Outcome:
        if self.clock() >= end:
            raise OutOfTime
        return self.run(arm, rate, seed, steps, lambda: self.clock() >= end)

    def _tell(self, line: str) -> None:
        if self.progress is not None:
            self.progress(line)
