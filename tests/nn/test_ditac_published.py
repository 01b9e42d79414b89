"""The published training of DiTAC, its defects included: coordinates, their start, and their gradient."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import softknee as sk
from softknee import cpab
from softknee._errors import OptionError
from softknee.nn import published_ditac

X = torch.linspace(-4, 4, 401, dtype=torch.float64)
CELLS = pytest.mark.parametrize(("cells", "interval"), [(10, (-0.5, 2.0)), (4, (-3.0, 3.0))])


def published(cells=10, interval=(-0.5, 2.0), seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return published_ditac(cells=cells, interval=interval, generator=generator, **options)


def theta_of(module):
    return module.parametrizations.velocities.original


def basis_of(module):
    return module.parametrizations.velocities[0].basis.double()


def column_sums(matrix, *, smoothness=5.0, variance=2.0):
    """Of the published precision of coordinates."""
    count, columns = len(matrix), matrix.numpy()
    places = np.linspace(-1, 1, count)
    covariance = (variance * count) ** 2 * np.exp(-2 * np.abs(places[:, None] - places) / smoothness)
    return torch.from_numpy(np.linalg.inv(columns.T @ covariance @ columns + 1.2e-7 * np.eye(columns.shape[1])).sum(0))


def test_it_can_be_made_twice():
    """A file of the same name must not take its place."""
    assert all(isinstance(sk.nn.published_ditac(), sk.nn.DiTAC) for _ in range(2))


@CELLS
def test_coordinates_are_orthonormal_and_of_fields(cells, interval):
    matrix = basis_of(published(cells, interval))
    assert matrix.shape == (2 * cells, cells - 1)
    assert torch.allclose(matrix.T @ matrix, torch.eye(cells - 1, dtype=torch.float64), atol=1e-6)
    slopes, intercepts = matrix[0::2], matrix[1::2]
    knots = torch.arange(1, cells, dtype=torch.float64)[:, None] / cells
    left, right = slopes[:-1] * knots + intercepts[:-1], slopes[1:] * knots + intercepts[1:]
    assert torch.allclose(left, right, atol=1e-6)
    assert intercepts[0].abs().max() < 1e-6
    assert (slopes[-1] + intercepts[-1]).abs().max() < 1e-6


@CELLS
def test_it_computes_ditac_of_its_field(cells, interval):
    module = published(cells, interval)
    velocities = cpab.velocities_of(theta_of(module).detach().double(), basis_of(module), interval)
    plain = sk.nn.DiTAC(
        terms=cells - 1, low=interval[0], high=interval[1], velocities=velocities[1:-1].float()
    ).double()
    assert (module(X.float()).double() - plain(X)).abs().max().item() <= 5e-6
    generator = torch.Generator().manual_seed(0)
    drawn = sk.nn.DiTAC(
        terms=cells - 1, low=interval[0], high=interval[1], initialization="smooth", generator=generator
    )
    assert torch.allclose(module.velocities, drawn.velocities, rtol=1e-4, atol=1e-5)


def data_gradient(module, cells, interval, x, weights):
    """By coordinates, of the weighted sum, in float64 and through the map itself."""
    theta = theta_of(module).detach().double().requires_grad_()
    field = cpab.velocities_of(theta, basis_of(module), interval)
    inside = torch.nn.functional.pad(field[1:-1], (1, 1))
    y = cpab.warp(x, inside, interval) * torch.special.ndtr(x)
    return torch.autograd.grad((weights * y).sum(), theta)[0]


@CELLS
@pytest.mark.parametrize("penalty", [0.0, 0.1, 3.0])
def test_the_gradient_is_that_of_the_published_code(cells, interval, penalty):
    """Multiplied by the number of coordinates, plus a pull along sums of columns."""
    module = published(cells, interval, penalty=penalty)
    weights = torch.randn(len(X), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = X.float().requires_grad_()
    (weights.float() * module(x)).sum().backward()
    data, theta = data_gradient(module, cells, interval, X, weights), theta_of(module).detach().double()
    wanted = (cells - 1) * data + 2 * penalty * column_sums(basis_of(module)) * theta
    assert torch.allclose(theta_of(module).grad.double(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    if penalty == 0:
        ratio = theta_of(module).grad.double() @ data / (data @ data)
        assert ratio.item() == pytest.approx(cells - 1, rel=1e-4)
    # The input's gradient is as it should be.
    plain = sk.nn.DiTAC(
        terms=cells - 1, low=interval[0], high=interval[1], velocities=module.velocities.detach()
    ).double()
    wide = X.clone().requires_grad_()
    (weights * plain(wide)).sum().backward()
    assert (x.grad - wide.grad).abs().square().mean().sqrt().item() <= 1e-4


def test_the_pull_follows_its_options():
    """Also where no data pulls: an input outside of the interval."""
    module = published(smoothness=2.0, variance=1.0, penalty=0.5)
    module(torch.full((3,), 5.0)).sum().backward()
    sums = column_sums(basis_of(module), smoothness=2.0, variance=1.0)
    wanted = sums * theta_of(module).detach().double()
    assert torch.allclose(theta_of(module).grad.double(), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_it_has_nine_parameters_and_is_saved_and_copied():
    module, other = published(seed=0), published(seed=1)
    assert [tuple(p.shape) for p in module.parameters()] == [(9,)]
    other.load_state_dict(module.state_dict())
    x = X.float()
    assert torch.equal(other(x), module(x))
    assert torch.equal(copy.deepcopy(module)(x), module(x))


def test_it_follows_its_coordinates():
    module = published().eval()
    before = module(X.float()).detach()
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    module(X.float()).square().sum().backward()
    optimizer.step()
    moved = module(X.float()).detach()
    assert not torch.allclose(moved, before, atol=1e-4)
    velocities = cpab.velocities_of(theta_of(module).detach(), basis_of(module).float(), (-0.5, 2.0))[1:-1]
    assert (moved.double() - sk.nn.DiTAC(velocities=velocities).double()(X)).abs().max().item() <= 5e-6


def test_it_repeats_with_its_seed():
    assert torch.equal(theta_of(published(seed=3)), theta_of(published(seed=3)))
    assert not torch.equal(theta_of(published(seed=3)), theta_of(published(seed=4)))


@pytest.mark.parametrize(("options", "sentence"), [
    ({"cells": 1}, "cells must be an integer of at least 2, got 1"),
    ({"cells": 2.5}, "cells must be an integer of at least 2, got 2.5"),
    ({"interval": (2.0, 1.0)}, "high of ditac must be above low"),
])  # fmt: skip
def test_what_is_refused(options, sentence):
    with pytest.raises(OptionError, match=sentence):
        published_ditac(**options)


def test_its_state_is_what_is_pickled():
    """Parametrized modules are saved by their state dict, as PyTorch has it."""
    module, other = published(seed=0), published(seed=1)
    other.load_state_dict(pickle.loads(pickle.dumps(module.state_dict())))
    assert torch.equal(theta_of(other), theta_of(module))
