from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from curved import normal

from softknee._diagnose.curvature.trace import FEWEST_PROBES, Interval, hutchinson, mean_interval, signs, t_quantile

scipy_stats = pytest.importorskip("scipy.stats")


def symmetric(n=30, seed=4):
    a = normal(n, n, seed=seed)
    return (a + a.T) / 2


def test_t17_variance_of_hutchinson():
    a = symmetric()
    products = hutchinson(lambda v: a @ v, like=a[0], probes=8000).products
    expected = 2 * (a.square().sum() - a.diagonal().square().sum()).item()
    # The variance of 8000 values has a standard error of about 1.6 %.
    assert np.var(products, ddof=1) == pytest.approx(expected, rel=0.06)
    assert np.mean(products) == pytest.approx(a.trace().item(), abs=4 * math.sqrt(expected / 8000))


def test_what_lies_on_the_diagonal_is_exact_after_one_probe():
    values = normal(50)
    found = hutchinson(lambda v: values * v, like=values, probes=2)
    assert found.trace.value == pytest.approx(values.sum().item(), abs=1e-12)
    assert found.trace.high - found.trace.low < 1e-12
    assert found.frobenius.value == pytest.approx(torch.linalg.vector_norm(values).item())
    torch.testing.assert_close(found.diagonal, values)


def test_norm_and_diagonal_of_a_full_matrix():
    a = symmetric()
    found = hutchinson(lambda v: a @ v, like=a[0], probes=3000)
    assert found.frobenius.low <= torch.linalg.matrix_norm(a).item() <= found.frobenius.high
    assert found.frobenius.high / found.frobenius.low < 1.03
    # Each entry has the variance of the rest of its row.
    errors = (found.diagonal - a.diagonal()) / ((a.square().sum(1) - a.diagonal().square()) / 3000).sqrt()
    assert errors.abs().max() < 4


def test_stops_on_the_width_of_the_interval_and_keeps_what_it_promises():
    a = symmetric(100) / 10 + torch.eye(100)
    covered, off = 0, []
    for seed in range(200):
        found = hutchinson(lambda v: a @ v, like=a[0], probes=400, tolerance=0.05, seed=seed)
        half = found.trace.high - found.trace.value
        assert len(found.products) >= FEWEST_PROBES
        assert half <= 0.05 * abs(found.trace.value) or len(found.products) == 400
        covered += found.trace.low <= a.trace().item() <= found.trace.high
        off.append(abs(found.trace.value / a.trace().item() - 1))
    assert covered >= 178
    # Stopping on the change of a running mean is off by more than a tenth in most runs of such matrices.
    assert np.mean(np.array(off) > 0.05) < 0.1


def test_a_trace_that_is_lost_in_noise_takes_all_probes():
    a = symmetric()
    a.fill_diagonal_(0)
    found = hutchinson(lambda v: a @ v, like=a[0], probes=40, tolerance=0.1)
    assert len(found.products) == 40
    assert found.trace.low < 0 < found.trace.high


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 29, 100, 101, 999])
def test_quantiles_of_t(freedom):
    assert t_quantile(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), rel=2e-8)


def test_intervals_of_means():
    assert mean_interval([3.0]) == Interval(3.0, -math.inf, math.inf)
    values = normal(12).tolist()
    reference = scipy_stats.t.interval(0.95, 11, np.mean(values), scipy_stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == (pytest.approx(reference[0]), pytest.approx(reference[1]))


def test_signs_depend_on_seed_and_probe_alone():
    one = signs(1000, seed=1, probe=2, like=torch.zeros(1))
    torch.manual_seed(3)
    assert torch.equal(one, signs(1000, seed=1, probe=2, like=torch.zeros(1)))
    assert set(one.tolist()) == {-1.0, 1.0}
    others = [signs(1000, seed=seed, probe=probe, like=one) for seed, probe in ((1, 3), (2, 2), (0, 2))]
    assert all(abs(float(one @ other)) < 150 for other in others)
