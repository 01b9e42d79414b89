"""Bootstrap-t intervals: coverage, laws, and what three seeds cannot give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from softknee._errors import UsageError
from softknee._statistics.intervals import mean_interval
from softknee._statistics.resampling import bootstrap_difference, counts
from softknee._statistics.variance import components

EXAMPLES, DRAWS = 200, 400


def answers(rng, n, *, difficulty, luck):
    return 1.0 + luck * rng.normal(size=(n, 1)) + difficulty + 0.4 * rng.normal(size=(n, EXAMPLES)) > 0


def generator(seed=0):
    return np.random.default_rng(seed)


def bootstrap_mean(scores, **options):
    """The difference to nothing."""
    return bootstrap_difference(scores, np.zeros(scores.shape), paired=True, **options)


@pytest.mark.parametrize(("n", "least"), [(3, 0.8), (5, 0.87), (10, 0.88), (20, 0.9)])
@pytest.mark.parametrize("luck", [0.02, 0.3])
def test_intervals_of_means_cover(n, least, luck):
    rng = np.random.default_rng([n, round(100 * luck)])
    truth = norm.cdf(1.0 / np.sqrt(luck**2 + 0.9**2 + 0.4**2))
    hits = []
    for _ in range(200):
        scores = answers(rng, n, difficulty=0.9 * rng.normal(size=EXAMPLES), luck=luck)
        found = bootstrap_mean(scores, generator=rng, draws=DRAWS)
        hits.append(found.low <= truth <= found.high)
    assert least <= np.mean(hits) <= 0.99


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_of_differences_cover(paired):
    rng = np.random.default_rng(paired)
    hits = []
    for _ in range(200):
        shared = 0.9 * rng.normal(size=EXAMPLES)
        first, second = (answers(rng, 8, difficulty=shared, luck=0.15) for _ in range(2))
        found = bootstrap_difference(first, second, paired=paired, generator=rng, draws=DRAWS)
        hits.append(found.low <= 0 <= found.high)
    assert 0.86 <= np.mean(hits) <= 0.99


def test_seeds_alone_follow_a_plain_bootstrap_t():
    """Of one list of numbers, drawn again and again in a loop."""
    values = generator().exponential(size=12)
    rng, error, ratios = generator(1), values.std() / np.sqrt(12), []
    for _ in range(4000):
        drawn = rng.choice(values, 12)
        ratios.append((drawn.mean() - values.mean()) / (drawn.std() / np.sqrt(12)))
    low, high = values.mean() - error * np.quantile(ratios, [0.975, 0.025])
    found = bootstrap_mean(np.repeat(values[:, None], 2, axis=1), generator=generator(2), draws=8000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found.high - found.mean > 1.3 * (found.mean - found.low)


def test_many_normal_seeds_agree_with_student():
    scores = generator().normal(size=(40, 1)) + 2 * generator(1).normal(size=300) + generator(2).normal(size=(40, 300))
    drawn, exact = bootstrap_mean(scores, generator=generator(), draws=4000), mean_interval(scores)
    assert drawn.mean == pytest.approx(exact.mean)
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), abs=0.15 * (exact.high - exact.low))


def test_three_seeds_alone_give_no_interval():
    """One draw in nine takes the same seed three times, more than the tails leave out."""
    found = bootstrap_mean(np.repeat([[1.0], [2.0], [4.0]], 2, axis=1), generator=generator())
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert found.mean == pytest.approx(7 / 3)


def test_scores_that_are_all_the_same_have_no_width():
    found = bootstrap_mean(np.full((3, 4), 0.1), generator=generator())
    assert (found.low, found.high) == pytest.approx((0.1, 0.1), abs=1e-15)


def test_intervals_follow_shifts_and_scales():
    scores = generator().normal(size=(6, 30))
    plain, moved = (bootstrap_mean(values, generator=generator(5)) for values in (scores, 100 * scores + 7))
    assert (moved.low, moved.high) == pytest.approx((100 * plain.low + 7, 100 * plain.high + 7))


def test_the_generator_alone_decides():
    scores = generator().random((5, 50)) < 0.8
    first = bootstrap_mean(scores, generator=generator(3))
    np.random.random()
    assert bootstrap_mean(scores, generator=generator(3)) == first
    assert bootstrap_mean(scores, generator=generator(4)) != first


def test_pairs_of_seeds_narrow_a_difference_only_where_they_are_said_to_pair():
    rng = generator(6)
    luck = rng.normal(size=(8, 1))
    first, second = (luck + 0.1 * rng.normal(size=(8, 50)) for _ in range(2))
    tight, loose = (
        bootstrap_difference(first, second, paired=paired, generator=generator()) for paired in (True, False)
    )
    assert tight.mean == pytest.approx(loose.mean)
    assert loose.high - loose.low > 5 * (tight.high - tight.low)


def test_draws_in_blocks_are_draws():
    """10,000 examples are resampled in several blocks; the spread is still the closed form's."""
    scores = generator().random((10, 10_000)) < 0.9
    found = bootstrap_mean(scores, generator=generator(), draws=500)
    assert found.high - found.low == pytest.approx(4 * components(scores).standard_error, rel=0.3)


def test_counts_are_those_of_drawing_with_replacement():
    drawn = counts(7, 20_000, generator())
    assert set(drawn.sum(axis=1)) == {7}
    assert drawn.mean(axis=0) == pytest.approx(np.ones(7), abs=0.03)
    assert drawn.var(axis=0) == pytest.approx(np.full(7, 6 / 7), rel=0.05)


def test_what_does_not_fit_is_an_error():
    with pytest.raises(UsageError, match=r"paired scores have shapes \(3, 4\) and \(2, 4\); they must be the same"):
        bootstrap_difference(np.zeros((3, 4)), np.zeros((2, 4)), paired=True, generator=generator())
    with pytest.raises(UsageError, match="the second number, of test examples, must be the same"):
        bootstrap_difference(np.zeros((3, 4)), np.zeros((3, 5)), paired=False, generator=generator())
    with pytest.raises(UsageError, match=r"shape \(1, 4\); at least \(2 seeds, 2 examples\) are needed"):
        bootstrap_mean(np.zeros((1, 4)), generator=generator())
