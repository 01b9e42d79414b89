from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline

from softknee import nn
from softknee._catalogue import get
from softknee.functional import catmull_rom, linear_spline, lut, pwlu
from softknee.testing import check_derivatives, check_finite, check_values

X = torch.linspace(-6, 6, 1201, dtype=torch.float64)
COUNTS = [4, 5, 12, 21]


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slopes(function, x, *parameters):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x, *parameters).sum(), x)[0]


@pytest.mark.parametrize("count", COUNTS)
def test_a_catmull_rom_spline_is_hermites_with_the_slopes_between_neighbours(count):
    points, spacing = np.linspace(-2, 2, count, retstep=True)
    values = drawn(count)
    tangents = (values[2:] - values[:-2]).numpy() / (2 * spacing)
    spline = CubicHermiteSpline(points[1:-1], values[1:-1].numpy(), tangents)
    inside = torch.linspace(points[1], points[-2], 501, dtype=torch.float64)
    assert np.allclose(catmull_rom(inside, values).numpy(), spline(inside.numpy()), rtol=0, atol=1e-13)
    for end, tangent, side in ((1, tangents[0], -1), (-2, tangents[-1], 1)):
        far = torch.tensor([points[end] + side * step for step in (0.5, 100.0)], dtype=torch.float64)
        line = values[end] + tangent * (far - points[end])
        assert torch.allclose(catmull_rom(far, values), line, rtol=1e-13)


@pytest.mark.parametrize("count", COUNTS)
def test_a_catmull_rom_spline_through_a_line_is_the_line(count):
    values = 0.75 * torch.linspace(-2, 2, count, dtype=torch.float64) - 2
    assert torch.allclose(catmull_rom(X, values), 0.75 * X - 2, rtol=1e-13)
    assert torch.allclose(slopes(catmull_rom, X, values), torch.full_like(X, 0.75), rtol=1e-12)


@pytest.mark.parametrize("function", [catmull_rom, lut])
def test_slopes_are_continuous_where_pieces_meet(function):
    values = drawn(9)
    meet = torch.tensor(get(function.__name__).knots(9)[1:-1], dtype=torch.float64)
    left, here, right = (slopes(function, meet + side, values) for side in (-1e-9, 0.0, 1e-9))
    assert torch.allclose(left, right, atol=1e-6)
    assert torch.allclose(left, here, atol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_a_table_of_a_line_gives_it_at_the_points_and_outside(count):
    points = torch.linspace(-4, 4, count, dtype=torch.float64)
    values = 3 - 2 * points
    assert torch.allclose(lut(points, values), values, atol=1e-13)
    far = torch.tensor([-100.0, -4.5, 4.5, 100.0], dtype=torch.float64)
    assert torch.allclose(lut(far, values), 3 - 2 * far, rtol=1e-13)
    # Elsewhere its slope varies by a sixth or so.
    ripple = slopes(lut, X, points) - 1
    assert ripple.max() < math.pi / 2**1.5 - 1 + 1e-12
    assert ripple.min() > math.pi / 4 - 1 - 1e-12


def test_a_table_is_a_sum_of_raised_cosines():
    points, spacing = np.linspace(-4, 4, 9, retstep=True)
    values = drawn(9)
    inside = torch.linspace(-3, 3, 301, dtype=torch.float64)
    distance = inside.numpy()[:, None] - points
    window = np.where(np.abs(distance) < 2 * spacing, 1 + np.cos(np.pi * distance / (2 * spacing)), 0) / 4
    assert np.allclose(lut(inside, values).numpy(), window @ values.numpy(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_pwlu_on_the_range_of_a_linear_spline_is_one(count):
    values = drawn(count)
    spacing = 8 / (count - 1)
    ends = ((values[1] - values[0]) / spacing, (values[-1] - values[-2]) / spacing)
    assert torch.allclose(pwlu(X, values, -4.0, 4.0, *ends), linear_spline(X, values), atol=1e-13)


def test_a_pwlu_follows_its_ends():
    values, points = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([-2.0, -1.0, 0.0, 1.5, 3.0, 4.0])
    assert pwlu(points, values, -1.0, 3.0, -0.5, 2.0).tolist() == [1.5, 1.0, 0.5, 0.75, 3.0, 5.0]


def test_a_pwlu_of_no_width_is_defined():
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    ends = [torch.tensor(0.5, requires_grad=True) for _ in range(2)]
    y = pwlu(x, (1.0, 2.0, 3.0), *ends, 0.0, 1.0)
    gradients = torch.autograd.grad(y.sum(), (x, *ends))
    assert y.tolist() == [1.0, 1.0, 2.5]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("module", "target"), [(nn.PWLU(), torch.relu), (nn.CatmullRom(), torch.tanh)])
def test_starts(module, target):
    inside = torch.linspace(-1.8, 1.8, 301)
    assert torch.allclose(module(inside), target(inside), atol=3.1e-4)


@pytest.mark.parametrize(("initialization", "target"), [("relu", torch.relu), ("identity", lambda x: x)])
def test_starts_of_tables(initialization, target):
    x = torch.linspace(-6, 6, 301)
    # By a quarter of the spacing at the bend.
    assert torch.allclose(nn.LUT(initialization=initialization)(x), target(x), atol=0.0626)
    assert torch.allclose(nn.LUT(initialization=initialization)(x[x.abs() > 4]), target(x[x.abs() > 4]), atol=1e-5)


@pytest.mark.parametrize("name", ["catmull_rom", "lut", "pwlu"])
@pytest.mark.parametrize("count", [4, 7])
def test_any_values_are_what_the_spec_says(name, count):
    spec = get(name)
    if name == "pwlu":  # which bends elsewhere with another number of points
        spec = replace(spec, kinks=tuple(f"left + (right - left) * {k} / {count - 1}" for k in range(count)))
    for check in (check_values, check_derivatives, check_finite):
        check(spec, values=tuple(drawn(count, 2).tolist()))
