"""Intervals and p values against SciPy's t tests, where one source of variance stands alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.intervals import mean_interval, paired_difference

MARGIN = 0.5


def only_seeds(values, m=7):
    """Every example of a seed has the same score: the examples say nothing."""
    return np.tile(np.asarray(values)[:, None], (1, m))


def only_examples(values, n=3):
    """Every seed scores alike: the seeds say nothing."""
    return np.tile(np.asarray(values), (n, 1))


def test_with_seeds_alone_it_is_the_paired_t_test():
    first, second = np.array([88.1, 87.4, 88.3, 87.9]), np.array([87.5, 87.2, 88.0, 87.0])
    found = paired_difference(only_seeds(first), only_seeds(second), margin=MARGIN)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert found.seeds == 4


def test_with_seeds_alone_equivalence_is_two_one_sided_t_tests():
    differences = np.array([0.1, -0.05, 0.02, 0.06, -0.1])
    found = paired_difference(only_seeds(differences), only_seeds(np.zeros(5)), margin=MARGIN)
    below = stats.ttest_1samp(differences, MARGIN, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -MARGIN, alternative="greater").pvalue
    assert found.p_equivalence == pytest.approx(max(below, above), rel=1e-9)


def test_with_examples_alone_it_is_the_t_test_over_examples():
    values = np.random.default_rng(0).normal(0.3, 1, size=40)
    found = paired_difference(only_examples(values), np.zeros((3, 40)), margin=MARGIN)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)


def test_a_difference_beyond_the_margin_is_no_equivalence():
    found = paired_difference(only_seeds([2.0, 2.1, 1.9]), only_seeds([0.0, 0.0, 0.0]), margin=MARGIN)
    assert found.p_equivalence > 0.99


def test_equal_scores_differ_by_nothing_and_are_equivalent():
    same = np.random.default_rng(0).random((3, 100)) < 0.8
    found = paired_difference(same, same, margin=MARGIN)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.p_equivalence < 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 8), m=st.integers(2, 60), shift=st.floats(-1, 1))
def test_p_is_under_five_percent_exactly_where_the_interval_leaves_out_zero(seed, n, m, shift):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, m)) + rng.normal(size=(n, 1)) + shift
    second = rng.normal(size=(n, m))
    found = paired_difference(first, second, margin=MARGIN)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    swapped = paired_difference(second, first, margin=MARGIN)
    assert (swapped.mean, swapped.p, swapped.p_equivalence) == pytest.approx(
        (-found.mean, found.p, found.p_equivalence)
    )


def test_percent_scores_give_percent_intervals():
    right = np.random.default_rng(0).random((3, 200)) < 0.8
    share, percent = mean_interval(right), mean_interval(100.0 * right)
    assert (percent.mean, percent.low, percent.high) == pytest.approx(
        (100 * share.mean, 100 * share.low, 100 * share.high)
    )
    assert percent.low < percent.mean < percent.high


def test_what_cannot_be_paired_is_an_error():
    with pytest.raises(UsageError, match=r"shapes \(3, 4\) and \(2, 4\); they must be the same"):
        paired_difference(np.zeros((3, 4)), np.zeros((2, 4)), margin=1)
    with pytest.raises(UsageError, match="margin is 0; it must be positive"):
        paired_difference(np.zeros((3, 4)), np.zeros((3, 4)), margin=0)


def test_seeds_that_agree_by_chance_do_not_hide_the_noise_in_single_predictions():
    """Three seeds that always answer one class, each another: equal means, but three predictions that disagree."""
    scores = np.kron(np.eye(3), np.ones(400))
    found = mean_interval(scores)
    noise = np.sqrt(1 / 3 * 2 / 3 / scores.size)
    assert found.high - found.mean == pytest.approx(1.96 * noise, rel=0.25)
