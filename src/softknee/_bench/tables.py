"""What the runs of a study say about its activations, condition by condition."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from softknee._statistics.decisions import Verdict, holm, verdict
from softknee._statistics.intervals import Difference, mean_interval, paired_difference, unpaired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from softknee._bench.metric import Metric
    from softknee._bench.study_files import Cell, Run, StudyFiles

# The network without activations: a control, not one of those whose gap is to be explained.
LINEAR = "identity"


@dataclass(frozen=True)
class Row:
    """One activation in one condition. Scores and differences are in the unit of the study's metric.

    Attributes:
        activation: Label.
        rank: 1 for the highest mean; None without a mean.
        done: Runs that count.
        diverged: Runs whose numbers became infinite; recorded, never averaged.
        failed: Runs that ended in an error, or with the death of their process.
        missing: Runs without a result so far.
        mean: Test score after the last epoch, mean over the runs done.
        sd: Its sample standard deviation over seeds.
        low: Lower end of the mean's 95 % interval over seeds and, where they are a sample, test examples; None under
            two runs.
        high: Upper end.
        best_mean: Mean of the best epoch's test score: optimistic, never ranked.
        pairs: Seeds that both this activation and the reference finished; 0 where seeds do not pair.
        difference: Mean difference to the reference, over pairs or, where seeds do not pair, over all runs done; None
            for the reference itself.
        difference_low: Lower end of its 95 % interval, not adjusted.
        difference_high: Upper end.
        p: Holm-adjusted p value against no difference.
        p_equivalence: Holm-adjusted p value of the two one-sided tests against a difference of at least the margin.
        verdict: What this shows; `"reference"` for the reference.
        seconds: Mean training time of a run.
        step_seconds: Of a step, the mean over runs.
        parameters: Of the model.
        activation_parameters: Those of its activations.
        multiply_adds: Of its layers, for one example.
        activation_inputs: Elements that go through its activations for one example.
        activation_price: Vector instructions they take there, forward and backward; None where they are not counted.
        learning_rates: The rates of its runs, ascending; more than one only where seeds differ.
    """

    activation: str
    rank: int | None
    done: int
    diverged: int
    failed: int
    missing: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    best_mean: float | None
    pairs: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_equivalence: float | None
    verdict: Verdict | str
    seconds: float | None
    step_seconds: float | None
    parameters: int | None
    activation_parameters: int | None
    multiply_adds: int | None
    activation_inputs: int | None
    activation_price: int | None
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """How far the activations lie apart in a condition.

    Attributes:
        points: Largest mean minus smallest, in the unit of the metric.
        highest: Label of the largest.
        lowest: Label of the smallest.
        count: Activations compared.
    """

    points: float
    highest: str
    lowest: str
    count: int


@dataclass(frozen=True)
class CellTable:
    """A condition's table.

    Attributes:
        cell: The condition.
        rows: By rank; activations without a mean at the end.
        spread: Over the activations that have a mean in every condition, the linear network's `identity` left out: it
            is there to show what activations are for; None under two.
        spread_matched: The same without those that have no valid match.
    """

    cell: Cell
    rows: tuple[Row, ...]
    spread: Spread | None
    spread_matched: Spread | None

    @property
    def order(self) -> list[str]:
        """Labels by rank."""
        return [row.activation for row in self.rows]

    def row(self, activation: str) -> Row:
        """Return the row of an activation."""
        return next(row for row in self.rows if row.activation == activation)


def build_tables(files: StudyFiles) -> tuple[CellTable, ...]:
    """Compute the tables of all conditions.

    Args:
        files: The study.

    Returns:
        One table a condition, in the manifest's order.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    rows = {cell.name: _ranked(_rows(files, cell)) for cell in files.cells}
    everywhere = [
        label
        for label in files.activations
        if all(row.mean is not None for found in rows.values() for row in found if row.activation == label)
    ]
    activations = [label for label in everywhere if label != LINEAR]
    matched = [label for label in activations if label not in files.unmatched]
    return tuple(
        CellTable(
            cell, tuple(rows[cell.name]), _spread(rows[cell.name], activations), _spread(rows[cell.name], matched)
        )
        for cell in files.cells
    )


def comparable(first: Sequence[Run], second: Sequence[Run], *, paired: bool) -> tuple[list[Run], list[Run]]:
    """Return what a difference of two activations rests on.

    Args:
        first: Runs of one.
        second: Of the other.
        paired: Whether runs of one seed make pairs.

    Returns:
        The runs done: in pairs, those of a seed at the same place, or all.
    """
    own, other = ([run for run in runs if run.done] for runs in (first, second))
    if not paired:
        return own, other
    partners = {run.seed: run for run in other}
    own = [run for run in own if run.seed in partners]
    return own, [partners[run.seed] for run in own]


def compared_seeds(files: StudyFiles, cell: str, label: str) -> int:
    """Return how many seeds the difference of an activation to the reference rests on.

    Args:
        files: The study.
        cell: Name of the condition.
        label: The activation.

    Returns:
        The number of pairs; where seeds do not pair, of the runs done on the side that has fewer.
    """
    return min(map(len, comparable(files.of(cell, label), files.of(cell, files.reference), paired=files.paired)))


def score_matrix(runs: Sequence[Run], metric: Metric) -> NDArray[np.floating]:
    """Return a matrix whose mean is the mean score.

    Where examples are a sample, it holds the runs' right answers, 0 and 100. Elsewhere, as on a grid over everything,
    only seeds vary, which two equal columns say.

    Args:
        runs: At least one, all done.
        metric: Of their study.

    Returns:
        `(runs, examples)`, or `(runs, 2)`.
    """
    if metric.sampled:
        return np.stack([run.correct for run in runs]).astype(np.float32) * 100
    return np.repeat([[run.get(metric.test)[-1]] for run in runs], 2, axis=1)


def _rows(files: StudyFiles, cell: Cell) -> list[Row]:
    """Return the rows of a condition; its comparisons with the reference are one family for Holm's adjustment."""
    difference = paired_difference if files.paired else unpaired_difference
    reference = files.of(cell.name, files.reference)
    differences: dict[str, Difference] = {}
    rows = []
    for label in files.activations:
        runs = files.of(cell.name, label)
        rows.append(_plain_row(label, runs, files.metric))
        if label == files.reference:
            rows[-1] = replace(rows[-1], verdict="reference")
        else:
            sides = comparable(runs, reference, paired=files.paired)
            rows[-1] = replace(rows[-1], pairs=len(sides[0]) if files.paired else 0)
            if min(map(len, sides)) >= 2:
                own, other = (score_matrix(side, files.metric) for side in sides)
                differences[label] = difference(own, other, margin=files.margin)
    p = dict(zip(differences, holm([found.p for found in differences.values()]), strict=True))
    same = dict(zip(differences, holm([found.p_equivalence for found in differences.values()]), strict=True))
    return [
        _compared(row, differences[row.activation], float(p[row.activation]), float(same[row.activation]))
        if row.activation in differences
        else row
        for row in rows
    ]


def _plain_row(label: str, runs: Sequence[Run], metric: Metric) -> Row:
    """Return what the activation's own runs say."""
    done = [run for run in runs if run.done]
    scores = [run.get(metric.test)[-1] for run in done]
    estimate = mean_interval(score_matrix(done, metric)) if len(done) >= 2 else None
    counts: dict[str, int] = next((run.get("counts") for run in runs if run.get("counts")), {})
    return Row(
        activation=label,
        rank=None,
        done=len(done),
        diverged=sum(run.status == "diverged" for run in runs),
        failed=sum(run.status in {"failed", "lost"} for run in runs),
        missing=sum(run.status == "missing" for run in runs),
        mean=_mean(scores),
        sd=statistics.stdev(scores) if len(done) >= 2 else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        best_mean=_mean([run.get(metric.best) for run in done]),
        pairs=0,
        difference=None,
        difference_low=None,
        difference_high=None,
        p=None,
        p_equivalence=None,
        verdict="too few seeds",
        seconds=_mean([run.get("seconds") for run in done]),
        step_seconds=_mean([seconds for run in done if (seconds := run.get("step_seconds")) is not None]),
        parameters=counts.get("parameters"),
        activation_parameters=counts.get("activation_parameters"),
        multiply_adds=counts.get("multiply_adds"),
        activation_inputs=counts.get("activation_inputs"),
        activation_price=counts.get("activation_price"),
        learning_rates=tuple(sorted({run.learning_rate for run in runs})),
    )


def _compared(row: Row, found: Difference, p: float, p_equivalence: float) -> Row:
    return replace(
        row,
        difference=found.mean,
        difference_low=found.low,
        difference_high=found.high,
        p=p,
        p_equivalence=p_equivalence,
        verdict=verdict(found.mean, p=p, p_equivalence=p_equivalence, seeds=found.seeds),
    )


def _ranked(rows: list[Row]) -> list[Row]:
    ordered = sorted(rows, key=lambda row: (row.mean is None, -(row.mean or 0.0)))
    return [replace(row, rank=place if row.mean is not None else None) for place, row in enumerate(ordered, start=1)]


def _spread(rows: Sequence[Row], labels: Sequence[str]) -> Spread | None:
    means = {row.activation: row.mean for row in rows if row.activation in labels and row.mean is not None}
    if len(means) < 2:
        return None
    highest, lowest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return Spread(means[highest] - means[lowest], highest, lowest, len(means))


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
