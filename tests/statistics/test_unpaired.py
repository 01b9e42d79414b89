"""Differences where examples pair and seeds do not: against Welch's t test, and by simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.intervals import paired_difference, unpaired_difference
from softknee._statistics.variance import unpaired_components

EXAMPLES = 300


def answers(rng, n, *, difficulty, luck):
    return 1.0 + luck * rng.normal(size=(n, 1)) + difficulty + 0.4 * rng.normal(size=(n, EXAMPLES)) > 0


def test_with_seeds_alone_it_is_welch():
    first, second = np.array([88.1, 87.4, 88.3, 87.9, 86.9]), np.array([87.5, 87.2, 85.0])
    found = unpaired_difference(*(np.repeat(side[:, None], 2, axis=1) for side in (first, second)), margin=1.0)
    expected = stats.ttest_ind(first, second, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert found.seeds == 3


def test_with_examples_alone_it_is_the_paired_t_test_over_examples():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, size=40), rng.normal(size=40)
    found = unpaired_difference(np.tile(first, (3, 1)), np.tile(second, (5, 1)), margin=0.5)
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


@pytest.mark.parametrize(("n", "k"), [(3, 3), (3, 10), (6, 6)])
@pytest.mark.parametrize(("luck", "other"), [(0.02, 0.02), (0.3, 0.3), (0.3, 0.05)])
def test_intervals_cover(n, k, luck, other):
    rng = np.random.default_rng([n, k, round(100 * luck), round(100 * other)])
    # With the same expected score whatever the luck is.
    scale = np.sqrt((0.97 + other**2) / (0.97 + luck**2))
    hits = []
    for _ in range(500):
        shared = 0.9 * rng.normal(size=EXAMPLES)
        first = answers(rng, n, difficulty=shared, luck=luck)
        second = answers(rng, k, difficulty=shared + (scale - 1), luck=other)
        found = unpaired_difference(first, second, margin=0.01)
        hits.append(found.low <= 0 <= found.high)
    assert 0.91 <= np.mean(hits) <= 0.995


def test_components_are_unbiased():
    rng = np.random.default_rng(3)
    n, k, m, own, noise = 3, 5, 40, 0.3, 0.5
    parts = []
    for _ in range(3000):
        shared = 2.0 * rng.normal(size=m)
        first, second = (
            luck * rng.normal(size=(size, 1)) + shared + own * rng.normal(size=m) + noise * rng.normal(size=(size, m))
            for size, luck in ((n, 0.1), (k, 0.2))
        )
        parts.append(unpaired_components(first, second))
    single = noise**2 / m * (1 / n + 1 / k)
    assert np.mean([part.noise for part in parts]) == pytest.approx(single, rel=0.03)
    assert np.mean([part.seeds for part in parts]) == pytest.approx(0.01 / n + 0.04 / k + single, rel=0.06)
    assert np.mean([part.examples for part in parts]) == pytest.approx(2 * own**2 / m, rel=0.1)
    assert np.mean([part.standard_error**2 for part in parts]) == pytest.approx(
        np.var([part.mean for part in parts]), rel=0.1
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), k=st.integers(2, 6), shift=st.floats(-1, 1))
def test_swapping_turns_the_sign_and_the_order_of_seeds_does_not_matter(seed, n, k, shift):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, 20)) + rng.normal(size=(n, 1)) + shift, rng.normal(size=(k, 20))
    found = unpaired_difference(first, second, margin=0.5)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    swapped = unpaired_difference(second, rng.permutation(first), margin=0.5)
    assert (-swapped.mean, -swapped.high, swapped.p, swapped.p_equivalence) == pytest.approx(
        (found.mean, found.low, found.p, found.p_equivalence)
    )


def test_it_needs_no_pairs_but_uses_those_of_the_examples():
    """Hard examples are hard for both, so most of what varies between examples cancels; luck of seeds does not."""
    rng = np.random.default_rng(4)
    hard, luck = 5 * rng.normal(size=200), rng.normal(size=(4, 1))
    first, second = (hard + luck + 0.1 * rng.normal(size=(4, 200)) for _ in range(2))
    loose, tight = (test(first, second, margin=0.5) for test in (unpaired_difference, paired_difference))
    assert loose.high - loose.low > 5 * (tight.high - tight.low)
    mixed = unpaired_difference(first, rng.permutation(second, axis=1), margin=0.5)
    hardness = 2 * 1.96 * 5 * np.sqrt(2 / 200)
    assert mixed.high - mixed.low == pytest.approx(np.hypot(loose.high - loose.low, hardness), rel=0.15)


def test_equal_constant_scores_differ_by_nothing():
    found = unpaired_difference(np.ones((3, 5)), np.ones((4, 5)), margin=0.5)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_other_examples_are_an_error():
    with pytest.raises(
        UsageError, match=r"\(3, 4\) and \(3, 5\); the second number, of test examples, must be the same"
    ):
        unpaired_difference(np.zeros((3, 4)), np.zeros((3, 5)), margin=1)
    with pytest.raises(UsageError, match="margin is 0; it must be positive"):
        unpaired_difference(np.zeros((3, 4)), np.zeros((2, 4)), margin=0)
