from __future__ import annotations

import numpy as np
import pytest
import torch
from curved import normal

from softknee._diagnose.curvature import lanczos as module
from softknee._diagnose.curvature.lanczos import lanczos
from softknee._diagnose.curvature.trace import signs
from softknee._errors import UsageError


def rotated(values, seed=5):
    """A symmetric matrix of known eigenvalues, and its eigenvectors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    q = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    return q @ torch.diag(values) @ q.T, q


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8, 1e12])
def test_t20_few_distinct_eigenvalues_are_found_exactly_at_any_scale(scale):
    distinct, counts = [-0.5, 1.0, 4.0], [30, 50, 20]
    matrix, _ = rotated(np.repeat(distinct, counts) * scale)
    weights = []
    for probe in range(400):
        start = signs(100, seed=0, probe=probe, like=matrix)
        run = lanczos(lambda v: matrix @ v, start, steps=50)
        assert run.exhausted
        assert run.steps == 3
        np.testing.assert_allclose(run.nodes, np.array(distinct) * scale, rtol=1e-8)
        assert run.weights.sum() == pytest.approx(1, abs=1e-12)
        weights.append(run.weights)
    np.testing.assert_allclose(np.mean(weights, axis=0), [0.3, 0.5, 0.2], atol=0.01)


def test_weights_are_the_shares_of_the_start_vector():
    values = np.linspace(-1, 2, 12)
    matrix, q = rotated(values)
    start = normal(12, seed=8)
    run = lanczos(lambda v: matrix @ v, start, steps=12)
    np.testing.assert_allclose(run.nodes, values, atol=1e-12)
    expected = (q.T @ start).square() / start.square().sum()
    np.testing.assert_allclose(run.weights, expected.numpy(), atol=1e-12)


@pytest.mark.parametrize(("values", "bottom", "top"), [([1.0, -3.0] * 5, -3, 1), ([5.0, -5.0] * 5, -5, 5)])
def test_ends_are_by_sign_where_power_iteration_finds_magnitudes(values, bottom, top):
    matrix, _ = rotated(values)
    run = lanczos(lambda v: matrix @ v, normal(10), steps=10)
    assert (run.nodes[0], run.nodes[-1]) == (pytest.approx(bottom), pytest.approx(top))


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_stops_once_both_ends_are_as_near_as_asked_and_they_are(scale):
    values = np.concatenate([np.linspace(-1, 1, 290), np.linspace(2, 5, 10)]) * scale
    matrix, q = rotated(values)
    run = lanczos(lambda v: matrix @ v, normal(300), steps=300, tolerance=1e-3, vectors=True)
    assert run.steps < 100
    assert max(run.residuals[[0, -1]]) <= 5e-3 * scale
    # To each node there is an eigenvalue within the residual.
    for node, residual in zip(run.nodes, run.residuals, strict=True):
        assert np.abs(values - node).min() <= residual + 1e-12 * scale
    assert run.nodes[-1] == pytest.approx(5 * scale, rel=1e-3)
    low, high = run.vectors
    assert abs(high @ q[:, -1]) > 0.99
    for vector, node, residual in ((low, run.nodes[0], run.residuals[0]), (high, run.nodes[-1], run.residuals[-1])):
        gone = torch.linalg.vector_norm(matrix @ vector - node * vector)
        assert float(gone) == pytest.approx(residual, rel=1e-3, abs=1e-12 * scale)


def test_stays_orthogonal_where_plain_lanczos_finds_copies():
    # A far eigenvalue converges at once and would be found again and again.
    values = np.concatenate([np.linspace(0, 1, 199), [1e4]])
    matrix, _ = rotated(values)
    run = lanczos(lambda v: matrix @ v, normal(200), steps=100)
    assert (run.nodes > 2).sum() == 1


def test_a_zero_operator_has_one_node_at_zero():
    run = lanczos(torch.zeros_like, normal(30), steps=10)
    assert (run.nodes.tolist(), run.weights.tolist(), run.exhausted) == ([0.0], [1.0], True)


def test_noise_of_single_precision_leaves_the_weights():
    matrix, _ = rotated(np.repeat([0.0, 1.0, 10.0], [80, 15, 5]))
    start = signs(100, seed=0, probe=0, like=matrix)
    exact = lanczos(lambda v: matrix @ v, start, steps=40)
    single = matrix.float()
    run = lanczos(lambda v: single @ v, start.float(), steps=40)
    for node, weight in zip(exact.nodes, exact.weights, strict=True):
        assert run.weights[np.abs(run.nodes - node) < 1e-3].sum() == pytest.approx(weight, abs=1e-4)


def test_refuses_what_does_not_fit_or_is_not_finite(monkeypatch):
    with pytest.raises(UsageError, match="not finite"):
        lanczos(lambda v: v * torch.nan, normal(30), steps=10)
    monkeypatch.setattr(module, "BASIS_LIMIT", 1000)
    with pytest.raises(UsageError, match="10 steps with 30 parameters keep .*; at most 4 steps fit"):
        lanczos(torch.zeros_like, normal(30), steps=10)
