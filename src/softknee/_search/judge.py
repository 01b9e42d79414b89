"""Trains candidates and says how well they do; nobody else in a search trains one by one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._search.candidate import hash_of
from softknee._search.meter import FORWARD
from softknee._search.train import Training

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from softknee._search.candidate import Candidate
    from softknee._search.ledger import Ledger
    from softknee._search.meter import Meter
    from softknee._search.task import Task

# The phase whose full runs are also evaluated on the test data.
VERIFY = "verify"


@dataclass(frozen=True)
class Score:
    """How a candidate did in one run.

    Attributes:
        candidate: What was trained.
        run: Number of the run; candidates are paired within one.
        part: Of a full run that was trained.
        losses: Of each validation batch; empty if the run failed.
        failure: Why it failed, None if it did not.
        seconds: Of training, from the first step of the run, and of this evaluation.
        cost: Runs that were charged for this.
        spent: Runs that the search had spent when this was known.
        phase: That it was first asked for in.
    """

    candidate: Candidate
    run: int
    part: float
    losses: tuple[float, ...]
    failure: str | None
    seconds: float
    cost: float
    spent: float
    phase: str

    @property
    def loss(self) -> float:
        """Mean validation loss, infinite if the run failed."""
        return math.inf if self.failure is not None else math.fsum(self.losses) / len(self.losses)


@dataclass(frozen=True)
class _Reached:
    """How far a run has come that was paid for, in steps and seconds of training."""

    step: int = 0
    seconds: float = 0.0
    failure: str | None = None


class Judge:
    """Trains candidates under one meter, and remembers what it found out.

    What a request costs depends on the requests before it alone, not on what the ledger happens to hold: a search that
    goes on after an interruption takes the same decisions, and only spends less time.

    Args:
        task: What to train for.
        meter: What may be spent.
        ledger: Where results are kept.

    Attributes:
        scores: All that was found out, in the order of the first requests.
    """

    def __init__(self, task: Task, meter: Meter, ledger: Ledger) -> None:
        self.task, self.meter, self.ledger = task, meter, ledger
        self.scores: list[Score] = []
        self._known: dict[str, Score] = {}
        self._reached: dict[str, _Reached] = {}

    def score(self, candidate: Candidate, run: int, part: float = 1.0, *, phase: str) -> Score:
        """Train and evaluate a candidate, going on from what was trained of the run before.

        Args:
            candidate: One function for each group of sites.
            run: Number of the run.
            part: Of a full run: its first steps, as they are in the full run.
            phase: That is charged. Full runs of `VERIFY` are also evaluated on the test data.

        Returns:
            How it did. The second request of the same costs nothing.

        Raises:
            UsageError: The candidate does not fit the task, or the part is no part.
            BudgetSpent: It would cost more than is left; nothing was trained.
        """
        steps = self.task.steps_of(part)
        tested = self._tested(steps, phase)
        key, run_key = _keys(candidate, run, steps, tested=tested)
        if key in self._known:
            return replace(self._known[key], candidate=candidate)
        before = self._reached.get(run_key, _Reached())
        if before.failure is not None:
            spent = self.meter.spent
            return self._note(key, Score(candidate, run, part, (), before.failure, before.seconds, 0.0, spent, phase))
        if before.step >= steps:
            before = _Reached()
        self.meter.allow(steps - before.step + self._evaluation(tested=tested))
        record = self.ledger.read(key) or self._train(candidate, run, steps, tested=tested)
        trained, failure = record["seconds"], record["failure"]
        charged = record["step"] - before.step + FORWARD * record["forwards"]
        self.meter.charge(phase, charged, trained - before.seconds + record["evaluation"])
        self._reached[run_key] = _Reached(record["step"], trained, failure)
        score = Score(
            candidate=candidate,
            run=run,
            part=part,
            losses=tuple(record["losses"]),
            failure=failure,
            seconds=trained + record["evaluation"],
            cost=charged / self.task.run_steps,
            spent=self.meter.spent,
            phase=phase,
        )
        return self._note(key, score)

    def test(self, candidate: Candidate, run: int) -> NDArray[np.float64]:
        """Return the test losses of a fully trained candidate.

        Args:
            candidate: That was scored.
            run: Number of a full run of the phase `VERIFY` that did not fail.

        Returns:
            Of each test batch, `(batches,)`.

        Raises:
            UsageError: There was no such run, or there are no test batches.
        """
        key, _ = _keys(candidate, run, self.task.run_steps, tested=True)
        record = self.ledger.read(_test_key(key))
        if record is None:
            raise UsageError(f"{candidate.name} was not evaluated on test data in run {run}")
        return np.array(record["losses"], dtype=np.float64)

    def price(self, part: float = 1.0, *, phase: str, after: float = 0.0) -> float:
        """Return what a score costs at most, in runs.

        Args:
            part: Of a full run.
            phase: It is asked for in.
            after: The part of the run that is paid for already.
        """
        steps = self.task.steps_of(part)
        trained = steps - (self.task.steps_of(after) if after else 0)
        return (trained + self._evaluation(tested=self._tested(steps, phase))) / self.task.run_steps

    def release(self, candidate: Candidate, run: int) -> None:
        """Let go of the state of a run that will not be continued; otherwise it is kept until the run is full.

        What asks for more of the run pays for its beginning again.
        """
        run_key = _keys(candidate, run, 0, tested=False)[1]
        self.ledger.drop_state(run_key)
        if run_key in self._reached and self._reached[run_key].failure is None:
            del self._reached[run_key]

    def _train(self, candidate: Candidate, run: int, steps: int, *, tested: bool) -> dict[str, Any]:
        key, run_key = _keys(candidate, run, steps, tested=tested)
        training = Training(self.task, candidate, run)
        state = self.ledger.state(run_key)
        if state is not None and state["step"] <= steps:
            training.load(state)
        failure = training.advance(steps, lambda now: self.ledger.keep_state(run_key, now))
        started = time.perf_counter()
        losses: list[float] = []
        forwards = 0
        if failure is None:
            losses, failure = self._evaluated(training, self.task.val_batches, "validation")
            forwards += self.task.val_steps
        if failure is None and tested:
            test_losses, failure = self._evaluated(training, self.task.test_batches or (), "test")
            forwards += self.task.test_steps
            if failure is None:
                self.ledger.write(_test_key(key), {"losses": test_losses})
        record = {
            "candidate": candidate.to_json(),
            "run": run,
            "step": training.step,
            "seconds": training.seconds,
            "evaluation": time.perf_counter() - started,
            "forwards": forwards,
            "losses": losses if failure is None else [],
            "failure": failure,
        }
        self.ledger.write(key, record)
        if failure is not None or steps == self.task.run_steps:
            self.ledger.drop_state(run_key)
        return record

    def _evaluated(self, training: Training, batches: Iterable[Any], name: str) -> tuple[list[float], str | None]:
        losses = self.task.evaluate(training.model, batches)
        wrong = losses[~np.isfinite(losses)]
        return losses.tolist(), f"the {name} loss was {wrong[0]} after step {training.step}" if len(wrong) else None

    def _note(self, key: str, score: Score) -> Score:
        self.scores.append(score)
        self._known[key] = score
        return score

    def _tested(self, steps: int, phase: str) -> bool:
        return phase == VERIFY and steps == self.task.run_steps and self.task.test_steps > 0

    def _evaluation(self, *, tested: bool) -> float:
        """Return what an evaluation costs, in steps."""
        return FORWARD * (self.task.val_steps + (self.task.test_steps if tested else 0))


def _keys(candidate: Candidate, run: int, steps: int, *, tested: bool) -> tuple[str, str]:
    """Return the keys of a result and of the run that it is of."""
    return hash_of([candidate.key, run, steps, tested]), hash_of([candidate.key, run])


def _test_key(key: str) -> str:
    return f"{key}-test"
