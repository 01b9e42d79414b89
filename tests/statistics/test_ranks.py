"""Friedman's test, critical differences and groups, against Demsar's tables and by enumeration."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.ranks import Ranking, critical_difference, friedman, groups_within, settings_warning

# Ranks of four variants of C4.5 on 14 data sets: table 6 of Demsar (2006).
DEMSAR = [
    (4, 3, 2, 1),
    (1, 2, 3, 4),
    (4, 1, 2, 3),
    (4, 1, 3, 2),
    (4, 2, 3, 1),
    (1, 2.5, 4, 2.5),
    (3, 2, 4, 1),
    (2.5, 2.5, 4, 1),
    (4, 3, 2, 1),
    (2.5, 2.5, 2.5, 2.5),
    (4, 2.5, 1, 2.5),
    (3, 2, 4, 1),
    (4, 1, 2, 3),
    (3, 1, 4, 2),
]


def generator(seed=0):
    return np.random.default_rng(seed)


def test_the_worked_example_of_demsar():
    found = friedman(-np.array(DEMSAR), generator=generator())
    assert found.ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    # He leaves ties uncorrected; their correction is 1 - sum(t^3 - t) / (N (k^3 - k)).
    assert found.chi2 * (1 - 78 / 840) == pytest.approx(9.28, abs=0.005)
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert found.p == pytest.approx(0.0165, abs=0.005)
    # As he finds: the test says that they differ, the critical difference cannot say which.
    assert found.groups == ((3, 1, 2, 0),)
    assert found.settings == 14


@pytest.mark.parametrize(
    ("level", "published"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_values_of_demsars_table(level, published):
    """Table 5 (a), for 2 to 10 classifiers; with k (k + 1) / 6 settings the difference is the value itself."""
    found = [critical_difference(k, 6, level=level) / np.sqrt(k * (k + 1) / 36) for k in range(2, 11)]
    assert found == pytest.approx(published, abs=1.5e-3)


def test_a_critical_difference_is_exceeded_as_often_as_it_says():
    ranks = generator().permuted(np.tile(np.arange(1, 7.0), (3000, 30, 1)), axis=-1).mean(axis=1)
    assert np.mean(np.ptp(ranks, axis=1) >= critical_difference(6, 30)) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize(
    "scores", [[[3, 2, 1], [3, 2, 1], [3, 2, 1]], [[3, 2, 1], [3, 1, 2], [3, 2, 1]], [[3, 3, 1]] * 3]
)
def test_p_is_that_of_all_permutations(scores):
    values = np.array(scores, dtype=float)
    rows = [list(permutations(stats.rankdata(-row))) for row in values]
    sums = [np.square(np.sum(chosen, axis=0)).sum() for chosen in product(*rows)]
    observed = np.square(np.sum([row[0] for row in rows], axis=0)).sum()
    exact = np.mean(np.array(sums) >= observed - 1e-9)
    assert friedman(values, generator=generator()).p == pytest.approx(exact, abs=0.01)


def test_many_settings_agree_with_chi_squared():
    scores = generator(3).normal(size=(60, 4)) + np.array([0.3, 0.1, 0, 0])
    found = friedman(scores, generator=generator())
    expected = stats.friedmanchisquare(*scores.T)
    assert found.chi2 == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.015)
    assert found.f == pytest.approx(59 * found.chi2 / (60 * 3 - found.chi2))


def test_full_agreement_is_the_smallest_p_there_is():
    found = friedman(np.tile([4.0, 3.0, 2.0, 1.0, 0.0], (6, 1)), generator=generator(), permutations=999)
    assert (found.f, found.p) == (np.inf, 0.001)
    assert found.ranks == (1, 2, 3, 4, 5)
    assert found.groups == ((0, 1, 2), (1, 2, 3), (2, 3, 4))


def test_ties_everywhere_show_nothing():
    found = friedman(np.ones((3, 4)), generator=generator())
    assert (found.chi2, found.f, found.p) == (0, 0, 1)
    assert found.ranks == (2.5, 2.5, 2.5, 2.5)
    assert found.groups == ((0, 1, 2, 3),)


@given(st.integers(0, 1000))
def test_only_the_order_within_settings_counts(seed):
    scores = generator(seed).normal(size=(4, 5))
    found = friedman(scores, generator=generator(), permutations=99)
    stretched = np.exp(scores) * [[1], [100], [1], [0.01]] + [[0], [5], [-3], [1]]
    assert friedman(stretched, generator=generator(), permutations=99) == found
    assert sum(found.ranks) == pytest.approx(15)


def test_what_diverged_ranks_last():
    scores = np.array([[90.0, -np.inf, 80.0, -np.inf], [90.0, 95.0, 80.0, -np.inf]])
    found = friedman(scores, generator=generator())
    assert found.ranks == (1.5, 2.25, 2.5, 3.75)


@given(st.lists(st.floats(1, 9).map(lambda value: round(value, 1)), min_size=2, max_size=8), st.floats(0.05, 5))
def test_groups_are_all_largest_sets_that_lie_close_together(ranks, critical):
    def close(chosen):
        values = [ranks[index] for index in chosen]
        return max(values) - min(values) < critical

    indices = range(len(ranks))
    sets = [set(chosen) for size in range(2, len(ranks) + 1) for chosen in combinations(indices, size) if close(chosen)]
    largest = [found for found in sets if not any(found < other for other in sets)]
    groups = groups_within(ranks, critical)
    assert sorted(map(sorted, groups)) == sorted(map(sorted, largest))
    for group in groups:
        assert [ranks[index] for index in group] == sorted(ranks[index] for index in group)


def test_few_settings_are_warned_of():
    scores = np.tile(np.arange(10.0), (3, 1))
    found = friedman(scores, generator=generator())
    assert settings_warning(found) == (
        "Ranks over 3 settings tell little apart: average ranks must differ by 7.82, where 9 is the largest possible "
        "difference; what is not told apart is not shown to be equal."
    )
    assert settings_warning(friedman(scores[:2], generator=generator())) == (
        "Ranks over 2 settings tell little apart: the critical difference of average ranks is 9.58, more than the "
        "largest possible, 9."
    )
    assert settings_warning(friedman(np.tile(np.arange(10.0), (5, 1)), generator=generator())) is None


def test_what_cannot_be_ranked_is_an_error():
    with pytest.raises(UsageError, match=r"shape \(2, 2\); at least \(2 settings, 3 activations\) are needed"):
        friedman(np.zeros((2, 2)), generator=generator())
    with pytest.raises(UsageError, match="a score is NaN or infinite; give -inf for a run that diverged"):
        friedman(np.array([[1, 2, np.nan], [1, 2, 3]]), generator=generator())
    with pytest.raises(UsageError, match="are 1, 3 and 0.05; they must be at least 2, at least 1 and between 0 and 1"):
        critical_difference(1, 3)


def test_a_ranking_is_plain_data():
    found = friedman(np.arange(12.0).reshape(3, 4), generator=generator())
    assert isinstance(found, Ranking)
    assert all(type(rank) is float for rank in found.ranks)
