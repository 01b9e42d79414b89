from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from softknee import nn
from softknee._catalogue import get
from softknee.functional import bspline, linear_spline
from softknee.testing import check_derivatives, check_engines, check_finite, check_values

INSIDE = torch.linspace(-4, 4, 1001, dtype=torch.float64)
# What a size may change; layouts, copies and compilers are tried at that of the catalogue.
CHECKS = (check_values, check_derivatives, check_finite, check_engines)


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("count", [2, 3, 8, 51])
def test_a_linear_spline_interpolates(count):
    values = drawn(count)
    expected = np.interp(INSIDE.numpy(), np.linspace(-4, 4, count), values.numpy())
    assert np.allclose(linear_spline(INSIDE, values).numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("count", [2, 3, 8, 51])
def test_a_linear_spline_through_a_line_is_the_line(count):
    """Everywhere, knots included: the derivative must not be zero at x = 0, where there is one."""
    knots = torch.linspace(-4, 4, count, dtype=torch.float64)
    x = torch.cat([INSIDE, knots, torch.tensor([-1e4, -5.0, 5.0, 1e4], dtype=torch.float64)]).requires_grad_()
    y = linear_spline(x, 0.75 * knots - 2)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, 0.75 * x - 2, rtol=1e-13)
    assert torch.allclose(slope, torch.full_like(x, 0.75), rtol=1e-12)


def test_the_derivative_of_a_linear_spline_at_a_knot_is_the_slope_left_of_it():
    values = torch.tensor([0.0, 1.0, -2.0, 3.0, 5.0])
    x = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0], requires_grad=True)
    (slope,) = torch.autograd.grad(linear_spline(x, values).sum(), x)
    assert slope.tolist() == [0.5, 0.5, -1.5, 2.5, 1.0]


def test_a_linear_spline_keeps_its_digits_in_float32():
    """Hinges that add up to the same function lose a thousand times as many in the outer knots' gradients."""
    values, x = drawn(51), 1.3 * drawn(100_000, seed=2)
    values, x = values.float().double(), x.float().double()
    exact, rounded = values.requires_grad_(), values.detach().float().requires_grad_()
    y, z = linear_spline(x, exact), linear_spline(x.float(), rounded)
    (expected,) = torch.autograd.grad(y.sum(), exact)
    (got,) = torch.autograd.grad(z.sum(), rounded)
    assert torch.allclose(z.double(), y, rtol=1e-6, atol=5e-6)
    assert torch.allclose(got.double(), expected, rtol=2e-6)


@pytest.mark.parametrize(("count", "seed"), [(2, 1), (4, 2), (9, 3)])
def test_a_linear_spline_with_kinks_at_all_knots_is_what_its_spec_says(count, seed):
    for check in CHECKS:
        check("linear_spline", values=tuple(drawn(count, seed).tolist()))


def test_a_linear_spline_starts_as_leaky_relu():
    x = torch.linspace(-6, 6, 301)
    assert torch.allclose(nn.LinearSpline()(x), torch.nn.functional.leaky_relu(x), atol=1e-6)
    assert nn.LinearSpline()(torch.zeros(1)).item() == 0


@pytest.mark.parametrize("count", [4, 5, 8, 20])
def test_cubic_splines_agree_with_scipy(count):
    spacing = 2 / (count - 3)
    knots = -1 + spacing * np.arange(-3, count + 1)
    x = np.linspace(-1, 1, 401)
    expected = BSpline(knots, drawn(count).numpy(), 3)(x)
    assert np.allclose(bspline(torch.from_numpy(x), drawn(count), 0.0).numpy(), expected, rtol=0, atol=1e-14)


def test_cubic_splines_reproduce_constants_and_lines():
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    centres = (torch.arange(8, dtype=torch.float64) - 3.5) * 2 / 5
    assert torch.allclose(bspline(x, torch.ones(8), 0.0), torch.ones_like(x), rtol=0, atol=1e-15)
    assert torch.allclose(bspline(x, 3 * centres - 1, 0.0), 3 * x - 1, rtol=0, atol=1e-14)


def test_a_cubic_spline_has_two_derivatives_at_its_joins():
    """Also by autograd, where a function made of hats would have a second derivative of zero."""
    joins = torch.tensor(get("bspline").knots(7), dtype=torch.float64)
    for orders in (1, 2):
        left, right = (nth_derivative(joins + side, orders) for side in (-1e-9, 1e-9))
        assert torch.allclose(left, right, atol=1e-5)
        assert torch.allclose(nth_derivative(joins, orders), left, atol=1e-5)


def nth_derivative(x, orders):
    x = x.clone().requires_grad_()
    y = bspline(x, drawn(7), 0.0)
    for _ in range(orders):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach()


def test_a_cubic_spline_is_silu_far_outside():
    x = torch.tensor([-1e4, -2.2, 2.2, 1e4])
    assert torch.equal(bspline(x, torch.ones(8)), torch.nn.functional.silu(x))


@pytest.mark.parametrize(("count", "seed"), [(4, 1), (6, 2)])
def test_cubic_splines_of_any_size_are_what_their_spec_says(count, seed):
    for check in CHECKS:
        check("bspline", coefficients=tuple(drawn(count, seed).tolist()), base=-0.5)


def test_coefficients_of_cubic_splines_are_drawn_small():
    first, again = (nn.BSpline(terms=5000, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.coefficients, again.coefficients)
    assert first.coefficients.std().item() == pytest.approx(0.1, rel=0.05)
