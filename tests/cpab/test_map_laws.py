"""What every map obeys, whatever its field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import softknee as sk
from softknee import cpab

INTERVAL = (-1.0, 2.0)
X = torch.linspace(-1.5, 2.5, 161, dtype=torch.float64)
INSIDE = X[(X >= -1) & (X <= 2)]
OUTSIDES = pytest.mark.parametrize("outside", ["identity", "affine"])
SEEDS = pytest.mark.parametrize("seed", range(4))


def field(seed, outside="identity", cells=10, scale=1.0):
    """From gentle to rather steep with the seed, with velocities that are equal and that are zero."""
    generator = torch.Generator().manual_seed(seed)
    velocities = scale * 0.5 * (1 + seed) * torch.randn(cells + 1, generator=generator, dtype=torch.float64)
    velocities[3], velocities[6] = velocities[4], 0.0
    if outside == "identity":
        velocities[[0, -1]] = 0.0
    return velocities


def velocity_at(x, velocities):
    knots = np.linspace(*INTERVAL, len(velocities))
    return torch.from_numpy(np.interp(x.detach().numpy(), knots, velocities.detach().numpy()))


def slope_at(x, velocities):
    knots = torch.linspace(*INTERVAL, len(velocities), dtype=torch.float64)
    slopes = velocities.diff() / knots.diff()
    return slopes[(torch.searchsorted(knots, x.detach(), right=True) - 1).clamp(0, len(slopes) - 1)]


def close(got, wanted, tolerance=1e-12):
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance)


@SEEDS
@OUTSIDES
def test_increasing_between_fixed_ends(seed, outside):
    y = cpab.warp(X, field(seed, outside), INTERVAL, outside)
    assert (y.diff() > 0).all()
    if outside == "identity":
        ends = torch.tensor(INTERVAL, dtype=torch.float64)
        assert torch.equal(cpab.warp(ends, field(seed), INTERVAL), ends)
        assert torch.equal(y[(X < -1) | (X > 2)], X[(X < -1) | (X > 2)])


@SEEDS
@OUTSIDES
@pytest.mark.parametrize("time", [1.0, 0.4, -0.7])
def test_the_inverse_undoes(seed, outside, time):
    velocities = field(seed, outside, scale=0.4)
    there = cpab.warp(X, velocities, INTERVAL, outside, time)
    assert close(cpab.inverse(there, velocities, INTERVAL, outside, time), X, 1e-10)
    back = cpab.inverse(X, velocities, INTERVAL, outside, time)
    assert close(cpab.warp(back, velocities, INTERVAL, outside, time), X, 1e-10)
    assert torch.equal(back, cpab.warp(X, velocities, INTERVAL, outside, -time))
    assert close(back, cpab.warp(X, -velocities, INTERVAL, outside, time))


@SEEDS
@OUTSIDES
@pytest.mark.parametrize(("first", "then"), [(0.3, 0.7), (1.5, -0.5), (0.0, 1.0)])
def test_one_time_after_another(seed, outside, first, then):
    velocities = field(seed, outside, scale=0.5)
    half_way = cpab.warp(X, velocities, INTERVAL, outside, first)
    arrived = cpab.warp(half_way, velocities, INTERVAL, outside, then)
    assert close(arrived, cpab.warp(X, velocities, INTERVAL, outside, first + then), 1e-10)


@SEEDS
@OUTSIDES
def test_time_and_velocity_are_one(seed, outside):
    velocities = field(seed, outside)
    assert close(cpab.warp(X, velocities, INTERVAL, outside, 0.37), cpab.warp(X, 0.37 * velocities, INTERVAL, outside))


@SEEDS
def test_the_slope_is_a_quotient_of_velocities(seed):
    velocities, x = field(seed), INSIDE.clone().requires_grad_()
    y = cpab.warp(x, velocities, INTERVAL)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    before, after = velocity_at(x, velocities), velocity_at(y, velocities)
    moves = (before.abs() > 0.1) & (after.abs() > 1e-3)
    assert moves.sum() > 20
    assert close(slopes[moves], (after / before)[moves], 1e-11)


@SEEDS
def test_the_second_derivative_compares_the_slopes_of_the_field(seed):
    """`T'' = T' (slope where it arrives - slope where it starts) / v(x)`, zero within one cell."""
    velocities, x = field(seed), (INSIDE + 1e-3)[:-1].clone().requires_grad_()
    y = cpab.warp(x, velocities, INTERVAL)
    (slopes,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (bends,) = torch.autograd.grad(slopes.sum(), x)
    wanted = slopes * (slope_at(y, velocities) - slope_at(x, velocities)) / velocity_at(x, velocities)
    moves = velocity_at(x, velocities).abs() > 0.1
    assert (wanted[moves].abs() > 0.1).any()
    assert close(bends[moves], wanted[moves].detach(), 1e-10)
    same = moves & (slope_at(y, velocities) == slope_at(x, velocities))
    assert bends[same].abs().max() < 1e-10 if same.any() else True


@pytest.mark.parametrize(("outside", "time"), [("identity", 1.0), ("affine", -0.6)])
@pytest.mark.parametrize("cells", [2, 4])
def test_derivatives_are_those_of_differences(outside, time, cells):
    """First and second ones by points and velocities, at points between the kinks."""
    generator = torch.Generator().manual_seed(cells)
    velocities = torch.randn(cells + 1, generator=generator, dtype=torch.float64)
    x = torch.tensor([-1.31, -0.713, 0.333, 1.777], dtype=torch.float64, requires_grad=True)
    inner = velocities[1:-1].clone().requires_grad_()

    def moved(x, inner):
        ends = velocities[:1] * (outside == "affine"), velocities[-1:] * (outside == "affine")
        return cpab.warp(x, torch.cat([ends[0], inner, ends[1]]), INTERVAL, outside, time)

    assert gradcheck(moved, (x, inner))
    assert gradgradcheck(moved, (x, inner))


@OUTSIDES
def test_second_derivatives_within_a_series(outside):
    """Slopes of nearly zero, where quotients are series."""
    x = torch.tensor([-0.713, 0.333, 1.777], dtype=torch.float64, requires_grad=True)
    inner = torch.tensor([0.5, 0.5 + 1e-7, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    ends = torch.zeros(1, dtype=torch.float64)

    def moved(x, inner):
        return cpab.warp(x, torch.cat([ends, inner, ends]), INTERVAL, outside)

    assert gradcheck(moved, (x, inner))
    assert gradgradcheck(moved, (x, inner))


@SEEDS
@OUTSIDES
def test_mirrored(seed, outside):
    velocities = field(seed, outside)
    mirrored = cpab.warp(-X, -velocities.flip(0), (-INTERVAL[1], -INTERVAL[0]), outside)
    assert close(mirrored, -cpab.warp(X, velocities, INTERVAL, outside), 1e-11)


@SEEDS
@OUTSIDES
def test_moved_and_stretched(seed, outside):
    velocities = field(seed, outside)
    wanted = 7 + 40 * cpab.warp(X, velocities, INTERVAL, outside)
    assert close(cpab.warp(7 + 40 * X, 40 * velocities, (7 - 40.0, 7 + 80.0), outside), wanted, 1e-11)


@SEEDS
def test_knots_in_between_change_nothing(seed):
    velocities = field(seed)
    fine = torch.nn.functional.interpolate(velocities[None, None], size=21, mode="linear", align_corners=True)[0, 0]
    assert close(cpab.warp(X, fine, INTERVAL), cpab.warp(X, velocities, INTERVAL), 1e-11)


@OUTSIDES
@pytest.mark.parametrize(("shape", "channel_dim"), [((5, 3, 4), 1), ((3, 7), 0), ((2, 4, 3), -1)])
def test_a_map_for_each_channel(outside, shape, channel_dim):
    fields = torch.stack([field(seed, outside) for seed in range(3)]).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    y = cpab.warp(x, fields, INTERVAL, outside, 0.5, channel_dim=channel_dim)
    back = cpab.inverse(y, fields, INTERVAL, outside, 0.5, channel_dim=channel_dim)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    got = torch.autograd.grad((weights * y).sum(), (x, fields), retain_graph=True)
    rows = [
        cpab.warp(x.select(channel_dim, k), fields[k], INTERVAL, outside, 0.5).unsqueeze(channel_dim) for k in range(3)
    ]
    one_by_one = torch.cat(rows, channel_dim)
    wanted = torch.autograd.grad((weights * one_by_one).sum(), (x, fields))
    assert torch.equal(y, one_by_one)
    assert close(back, x, 1e-9)
    assert all(close(one, other) for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_slope_is_negative(dtype):
    """However steeply points gather: the map is increasing, and so says its derivative."""
    shape = torch.tensor([0.0, 1.0, -1.0, 1.0, -1.0, 0.0], dtype=dtype)
    for steepness in torch.linspace(0.5, 8, 40).tolist():
        x = torch.linspace(0, 1, 201, dtype=dtype, requires_grad=True)
        with sk.engine("eager"):
            y = cpab.warp(x, steepness * shape)
        (slopes,) = torch.autograd.grad(y.sum(), x)
        assert slopes.min().item() >= 0
        assert y.diff().min().item() >= -2 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("dtype", "slope"), [(torch.float32, 120.0), (torch.float64, 960.0)])
def test_points_that_stand_still_stay_however_steep_the_field(dtype, slope):
    """Where others fly away by more than a number holds."""
    velocities = torch.tensor([0, 1, 0, -1, 0], dtype=dtype) * slope / 4
    x = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)
    with sk.engine("eager"):
        assert torch.equal(cpab.warp(x, velocities), x)
        assert torch.equal(cpab.inverse(x, velocities), x)
