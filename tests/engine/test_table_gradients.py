from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from subjects import (
    CHANNELS,
    exact,
    leaves_of,
    normal,
    subject,
    summed,
)
from torch.autograd import grad

from softknee import nn
from softknee._engine.differentiable import Evaluation
from softknee._engine.division import points_of
from softknee._engine.grid import Table, _fitted, grid_over
from softknee._engine.layout import Layout
from softknee._engine.table import REACH, Tabulated

CPU = torch.device("cpu")


def pulled_back(module, x, g, times):
    """The gradients of all entries by a table of so many times the coarsest grid's bins, nodes wherever they are."""
    plan, leaves = module._plans[0], leaves_of(module)
    grid = grid_over(*REACH, plan.knots).finer(times)
    points, found = _fitted(plan, points_of(grid, CPU), leaves)
    table = Table(grid, None, found.rows, points, found.value_error, found.slope_error, accurate=True)
    layout = Layout(x.numel(), 1, 1, torch.contiguous_format)
    at = Evaluation(plan, Tabulated(table), layout, leaves, 0)
    return at.engine.gradient(at, (x,), g, (torch.empty_like(x),), sums=True)[:, 0]


def bent_modules():
    """Kinks at places that no grid has nodes at."""
    return {
        "srelu": nn.SReLU(left_threshold=-0.513, left_slope=0.2, right_threshold=0.777, right_slope=1.4),
        "hardtanh": nn.Hardtanh(min_value=-1.013, max_value=0.87, trainable=True),
        "absolute value": nn.Formula("a * abs(x - b)", a=1.3, b=0.513),
    }


UPSTREAM = {
    "white": lambda x: normal(*x.shape, seed=5),
    "smooth": lambda x: torch.sin(1.3 * x) + 0.3,
    "constant": torch.ones_like,
}


# Derivatives by the thresholds jump from 0 to 1, so that all of an element's share may be on the wrong side.
TOLERANCES = {8: 1e-3, 32: 2e-4}
JUMPING = {"hardtanh": 1.5}


@pytest.mark.parametrize("times", TOLERANCES)
@pytest.mark.parametrize("upstream", UPSTREAM)
@pytest.mark.parametrize("name", bent_modules())
def test_kinks_within_bins_cost_little_of_the_gradient(name, upstream, times):
    """Relative to the sizes of the contributions."""
    module = bent_modules()[name]
    x = normal(100_000)
    g = UPSTREAM[upstream](x)
    assert grid_over(*REACH, ()).finer(times).bins == 256 * times
    errors, sizes = compared(module, x, g, pulled_back(module, x, g, times))
    assert errors.norm() <= JUMPING.get(name, 1.0) * TOLERANCES[times] * sizes.norm()


@pytest.mark.parametrize("upstream", UPSTREAM)
@pytest.mark.parametrize("times", [1, 8])
@pytest.mark.parametrize("name", bent_modules())
def test_only_elements_in_bins_with_kinks_err(name, times, upstream):
    module = bent_modules()[name]
    grid = grid_over(*REACH, ()).finer(times)
    kinks = [-0.513, 0.777] if name == "srelu" else [-1.013, 0.87] if name == "hardtanh" else [0.513]
    x = normal(20_000)
    g = UPSTREAM[upstream](x)
    near = torch.zeros_like(x, dtype=torch.bool)
    for kink in kinks:
        near |= ((x - grid.origin) / grid.step).floor() == math.floor((kink - grid.origin) / grid.step)
    assert near.any()
    errors, sizes = compared(module, x[~near], g[~near], pulled_back(module, x[~near], g[~near], times))
    assert (errors <= 1e-6 * sizes).all()


SMOOTH = {
    "swish": partial(nn.Swish, beta=1.3),
    "staf": partial(nn.STAF, generator=torch.Generator().manual_seed(1)),
    "pelu": partial(nn.PELU, a=1.2, b=0.7),
    "bspline": partial(nn.BSpline, generator=torch.Generator().manual_seed(1)),
    "rational": nn.Rational,
    "snake": partial(nn.Snake, a=2.0),
    "linear_spline": partial(nn.LinearSpline, terms=9),
}


def compared(module, x, g, got):
    contributions = {key: g.double() * part for key, part in exact(module, x).by_parameters.items()}
    wanted = torch.cat([summed(module, key, part).view(-1) for key, part in contributions.items()])
    sizes = torch.cat([summed(module, key, part.abs()).view(-1) for key, part in contributions.items()])
    return (got - wanted).abs(), sizes


@pytest.mark.parametrize("upstream", UPSTREAM)
@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_parameters_of_smooth_functions(name, upstream):
    module = SMOOTH[name]()
    x = normal(20_000)
    g = UPSTREAM[upstream](x)
    for times, tolerance in ((8, 6e-6), (32, 1e-6)):
        errors, sizes = compared(module, x, g, pulled_back(module, x, g, times))
        assert (errors <= tolerance * sizes).all()


@pytest.mark.parametrize("case", [subject("softplus"), subject("staf", per_channel=True)], ids=str)
def test_second_derivatives(case):
    def derivatives(module, x, g, v):
        x, g = x.detach().requires_grad_(), g.detach().requires_grad_()
        (by_x,) = grad(module(x), x, g, create_graph=True)
        return [by_x.detach(), *grad(by_x, [x, g, *module.parameters()], v, materialize_grads=True)]

    x, g, v = normal(30, CHANNELS, scale=4.0), normal(30, CHANNELS, seed=2), normal(30, CHANNELS, seed=3)
    got = derivatives(case.module(engine="table"), x, g, v)
    wanted = derivatives(case.module(engine="eager").double(), x.double(), g.double(), v.double())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=5e-5 * other.abs().max().item())


def test_penalties_on_gradients_of_parameters():
    def penalty(module, x):
        x = x.detach().requires_grad_()
        first = grad(module(x).square().sum(), [x, *module.parameters()], create_graph=True)
        return grad(sum(one.square().sum() for one in first), [x, *module.parameters()], create_graph=True)

    case = subject("snake", per_channel=True)
    x = normal(30, CHANNELS)
    got = penalty(case.module(engine="table"), x)
    wanted = penalty(case.module(engine="eager").double(), x.double())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * other.abs().max().item())
