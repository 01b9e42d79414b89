"""How a ranking holds up with other seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from softknee._errors import UsageError
from softknee._statistics.stability import ranking_stability


def stability(scores, *, paired=True, seed=0, **options):
    return ranking_stability(np.asarray(scores), paired=paired, generator=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("paired", [True, False])
def test_a_clear_order_is_certain(paired):
    scores = np.array([[1.0], [3.0], [2.0]]) + 0.1 * np.random.default_rng(0).random((3, 6))
    found = stability(scores, paired=paired)
    assert found.order == (1, 2, 0)
    assert found.first == (0, 1, 0)
    assert found.reversed == (0, 0)
    assert found.halves == pytest.approx(1)
    assert found.seeds == 6


@pytest.mark.parametrize("paired", [True, False])
def test_two_neighbours_change_places_as_often_as_their_spread_says(paired):
    rng = np.random.default_rng(1)
    n = 50
    scores = rng.normal(size=(2, n)) + np.array([[0.2], [0.0]])
    drawn = (scores[0] - scores[1]).std() if paired else np.hypot(scores[0].std(), scores[1].std())
    gap = abs(scores[0].mean() - scores[1].mean())
    found = stability(scores, paired=paired, draws=8000)
    assert found.reversed[0] == pytest.approx(norm.cdf(-gap * np.sqrt(n) / drawn), abs=0.02)
    assert sum(found.first) == pytest.approx(1)
    assert found.first[found.order[0]] == pytest.approx(1 - found.reversed[0])


def test_pairs_hold_an_order_that_all_seeds_share():
    luck = np.random.default_rng(2).normal(size=8)
    scores = np.stack([luck, luck + 0.1])
    assert stability(scores, paired=True).reversed == (0,)
    assert stability(scores, paired=False).reversed[0] > 0.3


def test_what_is_the_same_shares_the_first_place():
    found = stability(np.tile(np.random.default_rng(3).normal(size=5), (4, 1)))
    assert found.first == pytest.approx((0.25, 0.25, 0.25, 0.25))
    assert found.reversed == (0.5, 0.5, 0.5)
    assert found.halves == 0


def test_halves_of_pure_chance_agree_in_nothing():
    scores = np.random.default_rng(4).normal(size=(30, 40))
    assert abs(stability(scores, paired=False).halves) < 0.25


def test_one_diverged_run_puts_a_mean_last():
    scores = np.array([[9.0, 9.0, 9.0, -np.inf], [1.0, 1.0, 1.0, 1.0]])
    found = stability(scores, draws=8000)
    assert found.order == (1, 0)
    # The diverged one of four runs stays out of a draw of four with the probability (3/4)^4.
    assert found.first[0] == pytest.approx(0.75**4, abs=0.02)


def test_the_generator_alone_decides():
    scores = np.random.default_rng(5).normal(size=(5, 4))
    assert stability(scores, seed=1) == stability(scores, seed=1)
    assert stability(scores, seed=1) != stability(scores, seed=2)


def test_what_cannot_be_ranked_is_an_error():
    with pytest.raises(UsageError, match=r"shape \(1, 4\); at least \(2 activations, 2 seeds\) are needed"):
        stability(np.zeros((1, 4)))
    with pytest.raises(UsageError, match="a score is NaN"):
        stability([[1.0, np.nan], [1.0, 2.0]])
