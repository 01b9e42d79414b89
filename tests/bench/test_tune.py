from __future__ import annotations

from math import inf, log10

from hypothesis import given
from hypothesis import strategies as st

from softknee._bench.protocol import Tuning
from softknee._bench.tune import RateSearch

TUNING = Tuning(grid=(0.001, 0.0032, 0.01, 0.032, 0.1), trials=7)


def search(score):
    found = RateSearch(TUNING)
    while rates := found.proposals():
        found.scores.update({rate: score(rate) for rate in rates})
    return found


@given(st.floats(-6, 2), st.sampled_from([-inf, 0.0, 10.0]))
def test_every_search_makes_equally_many_distinct_trials(peak, floor):
    found = search(lambda rate: max(floor, 90 - (log10(rate) - peak) ** 2))
    assert len(found.scores) == TUNING.trials
    assert set(TUNING.grid) <= set(found.scores)


@given(st.floats(-2.9, -1.1))
def test_a_peak_inside_the_grid_is_approached(peak):
    found = search(lambda rate: -abs(log10(rate) - peak))
    assert abs(log10(found.best) - peak) <= 0.14
    assert not found.at_edge


def test_a_best_rate_at_the_edge_extends_the_grid():
    assert search(lambda rate: rate).best == 1.0
    assert search(lambda rate: -rate).best == 0.0001
    assert search(lambda rate: rate).at_edge
    one_beyond = search(lambda rate: -abs(log10(rate) + 0.5))
    assert one_beyond.best == 0.32
    assert not one_beyond.at_edge


def test_diverged_rates_never_win_and_a_hopeless_search_says_so():
    found = search(lambda rate: -inf if rate > 0.002 else 50.0)
    assert found.found
    assert found.best <= 0.001
    assert not search(lambda rate: -inf).found


def test_equal_scores_take_the_smaller_rate():
    found = RateSearch(TUNING, dict.fromkeys(TUNING.grid, 80.0))
    assert found.best == 0.001
