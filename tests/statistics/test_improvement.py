"""Probability of improvement against Mann and Whitney's statistic, its laws, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.improvement import probability_of_improvement

RUNS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=3)


def improvement(first, second, *, seed=0, draws=200):
    sides = ([np.array(runs, dtype=float) for runs in side] for side in (first, second))
    return probability_of_improvement(*sides, generator=np.random.default_rng(seed), draws=draws)


def test_in_one_setting_it_is_mann_and_whitneys_statistic():
    first, second = [3.1, 4.0, 2.2, 5.0], [3.1, 1.0, 2.5]
    expected = stats.mannwhitneyu(first, second).statistic / 12
    assert improvement([first], [second]).probability == pytest.approx(expected)


def test_settings_weigh_the_same_whatever_their_runs():
    found = improvement([[1.0, 1.0, 1.0, 1.0], [0.0]], [[0.0], [1.0, 1.0]])
    assert found.probability == 0.5
    assert (found.settings, found.seeds) == (2, 1)


@given(RUNS, st.integers(0, 100))
def test_both_directions_add_up_to_one(runs, seed):
    other = [np.random.default_rng(seed).integers(0, 6, size=3) for _ in runs]
    found, swapped = improvement(runs, other), improvement(other, runs)
    assert found.probability + swapped.probability == pytest.approx(1)
    assert found.low <= found.probability <= found.high


@given(RUNS, st.integers(0, 100))
def test_only_the_order_counts(runs, seed):
    other = [np.random.default_rng(seed).integers(0, 6, size=3) for _ in runs]
    stretched = ([np.exp(np.array(row)) - 3 for row in side] for side in (runs, other))
    assert improvement(runs, other) == improvement(*stretched)


# Percentiles at three seeds cover less than they say; 1/2 is where they are worst.
@pytest.mark.parametrize(("n", "truth", "least"), [(3, 0.5, 0.84), (3, 0.95, 0.93), (10, 0.5, 0.88), (10, 0.9, 0.86)])
def test_intervals_cover(n, truth, least):
    rng = np.random.default_rng([n, round(100 * truth)])
    ahead, hits = np.sqrt(2) * stats.norm.ppf(truth), []
    for _ in range(250):
        first, second = rng.normal(size=(2, n)) + ahead, rng.normal(size=(2, n))
        found = probability_of_improvement(list(first), list(second), generator=rng, draws=300)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) >= least


def test_runs_that_all_win_leave_room_for_doubt():
    """Three of three games won: Clopper and Pearson's lower end; more settings are more games."""
    found = improvement([[4.0, 5.0, 6.0]], [[1.0, 2.0, 3.0]])
    expected = stats.binomtest(3, 3).proportion_ci(0.95).low
    assert (found.probability, found.low, found.high) == pytest.approx((1, expected, 1))
    lost = improvement([[1.0, 2.0, 3.0]] * 4, [[4.0, 5.0, 6.0]] * 4)
    expected = stats.binomtest(0, 12).proportion_ci(0.95).high
    assert (lost.probability, lost.low, lost.high) == pytest.approx((0, 0, expected))


def test_diverged_runs_lose_and_are_not_left_out():
    found = improvement([[-np.inf, 90.0]], [[80.0, 80.0]])
    assert found.probability == 0.5
    assert improvement([[-np.inf]], [[-np.inf]]).probability == 0.5


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(UsageError, match="there are 1 and 2 settings; both must have the same, at least one"):
        improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(UsageError, match="each setting needs a row of at least one run"):
        improvement([[]], [[1.0]])
    with pytest.raises(UsageError, match="a score is NaN"):
        improvement([[np.nan]], [[1.0]])
