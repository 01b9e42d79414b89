"""Maps of random fields, also steep, flat, crossing, standing and tiny ones, against two ways to follow them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flows import carried_exactly, derivatives_exactly, integrated
from hypothesis import example, given, settings
from hypothesis import strategies as st

import softknee as sk
from softknee import cpab

EPS = 2**-52
NUMBER = st.floats(-1, 1).map(lambda number: round(number, 9))
# How much of a cell a velocity at a knot crosses in unit time; slopes are differences of two, up to 48.
SHAPES = {
    "gentle": NUMBER,
    "steep": NUMBER.map(lambda number: 24 * number),
    "whole": st.integers(-2, 2).map(float),
    "sparse": st.one_of(st.just(0.0), NUMBER.map(lambda number: 5 * number)),
    "tiny": NUMBER.map(lambda number: 1e-8 * number),
    "mixed": st.tuples(NUMBER, st.integers(-12, 0)).map(lambda pair: pair[0] * 10.0 ** pair[1]),
}


@st.composite
def fields(draw):
    """A field, its interval, the continuation, a time, and points: some anywhere, on knots, at and next to the ends."""
    cells = draw(st.integers(1, 10))
    low, length = draw(st.sampled_from([(0.0, 1.0), (-0.5, 2.5), (-3.0, 6.0), (2.0, 1e-3), (-1e3, 4e3)]))
    outside = draw(st.sampled_from(["identity", "affine"]))
    entry = SHAPES[draw(st.sampled_from([*SHAPES]))]
    velocities = [length / cells * draw(entry) for _ in range(cells + 1)]
    if draw(st.integers(0, 5)) == 0:
        velocities = [velocities[0]] * len(velocities)
    if outside == "identity":
        velocities[0] = velocities[-1] = 0.0
    knots = [low + length * k / cells for k in range(cells + 1)]
    x = [low + length * abs(draw(NUMBER)) for _ in range(2)] + [draw(st.sampled_from(knots)), low, low + length]
    x += [low + 1e-9 * length, low + length - 1e-9 * length, low - 0.3 * length, low + 1.1 * length]
    return velocities, (low, low + length), outside, draw(st.sampled_from([1.0, -1.0, 0.3, -2.0, 0.0])), x


def warped(field):
    velocities, interval, outside, time, x = field
    x, velocities = (torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (x, velocities))
    return x, velocities, cpab.warp(x, velocities, interval, outside, time)


def moves(field, x):
    (low, high), outside = field[1], field[2]
    return outside == "affine" or low <= x <= high


def exactly(field):
    velocities, interval, _, time, x = field
    return [carried_exactly(one, velocities, interval, time) if moves(field, one) else one for one in x]


@settings(max_examples=80)
@given(fields())
@example(([0.0, 0.0], (0.0, 1.0), "identity", 1.0, [0.0, 0.25, 1.0, 2.0]))
@example(([12.0, -12.0] * 2, (0.0, 1.0), "affine", 1.0, [0.0, 1 / 6, 1 / 3, 0.5, 1.0]))
def test_values_in_many_digits(field):
    """Within 1e-12, and what roundings of the point and the velocities do to the map."""
    velocities, interval, _, time, x = field
    _, _, y = warped(field)
    for point, got, wanted in zip(x, y.tolist(), exactly(field), strict=True):
        error = abs(float(got - wanted))
        scale = max(*map(abs, interval), abs(point), abs(float(wanted)))
        if error > 1e-12 * scale:
            by_x, by_knots = derivatives_exactly(point, velocities, interval, time)
            parts = [by_x * scale, *(by * v for by, v in zip(by_knots, velocities, strict=True))]
            assert error <= 20 * EPS * float(sum(map(abs, parts)))


@settings(max_examples=25)
@given(fields())
def test_derivatives_in_many_digits(field):
    """By the point and by every velocity, away from knots, where they are one-sided."""
    velocities, interval, outside, time, x = field
    points, knots_velocities, y = warped(field)
    knots = np.linspace(*interval, len(velocities))
    length = interval[1] - interval[0]
    scale = max(map(abs, interval)) / length
    for i, point in enumerate(x):
        if np.abs(knots - point).min() < 1e-10 * length or not moves(field, point):
            continue
        got = torch.autograd.grad(y[i], (points, knots_velocities), retain_graph=True, allow_unused=True)
        by_x, by_knots = derivatives_exactly(point, velocities, interval, time)
        by_knots = torch.tensor([float(by) for by in by_knots], dtype=torch.float64)
        if outside == "identity":
            by_knots[0] = by_knots[-1] = 0
        rows = torch.zeros_like(by_knots) if got[1] is None else got[1]
        steepest = max(1.0, abs(float(by_x)), by_knots.abs().max().item())
        assert abs(got[0][i].item() - float(by_x)) <= 1e-12 * scale * steepest
        assert (rows - by_knots).abs().max().item() <= 1e-12 * scale * steepest


@pytest.mark.parametrize("outside", ["identity", "affine"])
@pytest.mark.parametrize(
    ("cells", "interval", "time"), [(1, (-1.0, 1.0), 1.0), (10, (-0.5, 2.0), -1.0), (64, (-3.0, 3.0), 1.5)]
)
def test_values_by_integration(cells, interval, time, outside):
    generator, length = np.random.default_rng(cells), interval[1] - interval[0]
    # About as far as a fifth of the interval in unit time, through several of many cells.
    velocities = length * (0.2 * np.sin(np.linspace(0, 5, cells + 1)) + generator.normal(size=cells + 1) / (10 * cells))
    if outside == "identity":
        velocities[[0, -1]] = 0.0
    x = generator.uniform(interval[0], interval[1], 6)
    if outside == "affine":
        x = np.append(x, [interval[0] - 0.1 * length, interval[1] + 0.1 * length])
    y = cpab.warp(torch.tensor(x), torch.tensor(velocities), interval, outside, time)
    error = np.abs(y.numpy() - integrated(x, velocities, interval, time)).max()
    assert error <= 1e-8 * length


@pytest.mark.parametrize("slope", [48.0, -48.0])
@pytest.mark.parametrize("time", [1.0, -1.0])
def test_the_steepest_fields(slope, time):
    """Up and down by 48 from knot to knot: points gather in zeros, or fly from them."""
    velocities = [0.0, *(slope / 16 * sign for sign in (1, -1, 1)), 0.0]
    field = (velocities, (0.0, 2.0), "identity", time, np.linspace(0, 2, 83).tolist())
    _, _, y = warped(field)
    wanted = [float(one) for one in exactly(field)]
    assert np.abs(y.detach().numpy() - wanted).max() <= 1e-12


@pytest.mark.parametrize("cells", [1, 2, 7, 64])
def test_fields_of_zeros_do_nothing(cells):
    x = torch.linspace(-1, 4, 201, dtype=torch.float64, requires_grad=True)
    velocities = torch.zeros(cells + 1, dtype=torch.float64, requires_grad=True)
    y = cpab.warp(x, velocities, (0.0, 3.0), "affine")
    assert torch.equal(y, x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slopes, torch.ones_like(x))


@pytest.mark.parametrize("cells", [2, 7, 64])
def test_the_gradient_at_velocities_of_zero_is_hats(cells):
    """So that whoever begins with the identity learns."""
    x = torch.linspace(0, 3, 29, dtype=torch.float64)
    velocities = torch.zeros(cells + 1, dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(lambda v: cpab.warp(x, v, (0.0, 3.0), "affine"), velocities)
    knots = torch.linspace(0, 3, cells + 1, dtype=torch.float64)
    hats = (1 - (x[:, None] - knots).abs() * cells / 3).clamp(min=0)
    assert (rows - hats).abs().max().item() <= 1e-13


@pytest.mark.parametrize("magnitude", [1e-8, 1e-20, 1e-38, 1e-160, 1e-300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_velocities_have_the_gradient_of_none(dtype, magnitude):
    """Decay and small steps make such."""
    shape = torch.tensor([0, 1, 2, -1, 1, 0], dtype=torch.float64)
    velocities = (magnitude * shape).to(dtype).requires_grad_()
    x = torch.linspace(0, 1, 41, dtype=dtype, requires_grad=True)
    with sk.engine("eager"):
        y = cpab.warp(x, velocities)
    by_x, by_velocities = torch.autograd.grad(y.sum(), (x, velocities))
    knots = torch.linspace(0, 1, 6, dtype=dtype)
    hats = (1 - 5 * (x.detach()[:, None] - knots).abs()).clamp(min=0).sum(0)
    tolerance = 10 * torch.finfo(dtype).eps + 100 * magnitude
    assert torch.allclose(y, x, rtol=0, atol=tolerance)
    assert torch.allclose(by_x, torch.ones_like(x), rtol=0, atol=tolerance)
    assert torch.allclose(by_velocities[1:-1], hats[1:-1], rtol=0, atol=10 * tolerance)


def test_neighbours_that_are_equal_have_a_gradient():
    """As the first step of Adam from zeros makes them: slopes of exactly zero."""
    velocities = torch.tensor([0, -1, 1, 1, 1, -1, -1, -1, 0]) * 0.005
    velocities, x = velocities.requires_grad_(), torch.linspace(-3, 3, 13, requires_grad=True)
    wide = [one.detach().double().requires_grad_() for one in (x, velocities)]
    with sk.engine("eager"):
        got = torch.autograd.grad(cpab.warp(x, velocities, (-3.0, 3.0)).sum(), (x, velocities))
    wanted = torch.autograd.grad(cpab.warp(*wide, (-3.0, 3.0)).sum(), wide)
    for one, other in zip(got, wanted, strict=True):
        assert other.isfinite().all()
        assert torch.allclose(one.double(), other, rtol=1e-5, atol=1e-5)
