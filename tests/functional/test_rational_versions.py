from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import get
from softknee._errors import OptionError
from softknee.functional import opau, rational_b, rational_c, rational_n
from softknee.testing import check_accuracy, check_derivatives, check_finite, check_values

POINTS = torch.linspace(-3, 3, 6001, dtype=torch.float64)
# Largest distance on [-3, 3], of the versions B, C and N, and in the orthogonal basis.
TARGETS = {
    "leaky_relu": (F.leaky_relu, 3.4e-2, 9.6e-2),
    "gelu": (F.gelu, 2.4e-3, 1.6e-2),
    "silu": (F.silu, 1.3e-6, 5.9e-3),
    "identity": (lambda x: x, 0.0, 0.0),
}
VERSIONS = {"rational_b": rational_b, "rational_c": rational_c, "rational_n": rational_n}


def fitted(name, target, terms=5):
    return [vector.requires_grad_() for vector in get(name).initializations[target](terms, None).values()]


@pytest.mark.parametrize("target", TARGETS)
def test_versions_start_as_the_same_function_close_to_its_target(target):
    function, largest, _ = TARGETS[target]
    values = [version(POINTS, *fitted(name, target)) for name, version in VERSIONS.items()]
    assert all(torch.allclose(value, values[0], rtol=0, atol=1e-15) for value in values[1:])
    assert (values[0] - function(POINTS)).abs().max().item() <= largest


@pytest.mark.parametrize("target", TARGETS)
def test_orthogonal_quotients_start_close_to_their_target(target):
    function, _, largest = TARGETS[target]
    assert (opau(POINTS, *fitted("opau", target, 4)) - function(POINTS)).abs().max().item() <= largest


@pytest.mark.parametrize("target", ["leaky_relu", "gelu", "silu"])
@pytest.mark.parametrize(("name", "terms"), [("rational_n", 5), ("opau", 4)])
def test_fits_are_least_squares_optima(name, terms, target):
    """The error has no correlation with the change by any coefficient, so no small change makes it smaller."""
    function, vectors = get(name).function, tuple(fitted(name, target, terms))
    residual = (function(POINTS, *vectors) - TARGETS[target][0](POINTS)).detach()
    jacobian = torch.cat(torch.func.jacfwd(function, argnums=(1, 2))(POINTS, *vectors), dim=1).detach()
    correlation = residual @ jacobian / (jacobian.norm(dim=0) * residual.norm())
    # The last coefficient of GELU's denominator is held at zero: below, it would have poles.
    free = correlation[:-1] if (name, target) == ("rational_n", "gelu") else correlation
    assert free.abs().max() < 1e-2


def test_denominators_of_zeros_are_trained():
    for name, version in VERSIONS.items():
        numerator, denominator = fitted(name, "identity")
        x = torch.tensor([-2.0, 0.5], dtype=torch.float64)
        (by,) = torch.autograd.grad(version(x, numerator, denominator).sum(), denominator)
        first = len(denominator) == 4
        expected = [-(x * x ** (k + first)).sum().item() for k in range(len(denominator))]
        assert by.tolist() == pytest.approx(expected)


def test_further_terms_start_at_zero():
    for title in ("RationalB", "RationalC", "RationalN", "OPAU"):
        larger, usual = getattr(nn, title)(terms=7), getattr(nn, title)()
        assert len(larger.numerator) == 8
        assert torch.allclose(larger(POINTS), usual(POINTS), atol=1e-12)
    assert torch.equal(nn.Rational32(terms=4)(POINTS), nn.Rational32()(POINTS))


@pytest.mark.parametrize("check", [check_values, check_derivatives, check_finite, check_accuracy])
@pytest.mark.parametrize("name", ["rational_b", "rational_c", "opau"])
def test_denominators_that_change_their_sign_are_what_the_formula_says(name, check):
    check(name, numerator=(0.5, -1.0, 0.25, 0.1), denominator=(-0.7, 0.3))


def test_rational_32_is_close_to_relu_where_it_was_made():
    x = torch.linspace(-1, 1, 2001)
    assert (nn.Rational32()(x) - x.relu()).abs().max() < 0.03


def test_orthogonal_quotients_are_in_the_basis_of_hermite():
    numerator, denominator = np.random.default_rng(1).normal(size=(2, 7))
    values = opau(POINTS, tuple(numerator), tuple(denominator[1:]))
    basis = np.polynomial.hermite_e.hermevander(POINTS.numpy(), 6)
    expected = basis @ numerator / (1 + np.abs(basis[:, 1:] * denominator[1:]).sum(1))
    assert np.allclose(values.numpy(), expected, rtol=1e-12, atol=0)


def test_the_degree_of_orthogonal_quotients_is_limited():
    with pytest.raises(OptionError, match="at most 7, got 8"):
        nn.OPAU(terms=8)
