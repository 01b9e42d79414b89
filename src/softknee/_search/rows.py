"""What a search leaves behind about everything it tried, as plain data and dataclasses of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._card.recognise import exactly
from softknee._report.plain import finite, plain
from softknee._search.candidate import Candidate
from softknee._search.export import sketch
from softknee._search.judge import VERIFY
from softknee._search.shapes import values_of
from softknee._search.verify import several_batches
from softknee._statistics.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from softknee._search.judge import Judge, Score
    from softknee._search.verify import Final

# Phase of the meter in which what is to be beaten is trained once.
BASELINES = "baselines"


@dataclass(frozen=True)
class Tried:
    """One training of a candidate, as far as it went.

    Attributes:
        run: Number of the run.
        part: Of a full run.
        loss: Mean validation loss, None if it failed.
        failure: Why it failed.
        phase: `"baselines"`, `"verify"` or a method.
        seconds: From the first step of the run.
        charged: Runs that the search had spent when this was known.
    """

    run: int
    part: float
    loss: float | None
    failure: str | None
    phase: str
    seconds: float
    charged: float


@dataclass(frozen=True)
class FinalRuns:
    """Someone's final runs: mean losses, each over the batches, with intervals over new seeds and batches.

    Attributes:
        runs: Their numbers.
        validation: Losses on the validation data.
        test: On the test data; None where they were not read.
        validation_mean: Over runs; None, as its interval, if a run failed.
        validation_low: Lower end of the 95 % interval.
        validation_high: Upper end.
        test_mean: Over runs.
        test_low: Lower end of the 95 % interval.
        test_high: Upper end.
    """

    runs: tuple[int, ...]
    validation: tuple[float | None, ...]
    test: tuple[float | None, ...] | None
    validation_mean: float | None = None
    validation_low: float | None = None
    validation_high: float | None = None
    test_mean: float | None = None
    test_low: float | None = None
    test_high: float | None = None


@dataclass(frozen=True)
class Row:
    """All about one candidate.

    Attributes:
        candidate: It.
        is_baseline: Whether it is one of those to beat.
        same_as: Name of the catalogue's function that it is, None if it is none.
        scores: All its trainings in the order of time.
        part: Of a full run that it was trained for in run 0 before the finals.
        loss: Its mean validation loss then, None if it failed.
        failure: Why its last failed training failed, None if none did.
        final: Its final runs, None if it was not in the finals.
    """

    candidate: Candidate
    is_baseline: bool
    same_as: str | None
    scores: tuple[Tried, ...]
    part: float
    loss: float | None
    failure: str | None
    final: FinalRuns | None

    @property
    def name(self) -> str:
        """Short text."""
        return self.candidate.name

    def to_json(self, groups: Sequence[str]) -> dict[str, Any]:
        """Return it as plain data.

        Args:
            groups: Names of the groups of sites.
        """
        own = plain({name: getattr(self, name) for name in self.__dataclass_fields__ if name != "candidate"})
        functions = [
            {"group": group, **one.to_json(), "constants": dict(one.constants)}
            for group, one in zip(groups, self.candidate.functions, strict=True)
        ]
        return {
            "key": self.candidate.key,
            "name": self.name,
            "origin": self.candidate.origin,
            "functions": functions,
            "curve": [sketch(one) for one in self.candidate.functions],
            **own,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Return what `to_json` was called of."""
        functions = [{**one, "constants": [*one["constants"].items()]} for one in data["functions"]]
        final = data["final"]
        return cls(
            candidate=Candidate.from_json({"functions": functions, "origin": data["origin"]}),
            scores=tuple(Tried(**one) for one in data["scores"]),
            final=None if final is None else FinalRuns(**{name: _frozen(value) for name, value in final.items()}),
            **{name: data[name] for name in ("is_baseline", "same_as", "part", "loss", "failure")},
        )


def rows_of(
    judge: Judge,
    baselines: Iterable[Candidate],
    finals: Sequence[Final],
    test: Mapping[str, NDArray[np.float64]],
) -> tuple[Row, ...]:
    """Return a row for everything that was tried: finalists by validation, then others by their last score.

    Args:
        judge: Knows all scores.
        baselines: Those to beat.
        finals: What the finals gave.
        test: Losses that were read, `(runs, batches)` by key.
    """
    fixed = {one.key for one in baselines}
    scores: dict[str, list[Score]] = {}
    for score in judge.scores:
        scores.setdefault(score.candidate.key, []).append(score)
    ended = {one.candidate.key: one for one in finals}
    rows = [_row(own, key in fixed, ended.get(key), test.get(key)) for key, own in scores.items()]
    return tuple(sorted(rows, key=_rank))


def _row(scores: list[Score], is_baseline: bool, final: Final | None, test: NDArray[np.float64] | None) -> Row:
    candidate = scores[0].candidate
    first = [score for score in scores if score.run == 0] or scores
    last = max(first, key=lambda score: score.part)
    return Row(
        candidate=candidate,
        is_baseline=is_baseline,
        same_as=None if is_baseline else _same_as(candidate),
        scores=tuple(map(_tried, scores)),
        part=last.part,
        loss=finite(last.loss),
        failure=next((score.failure for score in reversed(scores) if score.failure is not None), None),
        final=None if final is None else _final([one for one in scores if _is_final(one)], final, test),
    )


def _tried(score: Score) -> Tried:
    return Tried(score.run, score.part, finite(score.loss), score.failure, score.phase, score.seconds, score.spent)


def _is_final(score: Score) -> bool:
    return score.phase == VERIFY


def _final(scores: list[Score], final: Final, test: NDArray[np.float64] | None) -> FinalRuns:
    numbers: dict[str, float] = {}
    for name, losses in (("validation", final.validation), ("test", test)):
        if losses is not None:
            found = mean_interval(several_batches(losses))
            numbers |= {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return FinalRuns(
        runs=tuple(score.run for score in scores),
        validation=tuple(finite(score.loss) for score in scores),
        test=None if test is None else tuple(test.mean(axis=1).tolist()),
        **numbers,
    )


def _same_as(candidate: Candidate) -> str | None:
    if len(set(candidate.functions)) > 1 or candidate.functions[0].trained:
        return None
    values = values_of(candidate.functions[0])
    return None if values is None else exactly(values)


def _rank(row: Row) -> tuple[int, float, float]:
    """Return what rows are sorted by: the kind of their last result, how far they came, and the loss."""
    if row.final is not None and row.final.validation_mean is not None:
        return 0, 0.0, row.final.validation_mean
    if row.loss is None or row.final is not None:
        return 2, -row.part, math.inf
    return 1, -row.part, row.loss


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
