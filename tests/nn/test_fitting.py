from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softknee import create, nn
from softknee._errors import UnknownActivation, UsageError
from softknee.functional import rational
from softknee.nn.fitting import fit_

X = torch.linspace(-3, 3, 2001)
# Largest distance, reached from the default start.
CLOSE = [
    ("Rational", "tanh", 4e-6),
    ("Rational", "sigmoid", 1e-7),
    ("RationalB", "softsign", 1e-6),
    ("RationalC", "tanh", 4e-6),
    ("RationalN", "gelu", 1e-3),
    ("OPAU", "tanh", 2e-2),
    ("Fourier", "gelu", 5e-3),
    ("LinearSpline", "gelu", 2e-3),
    ("TropicalRational", "leaky_relu", 1e-3),
]


@pytest.mark.parametrize(("title", "target", "distance"), CLOSE)
def test_a_fit_comes_as_close_as_it_says(title, target, distance):
    module = getattr(nn, title)(generator=torch.Generator().manual_seed(1))
    largest = fit_(module, target)
    assert largest < distance
    assert (module(X) - create(target)(X)).abs().max().item() <= largest + 1e-6


@pytest.mark.parametrize("degree", [1, 3, 7, 12])
def test_a_polynomial_is_the_one_of_least_squares(degree):
    module = nn.SLAF(terms=degree)
    fit_(module, torch.sin, interval=(-2, 3))
    points = np.linspace(-2, 3, 1001)
    expected = np.polynomial.Polynomial.fit(points, np.sin(points), degree).convert().coef
    assert module.coefficients.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("title", ["SLAF", "Hermite", "LinearSpline", "Rational", "ENN", "Chebyshev"])
def test_a_function_of_the_family_is_found_again(title):
    wanted = getattr(nn, title)(generator=torch.Generator().manual_seed(1))
    module = getattr(nn, title)(generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for vector in module.parameters():
            vector.mul_(1.1)
    # Not far from 0: a float32 target has digits enough.
    assert fit_(module, wanted, interval=(-1, 1)) < 1e-5


def test_entries_that_do_not_count_in_the_interval_stay():
    module = nn.LinearSpline(terms=9)
    before = module.values.detach().clone()
    fit_(module, torch.cos, interval=(-1, 1))
    assert torch.equal(module.values[:3], before[:3])
    assert torch.equal(module.values[6:], before[6:])
    assert torch.allclose(module(torch.tensor([0.0])), torch.ones(1), atol=0.1)


def test_other_parameters_stay_and_are_taken_into_account():
    module = nn.BSpline(terms=20, base=0.7)
    assert fit_(module, "silu", interval=(-1, 1)) < 1e-4
    assert module.base.item() == pytest.approx(0.7)


def test_each_channel_is_fitted_with_its_own_scalars():
    module = nn.BSpline(terms=20, base=torch.tensor([0.0, 1.0, -2.0]), per_channel=3)
    assert fit_(module, torch.tanh, interval=(-1, 1)) < 1e-4
    assert torch.allclose(module(X[700:1300, None].expand(-1, 3)), X[700:1300, None].tanh(), atol=1e-4)
    assert torch.equal(module.base, torch.tensor([0.0, 1.0, -2.0]))
    assert not torch.allclose(module.coefficients[:, 0], module.coefficients[:, 1])


def test_fixed_vectors_can_be_fitted_too_and_trained_ones_remain_trained():
    fixed, trained = nn.SLAF(trainable=False), nn.SLAF()
    assert fit_(fixed, "gelu") == pytest.approx(fit_(trained, "gelu"), rel=1e-9)
    assert not list(fixed.parameters())
    trained(X).sum().backward()
    assert trained.coefficients.grad is not None


def test_repeated_fits_give_the_same_numbers():
    first, again = (nn.Rational() for _ in range(2))
    torch.manual_seed(1)
    fit_(first, "mish")
    torch.manual_seed(2)
    fit_(again, "mish")
    # But for the last digits, which depend on where a solver's arguments lie in memory.
    assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_fit_is_a_least_squares_optimum():
    """The error has no correlation with the change by any coefficient, so no small change makes it smaller."""
    module = nn.Rational().double()
    fit_(module, F.relu)
    points = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    vectors = (module.numerator.detach(), module.denominator.detach())
    residual = rational(points, *vectors) - F.relu(points)
    jacobian = torch.cat(torch.func.jacfwd(rational, argnums=(1, 2))(points, *vectors), dim=1)
    correlation = residual @ jacobian / (jacobian.norm(dim=0) * residual.norm())
    assert correlation[torch.cat(vectors).abs() > 1e-9].abs().max() < 1e-2


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (nn.GELU, {}, "no trained parameters to fit"),
        (nn.SLAF, {"interval": (1.0, 1.0)}, "interval must be two finite numbers in order"),
        (nn.SLAF, {"interval": (0.0, math.inf)}, "interval must be two finite numbers in order"),
        (nn.SLAF, {"target": torch.log}, "not finite everywhere between -3 and 3"),
        (nn.SLAF, {"target": "sparsemax"}, "no function of single elements"),
    ],
)
def test_what_cannot_be_fitted_is_refused(make, options, message):
    with pytest.raises(UsageError, match=message):
        fit_(make(), **{"target": "tanh", **options})


def test_an_unknown_target_gets_suggestions():
    with pytest.raises(UnknownActivation, match="did you mean 'gelu'"):
        fit_(nn.SLAF(), "gellu")
