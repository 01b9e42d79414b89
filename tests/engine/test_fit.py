from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from softknee._engine import fit as fits
from softknee._engine.division import points_of
from softknee._engine.fit import fit
from softknee._engine.grid import grid_over


def samples(function, grid, channels=1):
    """Return the arguments of `fit` for a function with its derivative, scaled by the channel."""
    where = points_of(grid, torch.device("cpu"))
    scales = torch.arange(1.0, channels + 1).view(-1, 1, 1)
    with torch.enable_grad():
        x = where.places.double().requires_grad_()
        slopes = torch.autograd.grad(function(x).sum(), x)[0].float()
    values = function(where.ends.double()).float()
    return (scales * values).contiguous(), (scales * slopes).contiguous(), where


FUNCTIONS = [torch.tanh, torch.sin, torch.square, torch.relu, lambda x: torch.sin(9 * x) + x.abs()]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_native_code_and_torch_agree(function, channels):
    arguments = samples(function, grid_over(-3.0, 5.0), channels)
    native, plain = fit(*arguments), fits._fit_in_torch(*arguments, None, None)
    assert torch.allclose(native.rows, plain.rows, atol=1e-6)
    assert torch.allclose(native.errors, plain.errors, rtol=0.05, atol=0.01)
    assert native.scales == pytest.approx(plain.scales, rel=1e-5)
    assert native[3:] == pytest.approx(plain[3:], rel=0.05, abs=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_found_are_those_of_the_cubics(function):
    grid = grid_over(-3.0, 5.0)
    found = fit(*samples(function, grid))
    t = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
    x = (grid.low + grid.step * (torch.arange(grid.bins)[:, None] + t)).double().requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    c0, c1, c2, c3 = found.rows[0].double().T[..., None]
    assert (c0 + t * (c1 + t * (c2 + t * c3)) - value).abs().max() <= found.value_error
    assert ((c1 + t * (2 * c2 + t * 3 * c3)) / grid.step - slope).abs().max() <= found.slope_error


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", [0, 1])
def test_what_is_not_finite_is_infinitely_wrong(bad, part):
    arguments = samples(torch.tanh, grid_over(-1.0, 1.0))
    arguments[part][0, 3, 1] = bad
    assert fit(*arguments).excess == math.inf
    assert fits._fit_in_torch(*arguments, None, None).excess == math.inf


def test_errors_fall_by_the_third_power_of_the_step():
    errors = [fit(*samples(lambda x: torch.sin(8 * x), grid_over(-1.0, 1.0).finer(times))) for times in (1, 2, 4)]
    for coarse, fine in pairwise(errors):
        assert coarse.slope_error / fine.slope_error == pytest.approx(8, rel=0.25)
