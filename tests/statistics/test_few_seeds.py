from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.decisions import holm
from softknee._statistics.few_seeds import fewest_seeds, rank_sum_floor, seeds_warning, wilcoxon_floor


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 8, 12])
def test_the_floor_is_what_the_exact_test_gives_when_all_differences_agree(pairs):
    found = stats.wilcoxon(np.arange(1, pairs + 1), method="exact").pvalue
    assert wilcoxon_floor(pairs) == pytest.approx(found)


def test_five_seeds_cannot_go_below_a_sixteenth():
    assert wilcoxon_floor(5) == 0.0625


@pytest.mark.parametrize("comparisons", [1, 2, 12, 99])
@pytest.mark.parametrize(("paired", "floor"), [(True, wilcoxon_floor), (False, rank_sum_floor)])
def test_the_fewest_seeds_reach_the_level_after_holm_and_one_less_does_not(comparisons, paired, floor):
    seeds = fewest_seeds(comparisons, paired=paired)
    assert max(holm([floor(seeds)] * comparisons)) < 0.05
    assert min(holm([floor(seeds - 1)] * comparisons)) >= 0.05


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_floor_of_ranks_is_what_the_exact_test_gives_when_all_of_one_are_above(seeds):
    apart = stats.mannwhitneyu(np.arange(seeds), 10 + np.arange(seeds), method="exact")
    assert rank_sum_floor(seeds) == pytest.approx(apart.pvalue)


def test_the_warning_says_what_is_true():
    assert seeds_warning(5) == (
        "With 5 seeds an exact Wilcoxon signed-rank test cannot give a p value below 0.0625; it takes 6 seeds to get "
        "below 0.05. The t tests shown have no such floor, but they take differences between seeds to be normally "
        "distributed, which so few seeds cannot confirm."
    )
    assert "below 0.0312, or 0.375 after Holm's adjustment for 12 comparisons; it takes 9 seeds" in seeds_warning(
        6, comparisons=12
    )
    assert "With 1 seed an exact" in seeds_warning(1)


def test_enough_seeds_need_no_warning():
    assert seeds_warning(6) is None
    assert seeds_warning(9, comparisons=12) is None


def test_what_is_no_number_of_seeds_is_an_error():
    with pytest.raises(UsageError, match="pairs is 0; it must be at least 1"):
        wilcoxon_floor(0)
    with pytest.raises(UsageError, match="comparisons is 0; it must be at least 1"):
        seeds_warning(5, comparisons=0)
