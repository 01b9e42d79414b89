from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from curved import dense, drawn, normal
from torch import nn

from softknee._diagnose.curvature.density import SMOOTHING, STRAIGHT, spectrum
from softknee._diagnose.curvature.lanczos import Krylov, lanczos
from softknee._diagnose.curvature.spectra import exact_run, hessian_spectrum


def test_t18_softmax_at_zero_logits_has_the_spectrum_of_the_inputs():
    count, inputs, classes = 40, 6, 4
    model = nn.Linear(inputs, classes, bias=False).double()
    nn.init.zeros_(model.weight)
    x, y = normal(count, inputs), torch.arange(count) % classes
    found = hessian_spectrum(model, [(x, y)], "cross_entropy")
    # L'' = (I - 11'/C) / C for each sample: its eigenvalue 1/C has multiplicity C - 1.
    values = torch.linalg.eigvalsh(x.T @ x / count) / classes
    expected = np.sort(np.concatenate([np.repeat(values.numpy(), classes - 1), np.zeros(inputs)]))
    assert found.exact
    np.testing.assert_allclose(found.nodes[0], expected, atol=1e-15)


def test_t18_by_lanczos_where_it_is_too_large_for_all_eigenvalues():
    count, inputs, classes = 100, 60, 4
    model = nn.Linear(inputs, classes, bias=False).double()
    nn.init.zeros_(model.weight)
    # Orthonormal inputs in three lengths leave few distinct eigenvalues.
    x = torch.linalg.qr(normal(count, inputs)).Q * (count * torch.tensor([1.0, 4.0, 9.0])).sqrt().repeat(20)
    found = hessian_spectrum(model, [(x, torch.arange(count) % classes)], "cross_entropy", probes=6)
    assert not found.exact
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        np.testing.assert_allclose(nodes, [0, 0.25, 1.0, 2.25], atol=1e-14)
        assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.mean(found.weights, axis=0), [0.25] * 4, atol=0.06)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e6])
def test_density_integrates_to_one_and_keeps_its_shape_at_any_scale(scale):
    values = torch.cat([normal(180).abs() * 0.01, torch.tensor([1.0, -0.2, 30.0], dtype=torch.float64)])
    matrix = torch.diag(values * scale)
    runs = [lanczos(lambda v: matrix @ v, normal(183, seed=k), steps=40) for k in range(3)]
    found = spectrum(runs)
    assert np.trapezoid(found.density, found.x) == pytest.approx(1, abs=2e-3)
    assert (found.low <= found.density * (1 + 1e-12)).all()
    assert (found.density <= found.high * (1 + 1e-12)).all()
    assert (found.high > found.low * 1.01).any()
    assert found.straight == pytest.approx(30 * scale * STRAIGHT)
    assert found.width == pytest.approx(SMOOTHING * found.straight)
    assert (np.diff(found.cumulative) >= 0).all()
    assert (found.cumulative[0], found.cumulative[-1]) == (0, pytest.approx(1))
    reference = spectrum([exact_run(torch.diag(values))])
    np.testing.assert_allclose(found.x / scale, reference.x, rtol=1e-6)


def test_a_single_large_eigenvalue_shows_with_its_share():
    values = torch.cat([torch.zeros(999), torch.tensor([5.0])]).double()
    found = spectrum([exact_run(torch.diag(values))], exact=True)
    near = np.abs(found.x / 5 - 1) < 0.35
    assert np.trapezoid(found.density[near], found.x[near]) == pytest.approx(1e-3, rel=0.02)
    share = found.cumulative[np.searchsorted(found.x, 4.0)]
    assert share == pytest.approx(0.999)


def test_density_of_lanczos_is_near_that_of_all_eigenvalues():
    model = drawn(nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 6)))
    x, y = normal(50, 4), torch.arange(50) % 6
    exact = torch.linalg.eigvalsh(dense(model, x, y)).numpy()
    found = hessian_spectrum(model, [(x, y)], "cross_entropy", steps=60, probes=8)
    for t in np.array([-0.02, 0.02, 0.1, 0.5]) * exact[-1]:
        mean = np.mean([w[n <= t].sum() for n, w in zip(found.nodes, found.weights, strict=True)])
        assert mean == pytest.approx((exact <= t).mean(), abs=0.03)
    assert max(n[-1] for n in found.nodes) == pytest.approx(exact[-1], rel=1e-6)
    assert min(n[0] for n in found.nodes) == pytest.approx(exact[0], rel=1e-6)


def test_a_zero_operator_has_a_density_at_zero():
    found = spectrum([Krylov(np.zeros(1), np.ones(1), np.zeros(1), exhausted=True)])
    assert np.trapezoid(found.density, found.x) == pytest.approx(1, abs=2e-3)
    json.dumps(found.to_dict(), allow_nan=False)
