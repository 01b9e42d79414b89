"""What a study's seeds can bear: how often an activation beats the reference, seeds needed, a ranking drawn anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from softknee._bench.tables import comparable, compared_seeds, score_matrix
from softknee._report.table import plural
from softknee._statistics.improvement import Improvement, probability_of_improvement
from softknee._statistics.power import SeedsNeeded, measured_seeds_needed
from softknee._statistics.resampling import bootstrap_difference
from softknee._statistics.stability import Stability, ranking_stability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.study_files import Cell, Run, StudyFiles
    from softknee._bench.tables import CellTable
    from softknee._statistics.intervals import Estimate

FEWEST_SEEDS, FEWEST_ACTIVATIONS = 2, 2
# Seeds of an activation, the first ones, from which spreads are taken: they then are known to a tenth.
SPREAD_SEEDS = 50
# Up to so many, a second opinion on intervals is worth its time.
FEW_SEEDS = 10


@dataclass(frozen=True)
class Evidence:
    """What the seeds of one activation can bear in one condition.

    Attributes:
        activation: Label.
        improvement: Probability that a new run of it scores higher than one of the reference; None for the reference,
            and where either has fewer than two runs that ended.
        resampled: The difference to the reference with its bootstrap-t interval; None as above, or if seeds are many.
        needed: Seeds that find a difference as large as the margin; None for the reference, and under two seeds.
        first: Probability that it is first when seeds are drawn anew; None where it is not in that ranking.
        overtaken: Probability that the next in that ranking comes out above it; None for the last.
    """

    activation: str
    improvement: Improvement | None
    resampled: Estimate | None
    needed: SeedsNeeded | None
    first: float | None
    overtaken: float | None


@dataclass(frozen=True)
class CellEvidence:
    """What the seeds can bear in one condition.

    Attributes:
        cell: Name of the condition.
        rows: In the order of the ranking that is drawn anew, activations that are not in it at the end.
        halves: Mean of Kendall's tau between rankings by two halves of the seeds; None without that ranking.
        seeds: Number of seeds it rests on; 0 without it.
        left_out: Labels that are not in it: a run of theirs failed or is missing, or there is no such ranking.
        diverged: Labels in it of which a run diverged, and which are therefore last.
    """

    cell: str
    rows: tuple[Evidence, ...]
    halves: float | None
    seeds: int
    left_out: tuple[str, ...]
    diverged: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether there is anything to say."""
        return self.halves is not None or any(row.improvement or row.needed for row in self.rows)


def build_evidence(files: StudyFiles, tables: Sequence[CellTable]) -> tuple[CellEvidence, ...]:
    """Compute what the seeds can bear in every condition; the same each time.

    Args:
        files: The study.
        tables: Its tables.

    Returns:
        One for each table.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    return tuple(cell_evidence(files, table) for table in tables)


def cell_evidence(files: StudyFiles, table: CellTable, *, resampled: bool = True) -> CellEvidence:
    """Compute what the seeds can bear in one condition; the same each time.

    In rankings and probabilities a diverged run loses against every finished one, and so does a mean that holds one;
    where hardly an activation is without, there is no ranking. Runs that failed or are missing say nothing about their
    activation and are left out.

    Args:
        files: The study.
        table: Of the condition.
        resampled: Whether differences are resampled, which takes most of the time.

    Returns:
        It.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    ended = {label: _ended(files, files.of(table.cell.name, label)) for label in table.order}
    labels, seeds = _grid(ended)
    found = _stability(ended, labels, seeds, paired=files.paired)
    order = [labels[place] for place in found.order] if found else []
    left_out = [label for label in table.order if label not in order]
    first = dict(zip(labels, found.first, strict=True)) if found else {}
    overtaken = dict(zip(order[:-1], found.reversed, strict=True)) if found else {}
    rows = [
        Evidence(
            label,
            _improvement(ended, label, files.reference),
            *_differences(files, table.cell, label, resampled=resampled),
            first.get(label),
            overtaken.get(label),
        )
        for label in (*order, *left_out)
    ]
    return CellEvidence(
        table.cell.name,
        tuple(rows),
        found.halves if found else None,
        found.seeds if found else 0,
        tuple(left_out),
        tuple(label for label in order if -inf in (ended[label][seed] for seed in seeds)),
    )


def evidence_sentence(files: StudyFiles, evidence: Sequence[CellEvidence]) -> str | None:
    """Say how far the ranking can be trusted.

    Args:
        files: The study.
        evidence: Of its conditions.

    Returns:
        A sentence, or None where fewer than two seeds rank two activations.
    """
    shares = [found.rows[0].first for found in evidence if found.rows and found.rows[0].first is not None]
    if not shares:
        return None
    if len(evidence) > 1:
        ends = list(dict.fromkeys([percent(min(shares)), percent(max(shares))]))
        return f"With seeds drawn anew, the first would stay first in {' to '.join(ends)} of cases, by condition."
    (found,) = evidence
    sentence = f"With its {found.seeds} seeds drawn anew, {found.rows[0].activation} would be first in "
    return f"{sentence}{percent(shares[0])} of cases{_enough(files, found)}."


def percent(probability: float) -> str:
    """Return a probability that was counted over draws: none or all of them are not 0 or 1."""
    if probability < 0.005:
        return "under 1 %"
    return "over 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"


def _enough(files: StudyFiles, found: CellEvidence) -> str:
    """Return a clause on how many comparisons have the seeds they need."""
    judged = [(row.activation, row.needed.seeds) for row in found.rows if row.needed]
    if not judged:
        return ""
    enough = sum(needed is not None and needed <= compared_seeds(files, found.cell, label) for label, needed in judged)
    margin = files.metric.amount(files.margin, exact=True)
    return (
        f"; {enough} of {plural(len(judged), 'comparison')} with {files.reference} would find a difference of {margin} "
        "with 80 % power, before Holm's adjustment"
    )


def _ended(files: StudyFiles, runs: Sequence[Run]) -> dict[int | None, float]:
    """Return the score of each seed that finished or diverged, which is lower than any score."""
    scores: dict[int | None, float] = {}
    for run in runs:
        if run.done:
            scores[run.seed] = run.get(files.metric.test)[-1]
        elif run.status == "diverged":
            scores[run.seed] = -inf
    return scores


def _grid(ended: Mapping[str, Mapping[int | None, float]]) -> tuple[list[str], list[int | None]]:
    """Return activations and seeds of which every run finished or diverged: the seeds that most activations have."""
    started = [label for label, scores in ended.items() if scores]
    counts = Counter(seed for scores in ended.values() for seed in scores)
    seeds = [seed for seed, count in counts.items() if 2 * count > len(started)]
    return [label for label in started if all(seed in ended[label] for seed in seeds)], seeds


def _stability(
    ended: Mapping[str, Mapping[int | None, float]], labels: Sequence[str], seeds: Sequence[int | None], *, paired: bool
) -> Stability | None:
    scores = np.array([[ended[label][seed] for seed in seeds] for label in labels])
    steady = sum(-inf not in row for row in scores)
    if len(seeds) < FEWEST_SEEDS or steady < FEWEST_ACTIVATIONS:
        return None
    return ranking_stability(scores, paired=paired, generator=np.random.default_rng(0))


def _improvement(ended: Mapping[str, Mapping[int | None, float]], label: str, reference: str) -> Improvement | None:
    own, other = (np.array(list(ended.get(name, {}).values())) for name in (label, reference))
    if label == reference or min(len(own), len(other)) < FEWEST_SEEDS:
        return None
    return probability_of_improvement([own], [other], generator=np.random.default_rng(0))


def _differences(
    files: StudyFiles, cell: Cell, label: str, *, resampled: bool
) -> tuple[Estimate | None, SeedsNeeded | None]:
    """Return the difference to the reference by resampling, and the seeds that find one as large as the margin."""
    sides = comparable(files.of(cell.name, label), files.of(cell.name, files.reference), paired=files.paired)
    if label == files.reference or min(map(len, sides)) < FEWEST_SEEDS:
        return None, None
    own, other = (score_matrix(side[:SPREAD_SEEDS], files.metric) for side in sides)
    needed = measured_seeds_needed(own, other, difference=files.margin, paired=files.paired)
    if not resampled or max(map(len, sides)) > FEW_SEEDS:
        return None, needed
    return bootstrap_difference(own, other, paired=files.paired, generator=np.random.default_rng(0)), needed
