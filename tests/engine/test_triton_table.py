"""Tables on GPUs, run by Triton's interpreter: against torch, and moments against exact sums."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from interpreted import programs_in_another_order
from subjects import EPS, normal

from softknee._engine import lookup, triton_table
from softknee._engine.division import Division, _lengths
from softknee._engine.grid import Grid
from softknee._engine.layout import Layout

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Outer, channels, inner; the last samples are shorter than blocks, and none is a multiple of them.
LAYOUTS = [(2500, 1, 1), (1, 1, 1024), (3, 4, 300), (200, 7, 1), (5, 3, 16)]
GRID = Grid(origin=0.0, step=1 / 16, first=-64, bins=128)
REACH = (GRID.low, GRID.high)


@pytest.fixture(autouse=True)
def quiet_numpy():
    with np.errstate(all="ignore"):
        yield


def table_for(channels: int, grid: Grid = GRID, *, divided: bool = False):
    """Cubics of no function in particular, of which lookups read the grid, the entries and the rows."""
    if not divided:
        return SimpleNamespace(grid=grid, entries=None, rows=normal(channels, grid.bins, 4))
    parts = torch.from_numpy(np.random.default_rng(4).choice([1, 1, 2, 3, 37], (channels, grid.bins))).int()
    longest = int(_lengths(parts).amax())
    entries, _ = Division(grid, parts, longest, 0.0, 0.0).cells()
    return SimpleNamespace(grid=grid, entries=entries, rows=normal(channels, grid.bins + longest, 4))


def arrays_for(sizes, dtype, *, scale: float = 2.0):
    """An input, some of it outside the table, and an incoming gradient."""
    x, g = normal(math.prod(sizes), scale=scale), normal(math.prod(sizes), seed=2)
    x[:6] = torch.tensor([float("nan"), float("inf"), float("-inf"), REACH[0], REACH[1], 0.0])
    return x.to(dtype), g.to(dtype)


def run(run_table, table, sizes, x, g, *, gather=True):
    """What a lookup writes and returns."""
    y = torch.full_like(x, 7.0)
    moments = torch.full_like(table.rows, 7.0) if g is not None and gather else None
    outside = run_table(table, Layout(*sizes, torch.contiguous_format), x, g, y, moments)
    return y, moments, outside


def same(got, wanted, atol: float):
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.allclose(got.nan_to_num().double(), wanted.nan_to_num().double(), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", LAYOUTS, ids=str)
@pytest.mark.parametrize("divided", [False, True], ids=["even", "divided"])
def test_values_are_those_of_torch(divided, sizes, dtype):
    table, (x, _) = table_for(sizes[1], divided=divided), arrays_for(sizes, dtype)
    y, _, outside = run(triton_table.run_table, table, sizes, x, None)
    wanted, _, wanted_outside = run(lookup._run_in_torch, table, sizes, x, None)
    same(y, wanted, 4 * torch.finfo(dtype).eps)
    assert torch.equal(outside, wanted_outside)
    assert not y[outside].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", LAYOUTS, ids=str)
@pytest.mark.parametrize("divided", [False, True], ids=["even", "divided"])
def test_slopes_and_moments_are_those_of_torch(divided, sizes, dtype):
    table, (x, g) = table_for(sizes[1], divided=divided), arrays_for(sizes, dtype)
    y, moments, outside = run(triton_table.run_table, table, sizes, x, g)
    wanted, wanted_moments, wanted_outside = run(lookup._run_in_torch, table, sizes, x, g)
    same(y, wanted, 16 * torch.finfo(dtype).eps * (37 if divided else 1))
    assert torch.equal(outside, wanted_outside)
    assert torch.equal(y[outside], g[outside])
    same(moments, wanted_moments, 8 * EPS * float(wanted_moments.abs().max()))
    alone, _, _ = run(triton_table.run_table, table, sizes, x, g, gather=False)
    assert torch.equal(alone[~alone.isnan()], y[~alone.isnan()])


def test_without_elements_outside_there_are_no_positions():
    table, x = table_for(1), normal(1500).clamp(*REACH)
    assert run(triton_table.run_table, table, (1500, 1, 1), x, None)[2] is None


def test_channels_last_is_taken_in_the_order_of_memory():
    table, x = table_for(3), normal(2, 3, 4, 5, scale=4.0).to(memory_format=torch.channels_last)
    layout, y = Layout(40, 3, 1, torch.channels_last), torch.empty_like(x)
    outside = triton_table.run_table(table, layout, x, None, y, None)
    wanted = torch.empty_like(x)
    assert torch.equal(outside, lookup._run_in_torch(table, layout, x, None, wanted, None))
    same(y, wanted, 4 * EPS)


def test_a_gradient_may_be_written_over():
    table, (x, g) = table_for(1), arrays_for((2500, 1, 1), torch.float32)
    wanted, wanted_moments, _ = run(triton_table.run_table, table, (2500, 1, 1), x, g)
    moments = torch.empty_like(table.rows)
    triton_table.run_table(table, Layout(2500, 1, 1, torch.contiguous_format), x, g, g, moments)
    assert torch.equal(g, wanted)
    assert torch.equal(moments, wanted_moments)


@pytest.mark.parametrize("sizes", [(5000, 1, 1), (3, 4, 1000)], ids=str)
@pytest.mark.parametrize("divided", [False, True], ids=["even", "divided"])
def test_the_order_of_programs_does_not_matter(divided, sizes):
    table, (x, g) = table_for(sizes[1], divided=divided), arrays_for(sizes, torch.float32)
    first = run(triton_table.run_table, table, sizes, x, g)
    with programs_in_another_order():
        second = run(triton_table.run_table, table, sizes, x, g)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("size", [1.0, 1e37, 1e-20, 1e-30, 0.0])
@pytest.mark.parametrize("spread", [1.0, 1e-6])
def test_moments_keep_what_is_said_of_them(size, spread):
    """Against exact sums; all but the first gradient are `spread` times the largest."""
    count, table = 5000, table_for(1)
    x, g = normal(count).clamp(-3.9, 3.9), normal(count, seed=2).clamp(-1, 1) * spread * size / 10
    g[0] = size / 10
    _, moments, _ = run(triton_table.run_table, table, (count, 1, 1), x, g)
    _, row, t, _ = lookup.located(table, x, torch.zeros(count, dtype=torch.int64))
    parts = torch.stack([g.double(), g * t, g * t * t, torch.zeros(count)], 1).double()
    exact = torch.zeros(table.grid.bins, 4, dtype=torch.float64).index_add_(0, row, parts)
    hits = torch.zeros(table.grid.bins, dtype=torch.float64).index_add_(0, row, torch.ones(count, dtype=torch.float64))
    # A float32 power of two is the finest unit there is.
    unit = max(2.0 ** (math.ceil(math.log2(count)) - 61) * size / 10, 2.0**-127)
    allowed = hits[:, None] * unit + EPS * exact.abs()
    # g t and g t^2 are rounded to float32 first.
    allowed += EPS * torch.zeros_like(exact).index_add_(0, row, parts.abs())
    assert bool(((moments[0] - exact).abs() <= allowed).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_makes_no_finite_moments(value):
    table, (x, g) = table_for(1), arrays_for((2500, 1, 1), torch.float32)
    g[100] = value
    assert run(triton_table.run_table, table, (2500, 1, 1), x, g)[1][..., :3].isnan().all()


def test_large_samples_are_divided_in_64_bits(monkeypatch):
    monkeypatch.setattr(triton_table, "LARGE", 100)
    table, (x, g) = table_for(7), arrays_for((3, 7, 100), torch.float32)
    y, moments, _ = run(triton_table.run_table, table, (3, 7, 100), x, g)
    monkeypatch.undo()
    wanted, wanted_moments, _ = run(triton_table.run_table, table, (3, 7, 100), x, g)
    assert torch.equal(y[~y.isnan()], wanted[~y.isnan()])
    assert torch.equal(moments, wanted_moments)


def test_bins_far_from_the_origin_are_found():
    grid = Grid(origin=0.25, step=1 / 64, first=-700, bins=3)
    table = SimpleNamespace(grid=grid, entries=None, rows=torch.arange(12.0).view(1, 3, 4))
    x = torch.tensor([grid.low, grid.low + 1.5 * grid.step, grid.high, grid.low - 1e-3, grid.high + 1e-3])
    y, _, outside = run(triton_table.run_table, table, (5, 1, 1), x, None)
    assert torch.allclose(y, torch.tensor([0.0, 4 + 2.5 + 1.5 + 7 / 8, 8 + 9 + 10 + 11.0, 0.0, 0.0]), atol=1e-3)
    assert outside.tolist() == [3, 4]
