"""Maps and activations against values computed with sixty digits and rounded once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import softknee as sk
from softknee import cpab, functional

CASES = json.loads(Path(__file__).with_name("golden_cpab.json").read_text())["cases"]
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
STILL = pytest.mark.parametrize(
    "case", [case for case in CASES if case["zero_boundary"]], ids=lambda case: case["name"]
)
IN_COORDINATES = pytest.mark.parametrize(
    "case", [case for case in CASES if "theta" in case], ids=lambda case: case["name"]
)


def numbers(values):
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


def warped(case, outside="affine"):
    x, velocities = numbers(case["x"]).requires_grad_(), numbers(case["knot_velocities"]).requires_grad_()
    return x, velocities, cpab.warp(x, velocities, tuple(case["interval"]), outside, case["time"])


def inside(case, x):
    a, b = case["interval"]
    return (x >= a) & (x <= b)


def off(got, wanted):
    """Relative to the larger of the wanted number and 1."""
    return ((got - wanted).abs() / wanted.abs().clamp(min=1)).max().item()


def by_knots(case):
    """NaN in the rows of points where the derivatives from both sides differ."""
    count = len(case["knot_velocities"])
    return torch.stack([numbers(row or [None] * count) for row in case["dT_dknot_velocity"]])


def assert_slopes(got, case, left, right):
    """Within 1e-13, relatively: maps may be steep, and nearly flat. At kinks either side will do."""
    sides = [(got - numbers(case[side])).abs() / numbers(case[side]).abs() for side in (left, right)]
    assert torch.minimum(*sides).max().item() <= 1e-13


def test_there_are_all_of_them():
    assert len(CASES) == 14


@EVERY
def test_values(case):
    _, _, y = warped(case)
    assert off(y.detach(), numbers(case["T"])) <= 1e-13


@STILL
def test_nothing_moves_outside(case):
    x, _, y = warped(case, "identity")
    wanted = torch.where(inside(case, x), numbers(case["T"]), x.detach())
    assert off(y.detach(), wanted.detach()) <= 1e-13
    assert torch.equal(y[~inside(case, x)], x[~inside(case, x)])


@EVERY
def test_slopes(case):
    x, _, y = warped(case)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    assert_slopes(slopes, case, "dT_dx_left", "dT_dx_right")


@EVERY
def test_derivatives_by_velocities(case):
    _, velocities, y = warped(case)
    rows = torch.stack([torch.autograd.grad(one, velocities, retain_graph=True)[0] for one in y])
    wanted = by_knots(case)
    known = ~wanted.isnan().any(1)
    assert known.sum() >= len(known) - 1
    assert ((rows - wanted)[known].abs().max() / wanted[known].abs().max()).item() <= 1e-12
    assert rows.isfinite().all()


@EVERY
def test_the_inverse_returns(case):
    """As well as the rounding of what it starts from allows."""
    x, arrived = numbers(case["x"]), numbers(case["T"])
    back = cpab.inverse(arrived, numbers(case["knot_velocities"]), tuple(case["interval"]), "affine", case["time"])
    slopes = torch.minimum(numbers(case["dT_dx_left"]), numbers(case["dT_dx_right"]))
    roundings = 2**-52 * (arrived.abs() / slopes + x.abs() + 1)
    assert ((back - x).abs() / roundings).max().item() <= 20


@EVERY
def test_knots_come_from_their_preimages(case):
    knots = numbers(case["knots"])[1:-1]
    back = cpab.inverse(knots, numbers(case["knot_velocities"]), tuple(case["interval"]), "affine", case["time"])
    wanted = numbers(case["interior_knot_preimages"])
    a, b = case["interval"]
    within = (wanted >= a) & (wanted <= b)
    assert not within.any() or off(back[within], wanted[within]) <= 1e-11


@EVERY
def test_float32(case):
    """Within 3e-7 of the interval, at points that are float32 numbers, where the map stays in the interval."""
    a, b = case["interval"]
    x, wanted = numbers(case["x"]), numbers(case["T"])
    taken = inside(case, x) & inside(case, wanted) & (x.float().double() == x)
    with sk.engine("eager"):
        y = cpab.warp(x.float(), numbers(case["knot_velocities"]).float(), (a, b), "affine", case["time"])
    assert y.dtype == torch.float32
    assert taken.sum() > 3
    assert (y.double() - wanted)[taken].abs().max().item() <= 3e-7 * (b - a)


@STILL
def test_activations(case):
    """DiTAC of the same field: its values, one-sided slopes at the ends included; DiGRAF and kin where they agree."""
    x = numbers(case["x"]).requires_grad_()
    velocities = case["time"] * numbers(case["knot_velocities"])[1:-1]
    y = functional.ditac(x, velocities, *case["interval"])
    (slopes,) = torch.autograd.grad(y.sum(), x)
    assert off(y.detach(), numbers(case["ditac_y"])) <= 1e-13
    # The gate adds two products, of which one may cancel the other.
    sides = [(slopes - numbers(case[f"ditac_dy_dx_{side}"])).abs() for side in ("left", "right")]
    steepest = numbers(case["ditac_dy_dx_left"]).abs().clamp(min=1)
    assert (torch.minimum(*sides) / steepest).max().item() <= 1e-13
    a, b = case["interval"]
    # At both ends, that of the inside.
    for end, side in ((a, "right"), (b, "left")):
        i = case["x"].index(end)
        assert abs(slopes[i].item() / case[f"ditac_dy_dx_{side}"][i] - 1) <= 1e-13
    leaky = functional.leaky_ditac(x.detach(), velocities, a, b)
    within = inside(case, x)
    assert off(leaky[within], numbers(case["T"])[within]) <= 1e-13
    if a == -b:
        bare = functional.digraf(x.detach(), velocities, b)
        assert off(bare, torch.where(within, numbers(case["T"]), x).detach()) <= 1e-13
    if a == 0:
        one_sided = functional.ge_ditac(x.detach(), velocities, b)
        assert off(one_sided[within], numbers(case["T"])[within]) <= 1e-13


@IN_COORDINATES
def test_coordinates_of_the_published_code(case):
    basis = torch.stack([numbers(row) for row in case["B_unit_domain"]])
    theta, velocities, interval = numbers(case["theta"]), numbers(case["knot_velocities"]), tuple(case["interval"])
    assert off(cpab.velocities_of(theta, basis, interval), velocities) <= 1e-13
    assert off(cpab.theta_of(velocities, basis, interval), theta) <= 1e-12


@IN_COORDINATES
def test_derivatives_by_coordinates(case):
    basis = torch.stack([numbers(row) for row in case["B_unit_domain"]])
    theta, x = numbers(case["theta"]).requires_grad_(), numbers(case["x"])
    interval = tuple(case["interval"])
    y = cpab.warp(x, cpab.velocities_of(theta, basis, interval), interval, "affine", case["time"])
    rows = torch.stack([torch.autograd.grad(one, theta, retain_graph=True)[0] for one in y])
    wanted = torch.tensor(case["dT_dtheta"], dtype=torch.float64)
    assert ((rows - wanted).abs().max() / wanted.abs().max()).item() <= 1e-12
