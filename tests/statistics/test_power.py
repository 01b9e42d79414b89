"""Power against the noncentral t distribution, published sample sizes, and simulated runs of the test itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from softknee._errors import UsageError
from softknee._statistics.intervals import paired_difference, unpaired_difference
from softknee._statistics.power import measured_seeds_needed, power, seeds_needed


def by_noncentral_t(difference, *, seeds, sd, paired, level=0.05):
    sides = 1 if paired else 2
    freedom, shift = sides * (seeds - 1), difference / (sd * np.sqrt(sides / seeds))
    t = stats.t.isf(level / 2, freedom)
    return stats.nct.sf(t, freedom, shift) + stats.nct.cdf(-t, freedom, shift)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("difference", [0.1, 0.5, 1.0])
def test_with_seeds_alone_it_is_the_noncentral_t_distribution(difference, seeds, paired):
    found = power(difference, seeds=seeds, sd=0.7, paired=paired)
    assert found == pytest.approx(by_noncentral_t(difference, seeds=seeds, sd=0.7, paired=paired), abs=1e-5)


def test_with_examples_alone_it_is_the_normal_test():
    expected = stats.norm.sf(1.959964 - 2.5) + stats.norm.cdf(-1.959964 - 2.5)
    assert power(0.5, seeds=5, sd=0.0, paired=True, example_error=0.2) == pytest.approx(expected, abs=1e-6)


def test_no_difference_is_found_as_often_as_the_level_says():
    assert power(0.0, seeds=4, sd=1.0, paired=True, level=0.1) == pytest.approx(0.1, abs=1e-5)
    assert power(0.0, seeds=3, sd=0.0, paired=True) == 0.0
    assert power(0.1, seeds=3, sd=0.0, paired=True) == 1.0


@pytest.mark.parametrize(
    ("effect", "paired", "published"),
    # Tables of Cohen (1988), as G*Power 3.1 gives them: two-sided, level 0.05, power 0.8.
    [(0.2, False, 394), (0.5, False, 64), (0.8, False, 26), (0.2, True, 199), (0.5, True, 34), (0.8, True, 15)],
)
def test_published_sample_sizes(effect, paired, published):
    assert seeds_needed(3 * effect, sd=3.0, paired=paired) == published


def test_the_normal_approximation_is_a_little_below():
    """Recorded runs of ResNet-20 have sd 0.18: 0.3 points want 6 seeds by the normal approximation."""
    normal = 2 * (0.18 / 0.3) ** 2 * (stats.norm.isf(0.025) + stats.norm.isf(0.2)) ** 2
    assert np.ceil(normal) == 6
    assert seeds_needed(0.3, sd=0.18, paired=False) == 7


@settings(max_examples=40, deadline=None)
@given(sd=st.floats(0.05, 2), error=st.floats(0, 0.4), paired=st.booleans(), wanted=st.floats(0.3, 0.95))
def test_the_fewest_seeds_suffice_and_one_less_does_not(sd, error, paired, wanted):
    spread = {"sd": sd, "paired": paired, "example_error": error}
    found = seeds_needed(1.0, wanted=wanted, **spread)
    if found is None:
        assert power(1.0, seeds=1_000_000, **spread) < wanted
    else:
        assert power(1.0, seeds=found, **spread) >= wanted
        assert found == 2 or power(1.0, seeds=found - 1, **spread) < wanted


def test_no_number_of_seeds_makes_up_for_too_few_examples():
    assert seeds_needed(0.5, sd=0.2, paired=True, example_error=0.2) is None
    assert seeds_needed(0.6, sd=0.2, paired=True, example_error=0.2) is not None


@pytest.mark.parametrize(("paired", "test"), [(True, paired_difference), (False, unpaired_difference)])
def test_simulated_runs_find_the_difference_as_often(paired, test):
    rng = np.random.default_rng(paired)
    seeds, m, luck, own = 5, 200, 0.5, 4.0
    sides = 1 if paired else 2
    expected = power(1.4, seeds=seeds, sd=luck * np.sqrt(2 / sides), paired=paired, example_error=own / np.sqrt(m))
    found = []
    for _ in range(400):
        difficulty = own * rng.normal(size=m)
        first, second = (luck * rng.normal(size=(seeds, 1)) + np.zeros(m) for _ in range(2))
        found.append(test(first + difficulty + 1.4, second, margin=1.0).p < 0.05)
    assert 0.5 < expected < 0.95
    assert np.mean(found) == pytest.approx(expected, abs=0.07)


@pytest.mark.parametrize("paired", [True, False])
def test_the_spread_is_taken_from_runs(paired):
    rng = np.random.default_rng(7)
    seeds, m = 40, 300
    first, second = (
        0.3 * rng.normal(size=(seeds, 1)) + 2 * rng.normal(size=m) + 0.1 * rng.normal(size=(seeds, m)) for _ in range(2)
    )
    found = measured_seeds_needed(first, second, difference=0.6, paired=paired)
    assert found.sd == pytest.approx(0.3 * np.sqrt(2 if paired else 1), rel=0.25)
    assert found.example_error == pytest.approx(2 * np.sqrt(2 / m), rel=0.15)
    assert found.smallest == pytest.approx(2.8016 * found.example_error, rel=1e-3)
    needed = seeds_needed(0.6, sd=found.sd, paired=paired, example_error=found.example_error)
    assert found.seeds == needed <= found.cautious


def test_three_seeds_hardly_know_their_spread():
    """The upper 80 % limit of a standard deviation of three is 2.12 times it, so 4.5 times as many seeds."""
    first = np.repeat([[1.0], [2.0], [3.0]], 2, axis=1)
    found = measured_seeds_needed(first, np.zeros((3, 2)), difference=0.3, paired=True)
    assert found.seeds == seeds_needed(0.3, sd=1.0, paired=True)
    assert found.cautious == seeds_needed(0.3, sd=np.sqrt(2 / stats.chi2.ppf(0.2, 2)), paired=True)
    assert found.cautious / found.seeds == pytest.approx(4.5, rel=0.03)


def test_numbers_outside_their_range_are_errors():
    with pytest.raises(UsageError, match="difference is 0; it must be positive"):
        seeds_needed(0, sd=1.0, paired=True)
    with pytest.raises(UsageError, match="sd is -1.0; it must not be negative"):
        seeds_needed(1.0, sd=-1.0, paired=True)
    with pytest.raises(UsageError, match="wanted is 1.0; it must be between 0 and 1"):
        seeds_needed(1.0, sd=1.0, paired=True, wanted=1.0)
    with pytest.raises(UsageError, match="seeds is 1; it must be at least 2"):
        power(1.0, seeds=1, sd=1.0, paired=True)
    with pytest.raises(UsageError, match=r"shapes \(3, 4\) and \(2, 4\); they must be the same"):
        measured_seeds_needed(np.zeros((3, 4)), np.zeros((2, 4)), difference=1.0, paired=True)
