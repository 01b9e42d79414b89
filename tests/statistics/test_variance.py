"""The closed form against actual resampling, and against variances known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from softknee._errors import UsageError
from softknee._statistics.variance import components


def scores(rng, *, n, m, seeds, examples, noise):
    return seeds * rng.normal(size=(n, 1)) + examples * rng.normal(size=m) + noise * rng.normal(size=(n, m))


def test_resampling_seeds_and_examples_together_has_the_variance_of_the_closed_form():
    rng = np.random.default_rng(1)
    n, m = 4, 60
    values = scores(rng, n=n, m=m, seeds=0.4, examples=1.5, noise=1.0)
    parts = components(values)
    columns = parts.examples + parts.noise
    biased = parts.seeds * (n - 1) / n + columns * (m - 1) / m + parts.noise * (n - 1) * (m - 1) / (n * m)
    rows_drawn = rng.multinomial(n, np.full(n, 1 / n), size=40_000) / n
    columns_drawn = rng.multinomial(m, np.full(m, 1 / m), size=40_000) / m
    resampled = np.einsum("bi,ij,bj->b", rows_drawn, values, columns_drawn)
    assert np.var(resampled) == pytest.approx(biased, rel=0.03)


def test_components_are_unbiased():
    rng = np.random.default_rng(2)
    n, m, seeds, examples, noise = 3, 50, 0.1, 0.9, 0.5
    parts = [components(scores(rng, n=n, m=m, seeds=seeds, examples=examples, noise=noise)) for _ in range(4000)]
    single = noise**2 / (n * m)
    assert np.mean([p.seeds for p in parts]) == pytest.approx(seeds**2 / n + single, rel=0.06)
    assert np.mean([p.examples for p in parts]) == pytest.approx(examples**2 / m, rel=0.03)
    assert np.mean([p.noise for p in parts]) == pytest.approx(single, rel=0.03)
    # Together they are the variance that the mean really has.
    assert np.mean([p.standard_error**2 for p in parts]) == pytest.approx(np.var([p.mean for p in parts]), rel=0.08)


def test_seeds_that_agree_leave_only_the_examples():
    values = np.tile([0.0, 1.0, 1.0, 0.0, 1.0], (3, 1))
    parts = components(values)
    assert parts.seeds == 0
    assert parts.noise == pytest.approx(0)
    assert parts.examples == pytest.approx(values[0].var(ddof=1) / 5)


@pytest.mark.parametrize("shape", [(1, 10), (10, 1), (10,), (2, 2, 2)])
def test_too_little_data_is_an_error(shape):
    with pytest.raises(UsageError, match=r"scores have shape .*; at least \(2 seeds, 2 examples\) are needed"):
        components(np.zeros(shape))
