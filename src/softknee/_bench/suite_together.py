"""What the studies of a suite say together: average ranks where there are several settings, agreement of two."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from softknee._report.table import listed, number, p_value
from softknee._statistics.correlation import FEWEST_ACTIVATIONS, RankCorrelation, rank_correlation
from softknee._statistics.ranks import Ranking, friedman, settings_warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from softknee._bench.study import Study

FEWEST_RANKED, FEWEST_SETTINGS = 3, 2


@dataclass(frozen=True)
class Together:
    """What several studies say together.

    Attributes:
        activations: Labels of those that all studies have results of, in the order of the first study.
        ranking: Average ranks; None under two settings or three activations.
        agreement: Of the rankings of exactly two settings; None otherwise, or under five activations.
        sentences: All that in words.
    """

    activations: tuple[str, ...]
    ranking: Ranking | None
    agreement: RankCorrelation | None
    sentences: tuple[str, ...]


def together(studies: Sequence[Study]) -> Together:
    """Read studies together.

    Args:
        studies: Of a suite.

    Returns:
        What they say.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    labels = _everywhere(studies)
    scores = np.array([[_score(study, label) for label in labels] for study in studies])
    ranking = agreement = None
    if len(studies) >= FEWEST_SETTINGS and len(labels) >= FEWEST_RANKED:
        ranking = friedman(scores, generator=np.random.default_rng(0))
    if len(studies) == FEWEST_SETTINGS and len(labels) >= FEWEST_ACTIVATIONS and _varied(scores):
        agreement = rank_correlation(scores[0], scores[1])
    return Together(labels, ranking, agreement, tuple(_sentences(studies, labels, ranking, agreement)))


def _everywhere(studies: Sequence[Study]) -> tuple[str, ...]:
    """Return the activations that have finished in every study, well or badly."""
    ended = [{row.activation for row in study.table[0].rows if row.done or row.diverged} for study in studies]
    first = studies[0].files.activations if studies else ()
    return tuple(label for label in first if all(label in labels for labels in ended))


def _score(study: Study, label: str) -> float:
    """Return the mean score, minus infinity where a run diverged: what may not train is no good choice."""
    row = study.table[0].row(label)
    return -inf if row.diverged or row.mean is None else row.mean


def _varied(scores: NDArray[np.float64]) -> bool:
    return all(len(set(row)) > 1 for row in scores.tolist())


def _sentences(
    studies: Sequence[Study], labels: Sequence[str], ranking: Ranking | None, agreement: RankCorrelation | None
) -> list[str]:
    said = []
    if ranking is not None:
        least = min(ranking.ranks)
        best = [label for label, rank in zip(labels, ranking.ranks, strict=True) if rank == least]
        said.append(
            f"Over {len(studies)} settings {listed(best)} {'has' if len(best) == 1 else 'have'} the best average rank, "
            f"{number(least, 2)} of {len(labels)} (Friedman's test, {p_value(ranking.p)})."
        )
        warning = settings_warning(ranking)
        said += [warning] if warning else []
    if agreement is not None:
        said.append(
            f"The two rankings agree with Kendall's tau {number(agreement.tau, 2)} (95 % interval "
            f"{number(agreement.low, 2)} to {number(agreement.high, 2)}) over {agreement.activations} activations."
        )
    return said
