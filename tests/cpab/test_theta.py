"""Coordinates of the published code, given a basis: here bases made as it makes them, from its constraints."""

from __future__ import annotations

import pytest
import torch
from bases import basis

from softknee import cpab
from softknee._errors import UsageError

KINDS = pytest.mark.parametrize("kind", ["svd", "qr", "sparse"])


@KINDS
@pytest.mark.parametrize(("cells", "still"), [(2, True), (10, True), (7, False), (1, False)])
def test_velocities_are_those_of_slopes_and_intercepts(kind, cells, still):
    matrix = basis(kind, cells, still=still)
    theta = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes, intercepts = (matrix @ theta)[0::2], (matrix @ theta)[1::2]
    low, high = -0.5, 2.0
    velocities = cpab.velocities_of(theta, matrix, (low, high))
    assert velocities.shape == (cells + 1,)
    # In the middle of each cell, and at its ends, both say the same: [0, 1] divides velocities by the length.
    for k in range(cells):
        for place in (0.0, 0.5, 1.0):
            unit = slopes[k] * (k + place) / cells + intercepts[k]
            assert abs(unit * 2.5 - (velocities[k] * (1 - place) + velocities[k + 1] * place)) < 1e-13
    assert torch.allclose(cpab.theta_of(velocities, matrix, (low, high)), theta, rtol=1e-11, atol=1e-12)


@KINDS
def test_a_row_for_each_channel(kind):
    matrix = basis(kind, 5)
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    velocities = cpab.velocities_of(theta, matrix, (0.0, 3.0))
    assert velocities.shape == (3, 6)
    for row, one in zip(velocities, theta, strict=True):
        assert torch.allclose(row, cpab.velocities_of(one, matrix, (0.0, 3.0)), rtol=1e-13)
    assert torch.allclose(cpab.theta_of(velocities, matrix, (0.0, 3.0)), theta, rtol=1e-11)


def test_all_bases_describe_the_same_fields():
    velocities = torch.tensor([0.0, 0.3, -1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    for kind in ("svd", "qr", "sparse"):
        theta = cpab.theta_of(velocities, basis(kind, 5), (-1.0, 1.0))
        assert torch.allclose(cpab.velocities_of(theta, basis(kind, 5), (-1.0, 1.0)), velocities, atol=1e-13)


def test_gradients_go_through_coordinates():
    matrix = basis("qr", 5)
    theta = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: cpab.velocities_of(t, matrix, (-1.0, 1.0)), theta)
    velocities = cpab.velocities_of(theta.detach(), matrix).requires_grad_()
    (row,) = torch.autograd.grad(cpab.theta_of(velocities, matrix).sum(), velocities)
    assert torch.allclose(row @ cpab.velocities_of(theta.detach(), matrix), theta.sum(), rtol=1e-11)


def test_float32_fits_float32():
    matrix, theta = basis("svd", 10).float(), torch.randn(9, generator=torch.Generator().manual_seed(1))
    velocities = cpab.velocities_of(theta, matrix)
    assert velocities.dtype == torch.float32
    assert torch.allclose(cpab.theta_of(velocities, matrix), theta, rtol=1e-4, atol=1e-5)


MATRIX = basis("qr", 5)
FAULTS = [
    (
        cpab.velocities_of,
        (torch.zeros(3), MATRIX),
        r"theta must be \(4,\) or \(channels, 4\) for this basis, got \(3,\)",
    ),
    (cpab.velocities_of, (torch.zeros(1, 2, 4), MATRIX), r"theta must be .* got \(1, 2, 4\)"),
    (cpab.velocities_of, (torch.zeros(4), MATRIX[:3]), r"basis must be \(2 N, d\), .* got \(3, 4\)"),
    (cpab.velocities_of, (torch.zeros(4), torch.zeros(4)), r"basis must be \(2 N, d\), .* got \(4,\)"),
    (cpab.velocities_of, (torch.zeros(4), torch.zeros(0, 4)), r"basis must be \(2 N, d\), .* got \(0, 4\)"),
    (cpab.velocities_of, (torch.zeros(4), MATRIX, (1.0, 1.0)), r"interval must be two finite numbers .* a < b"),
    (cpab.theta_of, (torch.zeros(5), MATRIX), r"velocities must be \(6,\) or \(channels, 6\) .* got \(5,\)"),
    (cpab.theta_of, (torch.zeros(6), MATRIX, (2.0, 1.0)), r"interval must be .* got \(2.0, 1.0\)"),
    (cpab.theta_of, (torch.ones(6), MATRIX), r"velocities must be those of a field that the basis reaches"),
    (cpab.theta_of, (torch.tensor([0, 1.0, 1, 1, 1, 1e-3]), MATRIX), r"the nearest is off by"),
]


@pytest.mark.parametrize(("function", "arguments", "sentence"), FAULTS)
def test_what_does_not_fit_is_said(function, arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        function(*arguments)
