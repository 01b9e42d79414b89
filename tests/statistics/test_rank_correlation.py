"""Kendall's tau between settings, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.correlation import rank_correlation

SCORES = st.lists(st.integers(0, 9), min_size=6, max_size=6)


# At 0.98 a textbook's interval by atanh covers 73 % with ten activations.
@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.98])
def test_intervals_of_normal_scores_cover(count, correlation):
    rng = np.random.default_rng([count, round(100 * correlation)])
    truth, hits = 2 / np.pi * np.arcsin(correlation), []
    for _ in range(250):
        first, other = rng.normal(size=(2, count))
        found = rank_correlation(first, correlation * first + np.sqrt(1 - correlation**2) * other)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) >= 0.9


@given(SCORES, SCORES)
def test_it_is_symmetric_and_turns_with_the_order(first, second):
    first, second = np.array(first, dtype=float), np.array(second, dtype=float)
    assume(np.ptp(first) > 0)
    assume(np.ptp(second) > 0)
    found, reversed_, stretched = (
        rank_correlation(*pair) for pair in ((first, second), (-first, second), (second, np.exp(first)))
    )
    assert found.low <= found.tau <= found.high
    assert (reversed_.tau, reversed_.low, reversed_.high) == pytest.approx((-found.tau, -found.high, -found.low))
    assert (stretched.tau, stretched.low, stretched.high) == pytest.approx((found.tau, found.low, found.high))


def test_tau_and_p_are_those_of_counted_pairs():
    first, second = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.array([2.0, 1.0, 3.0, 5.0, 4.0, 6.0])
    found = rank_correlation(first, second)
    assert found.tau == pytest.approx((13 - 2) / 15)
    # Of the 720 orders, 1 + 5 + 14 have at most two swaps; and as many the other way.
    assert found.p == pytest.approx(2 * 20 / 720)
    assert found.activations == 6


def test_the_same_order_twice_is_no_proof_of_a_perfect_relation():
    found = rank_correlation(np.arange(6.0), np.arange(6.0) ** 3)
    assert (found.tau, found.high) == pytest.approx((1, 1))
    assert 0.3 < found.low < 0.8
    wider = rank_correlation(np.arange(5.0), np.arange(5.0))
    assert wider.low < found.low


def test_independent_scores_have_the_known_error():
    """The interval ends where tau is 1.96 of its errors away; at 0 that is the usual test's."""
    count = 40
    error = np.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1)))
    second = np.random.default_rng(0).permutation(count)
    found = rank_correlation(np.arange(float(count)), second)
    assert (found.low <= 0 <= found.high) == (abs(found.tau) <= 1.959964 * error)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.tau) / error), abs=0.02)


def test_a_diverged_activation_is_last():
    first = np.array([1.0, 2.0, 3.0, 4.0, -np.inf])
    assert rank_correlation(first, np.array([2.0, 3.0, 4.0, 5.0, 1.0])).tau == pytest.approx(1)


def test_what_gives_no_correlation_is_an_error():
    with pytest.raises(UsageError, match=r"shapes \(4,\) and \(4,\); they must be of the same activations, at least 5"):
        rank_correlation(np.arange(4.0), np.arange(4.0))
    with pytest.raises(UsageError, match=r"shapes \(5,\) and \(6,\)"):
        rank_correlation(np.arange(5.0), np.arange(6.0))
    with pytest.raises(UsageError, match="all activations have the same score in a setting"):
        rank_correlation(np.arange(5.0), np.ones(5))
    with pytest.raises(UsageError, match="a score is NaN"):
        rank_correlation(np.arange(5.0), np.full(5, np.nan))
