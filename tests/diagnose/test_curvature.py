from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from curved import dense, drawn, flat, normal, perceptron, sample
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from softknee._diagnose.curvature.curvature import curvature
from softknee._diagnose.curvature.spectra import (
    EXACT,
    hessian_eigenvalues,
    hessian_spectrum,
    hessian_trace,
    hvp,
    lr_limit,
    xi,
)
from softknee._errors import UsageError

X, Y = sample(count=40, inputs=4, classes=6)
LOADER = [(X[:25], Y[:25]), (X[25:], Y[25:])]


def larger():
    model = drawn(nn.Sequential(nn.Linear(4, 20), nn.GELU(), nn.Linear(20, 6)))
    assert len(flat(model)) > EXACT
    return model


def test_everything_of_a_small_network_is_exact():
    model = perceptron(nn.GELU(), inputs=4, outputs=6)
    found = curvature(model, LOADER, "cross_entropy")
    h = dense(model, X, Y)
    values = torch.linalg.eigvalsh(h)
    assert found.method == "double backward, graph kept; all eigenvalues"
    assert (found.samples, found.parameters, found.probes) == (40, len(values), 0)
    assert (found.eigenvalues.bottom, found.eigenvalues.top) == (
        pytest.approx(values[0].item()),
        pytest.approx(values[-1].item()),
    )
    assert found.trace.value == pytest.approx(h.trace().item())
    assert found.trace.low == found.trace.high
    assert found.frobenius.value == pytest.approx(torch.linalg.matrix_norm(h).item())
    np.testing.assert_allclose(found.spectrum.nodes[0], values.numpy(), atol=1e-12)
    assert found.split.gauss_newton.value + found.split.residual.value == pytest.approx(found.trace.value)


def test_a_larger_network_by_lanczos_and_hutchinson():
    model = larger()
    found = curvature(model, LOADER, "cross_entropy", probes=60)
    h = dense(model, X, Y)
    values = torch.linalg.eigvalsh(h)
    assert found.eigenvalues.top == pytest.approx(values[-1].item(), rel=1e-6)
    assert found.eigenvalues.bottom == pytest.approx(values[0].item(), rel=1e-4)
    assert found.eigenvalues.steps == 100
    assert found.trace.low <= h.trace().item() <= found.trace.high
    assert found.frobenius.low <= torch.linalg.matrix_norm(h).item() <= found.frobenius.high
    split = found.split
    assert split.gauss_newton.value + split.residual.value == pytest.approx(found.trace.value)
    again = curvature(model, LOADER, "cross_entropy", probes=60)
    assert again.to_dict() == found.to_dict()
    assert curvature(model, LOADER, "cross_entropy", probes=60, seed=1).trace.value != found.trace.value


def test_the_dictionary_is_that_of_a_diagnosis():
    for model in (perceptron(nn.GELU(), inputs=4, outputs=6), larger()):
        found = curvature(model, LOADER, "cross_entropy", probes=10, steps=10).to_dict()
        stored = json.loads(json.dumps(found, allow_nan=False))
        assert stored == found
        assert set(found["eigenvalues"]) == {"top", "bottom", "top_residual", "bottom_residual", "steps"}
        assert set(found["trace"]) == {"value", "low", "high"}
        spectrum = found["spectrum"]
        assert len({len(spectrum[name]) for name in ("x", "density", "low", "high", "cumulative")}) == 1
        assert [one["site"] for one in found["split"]["by_site"]] == ["1"]
        limits = found["sharpness"]
        assert limits["lr_limit"] == pytest.approx(2 / found["eigenvalues"]["top"], rel=1e-5)
        assert limits["lr_limit_momentum"] == pytest.approx(1.9 * limits["lr_limit"], rel=1e-5)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 20), nn.Linear(20, 6)

    def forward(self, x):
        return self.last(checkpoint(lambda z: torch.tanh(self.first(z)), x, use_reentrant=True))


def test_without_second_derivatives_everything_but_the_split_is_there():
    found = curvature(drawn(Remembering()), [(X.clone().requires_grad_(), Y)], "cross_entropy", probes=10, steps=10)
    assert found.method.startswith("central differences of gradients")
    assert found.split is None
    assert found.split_note.startswith("the Hessian cannot be split: products are central differences")
    plain = drawn(nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 6)))
    assert found.trace.value == pytest.approx(
        curvature(plain, [(X, Y)], "cross_entropy", probes=10, steps=10).trace.value, rel=1e-5
    )


def test_single_functions_agree_with_the_whole():
    model = larger()
    h = dense(model, X, Y)
    v = normal(len(h))
    torch.testing.assert_close(hvp(model, LOADER, "cross_entropy", v), h @ v, rtol=0, atol=1e-13)
    values, vectors = torch.linalg.eigh(h)
    ends = hessian_eigenvalues(model, LOADER, "cross_entropy", vectors=True, tolerance=1e-6)
    assert (ends.bottom, ends.top) == (pytest.approx(values[0].item()), pytest.approx(values[-1].item()))
    assert abs(float(ends.vectors[1] @ vectors[:, -1])) == pytest.approx(1, abs=1e-6)
    rough = hessian_eigenvalues(model, LOADER, "cross_entropy", tolerance=1e-2)
    assert rough.steps < ends.steps
    trace = hessian_trace(model, LOADER, "cross_entropy", probes=40)
    assert trace.trace.low <= h.trace().item() <= trace.trace.high
    assert trace.to_dict()["probes"] == len(trace.products)
    assert len(hessian_spectrum(model, LOADER, "cross_entropy", probes=3, steps=12).nodes) == 3


def test_parts_are_blocks_of_the_matrix():
    model = larger()
    h = dense(model, X, Y)
    block = torch.linalg.eigvalsh(h[-126:, -126:])
    ends = hessian_eigenvalues(model, LOADER, "cross_entropy", part="2")
    assert (ends.bottom, ends.top) == (pytest.approx(block[0].item(), abs=1e-12), pytest.approx(block[-1].item()))
    with pytest.raises(UsageError, match="no module 'nowhere'"):
        hessian_trace(model, LOADER, "cross_entropy", part="nowhere")


def test_the_limit_of_the_learning_rate_is_that_of_a_quadratic():
    top = 3.0
    for momentum in (0.0, 0.9):
        limit = lr_limit(top, momentum=momentum)
        ends = []
        for rate in (0.99 * limit, 1.01 * limit):
            w = torch.ones((), requires_grad=True)
            optimizer = torch.optim.SGD([w], lr=rate, momentum=momentum)
            for _ in range(3000):
                optimizer.zero_grad()
                (top * w**2 / 2).backward()
                optimizer.step()
            ends.append(abs(w.item()))
        assert ends[0] < 1e-2
        assert not ends[1] < 1e3
    assert lr_limit(-1.0) is None


def test_xi_is_told_not_to_be_an_invariant():
    model = larger()
    one = xi(model, LOADER, "cross_entropy")
    ten = xi(model, LOADER, lambda outputs, y: 10 * F.cross_entropy(outputs, y))
    assert ten.value == pytest.approx(one.value / 10)
    assert ten.times_loss == pytest.approx(one.times_loss)
    assert "no property of an activation" in one.to_dict()["warning"]
    h = dense(model, X, Y)
    g = torch.autograd.grad(F.cross_entropy(model(X), Y), list(model.parameters()))
    exact = torch.linalg.matrix_norm(h).item() / sum(part.square().sum().item() for part in g)
    assert one.value == pytest.approx(exact, rel=0.15)


def test_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Linear(4, 20), nn.BatchNorm1d(20), nn.GELU(), nn.Dropout(0.5), nn.Linear(20, 6)).double()
    model(X).sum().backward()
    gradients = [one.grad.clone() for one in model.parameters()]
    values = {name: one.clone() for name, one in model.state_dict().items()}
    state = torch.get_rng_state()
    curvature(model, LOADER, "cross_entropy", probes=10, steps=5)
    assert all(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, values[name]) for name, one in model.state_dict().items())
    assert all(torch.equal(one.grad, before) for one, before in zip(model.parameters(), gradients, strict=True))
    assert all(one.requires_grad and one.is_leaf for one in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_errors_are_told():
    model = larger()
    with pytest.raises(UsageError, match="probes must be a whole number of at least 2, got 1"):
        curvature(model, LOADER, "cross_entropy", probes=1)
    with pytest.raises(UsageError, match=r"the vector has shape \(3,\); it must be \(226,\)"):
        hvp(model, LOADER, "cross_entropy", torch.ones(3))
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    with pytest.raises(UsageError, match="not finite"):
        curvature(model, LOADER, "cross_entropy")
