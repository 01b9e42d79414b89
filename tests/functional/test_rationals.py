from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from softknee import nn
from softknee._catalogue import get
from softknee.functional import rational
from softknee.testing import check_accuracy, check_derivatives, check_engines, check_finite, check_values

POINTS = torch.linspace(-3, 3, 6001, dtype=torch.float64)
# Largest and root mean square distance on [-3, 3].
TARGETS = {
    "leaky_relu": (F.leaky_relu, 3e-2, 5.1e-3),
    "gelu": (F.gelu, 2.9e-3, 8.2e-4),
    "silu": (F.silu, 1.2e-6, 2.9e-7),
    "identity": (lambda x: x, 0.0, 0.0),
}


def fitted(target):
    return [vector.requires_grad_() for vector in get("rational").initializations[target](5, None).values()]


@pytest.mark.parametrize("target", TARGETS)
def test_fits_are_as_close_to_their_targets_as_stated(target):
    function, largest, typical = TARGETS[target]
    error = (rational(POINTS, *fitted(target)) - function(POINTS)).detach()
    assert error.abs().max() <= largest
    assert error.square().mean().sqrt() <= typical


@pytest.mark.parametrize("target", ["leaky_relu", "gelu", "silu"])
def test_fits_are_least_squares_optima(target):
    """The error has no correlation with the change by any coefficient, so no small change makes it smaller."""
    vectors = tuple(fitted(target))
    residual = (rational(POINTS, *vectors) - TARGETS[target][0](POINTS)).detach()
    jacobian = torch.cat(torch.func.jacfwd(rational, argnums=(1, 2))(POINTS, *vectors), dim=1).detach()
    correlation = residual @ jacobian / (jacobian.norm(dim=0) * residual.norm())
    free = torch.cat(vectors) != 0
    assert correlation[free].abs().max() < 1e-2
    # A denominator's coefficient is held at zero where a larger one would be worse.
    assert (correlation[~free] > 0).all()


def test_the_default_is_the_published_start():
    module = nn.Rational()
    published = [0.02979246, 0.61837738, 2.32335207, 3.05202660, 1.48548002, 0.25103717]
    assert module.numerator.tolist() == pytest.approx(published, rel=1e-3)
    assert module.denominator.tolist() == pytest.approx([1.14201226, 4.39322834, 0.87154450, 0.34720652], rel=1e-3)


def test_further_terms_start_at_zero():
    module = nn.Rational(terms=7)
    assert (module.numerator.shape, module.denominator.shape) == ((8,), (6,))
    assert torch.equal(module(POINTS), nn.Rational()(POINTS))


def test_a_denominator_of_zeros_is_trained():
    numerator, denominator = fitted("identity")
    x = torch.tensor([-2.0, 0.5], dtype=torch.float64)
    (by_denominator,) = torch.autograd.grad(rational(x, numerator, denominator).sum(), denominator)
    assert by_denominator.tolist() == [-(x * x.abs() ** k).sum().item() for k in range(1, 5)]


@pytest.mark.parametrize("denominator", [(), (0.5,), (-1.0, 0.25, -0.125, 0.0625)])
def test_coefficients_of_any_number_and_sign(denominator):
    """Those of a denominator that is zero somewhere for the unsafe form included."""
    for check in (check_values, check_derivatives, check_finite, check_accuracy, check_engines):
        check("rational", numerator=(0.5, -1.0, 0.25), denominator=denominator or (1e-3,))
    x = torch.linspace(-5, 5, 11)
    below = 1 + sum(abs(b) * x.abs() ** (k + 1) for k, b in enumerate(denominator))
    assert torch.allclose(rational(x, (0.5, -1.0, 0.25), denominator), (0.5 - x + 0.25 * x**2) / below)
