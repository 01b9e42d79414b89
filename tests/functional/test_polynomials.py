from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import get
from softknee._errors import OptionError
from softknee.functional import chebyshev, hermite, lisht, soft_modulus_t, tropical, tropical_rational
from softknee.testing import check_accuracy, check_derivatives, check_engines, check_finite, check_values

X = torch.linspace(-4, 4, 401, dtype=torch.float64)


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("degree", range(1, 8))
def test_hermite_agrees_with_numpy(degree):
    coefficients = drawn(degree + 1)
    scaled = [float(c) / math.factorial(n) for n, c in enumerate(coefficients)]
    expected = np.polynomial.hermite_e.hermeval(X.numpy(), scaled)
    assert np.allclose(hermite(X, coefficients).numpy(), expected, rtol=1e-12, atol=1e-12)
    check = get("hermite").formula
    assert "index < 7" in check


def test_hermite_of_the_largest_degree_is_what_its_spec_says():
    for check in (check_values, check_derivatives, check_finite, check_accuracy, check_engines):
        check("hermite", coefficients=tuple(drawn(8).tolist()))


def test_the_degree_of_hermite_is_limited():
    with pytest.raises(OptionError, match="at most 7, got 8"):
        nn.Hermite(terms=8)


@pytest.mark.parametrize("degree", range(1, 8))
def test_hermite_starts_balanced(degree):
    """Value and derivative have the same second moment for a standard normal input."""
    z, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(40))
    z.requires_grad_()
    y = hermite(z, get("hermite").initializations["balanced"](degree, None)["coefficients"])
    (slope,) = torch.autograd.grad(y.sum(), z)
    moments = [(weights @ part.detach().square() / weights.sum()).item() for part in (y, slope)]
    expected = sum(1 / math.factorial(k) for k in range(degree)) / math.e
    assert moments == pytest.approx([expected, expected])


@pytest.mark.parametrize("degree", [1, 4, 12])
def test_chebyshev_agrees_with_numpy(degree):
    coefficients = drawn(degree + 1)
    expected = np.polynomial.chebyshev.chebval(np.tanh(X.numpy()), coefficients.numpy())
    assert np.allclose(chebyshev(X, coefficients).numpy(), expected, rtol=0, atol=1e-12)
    assert chebyshev(X, coefficients).abs().max() <= coefficients.abs().sum()


def test_chebyshev_can_start_as_tanh():
    assert torch.allclose(nn.Chebyshev(initialization="tanh")(X), torch.tanh(X), atol=1e-12)


@pytest.mark.parametrize(("target", "function"), [("relu", torch.relu), ("gelu", F.gelu), ("tanh", torch.tanh)])
def test_slaf_starts_at_a_least_squares_fit(target, function):
    points = np.linspace(-3, 3, 6001)
    expected = np.polynomial.Polynomial.fit(points, function(torch.from_numpy(points)).numpy(), 5).convert().coef
    start = get("slaf").initializations[target](5, None)["coefficients"]
    assert start.tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_soft_modulus_t_of_width_1_is_lisht():
    assert torch.allclose(soft_modulus_t(X, 1.0), lisht(X), atol=1e-15)


def test_tropical_polynomials_are_convex_and_agree_with_their_lines():
    coefficients = drawn(6)
    lines = math.sqrt(2) / 5 * (torch.arange(6) * X[:, None] + coefficients)
    assert torch.allclose(tropical(X, coefficients), lines.max(dim=1).values, atol=1e-14)
    assert (tropical(X, coefficients).diff().diff() > -1e-12).all()


def test_the_derivative_of_a_tropical_polynomial_at_a_kink_is_the_slope_left_of_it():
    x = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(tropical(x, torch.ones(5)).sum(), x)
    assert slope.item() == 0


def test_a_tropical_quotient_can_be_relu():
    value = tropical_rational(X, (0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    assert torch.equal(value, X.relu())
