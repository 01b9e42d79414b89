"""A nominal 95 % interval has to hold the truth about that often, at three seeds too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from softknee._statistics.intervals import mean_interval, paired_difference

REPEATS = 500
EXAMPLES = 300


def answers(rng, n, *, difficulty, luck):
    """Right answers of n seeds: examples differ in difficulty, seeds in luck, single predictions by chance."""
    noise = 0.4 * rng.normal(size=(n, EXAMPLES))
    return 1.0 + luck * rng.normal(size=(n, 1)) + difficulty + noise > 0


def coverage(hits):
    return np.mean(hits)


# Luck of 0.02 is drowned by the examples, 0.3 drowns them.
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("luck", [0.02, 0.1, 0.3])
def test_intervals_of_means_cover(n, luck):
    rng = np.random.default_rng([n, round(100 * luck)])
    truth = norm.cdf(1.0 / np.sqrt(luck**2 + 0.9**2 + 0.4**2))
    hits = []
    for _ in range(REPEATS):
        found = mean_interval(answers(rng, n, difficulty=0.9 * rng.normal(size=EXAMPLES), luck=luck))
        hits.append(found.low <= truth <= found.high)
    assert 0.93 <= coverage(hits) <= 0.99


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("luck", "own"), [(0.02, 0.2), (0.1, 0.2), (0.3, 0.2), (0.1, 0.0)])
def test_intervals_of_paired_differences_cover(n, luck, own):
    rng = np.random.default_rng([n, round(100 * luck), round(10 * own)])
    hits = []
    for _ in range(REPEATS):
        shared = 0.9 * rng.normal(size=EXAMPLES)
        first, second = (
            answers(rng, n, difficulty=shared + own * rng.normal(size=EXAMPLES), luck=luck) for _ in range(2)
        )
        found = paired_difference(first, second, margin=0.01)
        hits.append(found.low <= 0 <= found.high)
    assert 0.93 <= coverage(hits) <= 0.99
