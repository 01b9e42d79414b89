"""Tables whose bins are divided where the function needs it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import assert_table_right, exact, leaves_of, normal, run, summed, table_for

from softknee import nn
from softknee._engine import fit as fits
from softknee._engine import grid as grids
from softknee._engine import lookup
from softknee._engine.division import MOST_PARTS, ROW_BITS, ROW_MASK, Division, _lengths, division_for, points_of
from softknee._engine.grid import MOST_BINS, Grid, grid_over, tabulate
from softknee._engine.layout import Layout
from softknee._engine.lookup import look_up, look_up_gradient
from softknee._engine.table import REACH
from softknee.functional._flow_prior import draw_smooth

CPU = torch.device("cpu")
# Steep around b, as steep as a, and as smooth as can be elsewhere.
STEP = "c * x + tanh(a * (x - b))"


def step(**options):
    return nn.Formula(STEP, **{"a": 40.0, "b": 1.03, "c": 0.5, "engine": "table"} | options)


def steps(channels: int):
    """Channels that are steep at other places, the first nowhere."""
    places = torch.linspace(-3, 4, channels)
    return step(a=torch.linspace(0.3, 60, channels), b=places, c=0.5, per_channel=channels, trainable=True)


def parts_of(table):
    return table.entries >> ROW_BITS


def smooth_field(seed: int, channels: int | None = None):
    """DiTAC's velocities at the scale at which it starts."""
    draws = [2.5 * draw_smooth(9, torch.Generator().manual_seed(seed + k)) for k in range(channels or 1)]
    return torch.stack(draws, 1) if channels else draws[0]


def random_field(seed: int, scale: float):
    return scale * normal(9, seed=seed, scale=1.0)


def test_bins_are_divided_where_it_is_steep_and_nowhere_else():
    table = table_for(step())
    parts = parts_of(table)[0]
    centers = table.grid.low + table.grid.step * (torch.arange(table.grid.bins) + 0.5)
    assert table.accurate
    assert table.grid.step == 1 / 16
    assert (parts[(centers - 1.03).abs() > 0.6] == 1).all()
    assert (parts[(centers - 1.03).abs() < 0.1] >= 5).all()
    assert table.rows.shape[1] < 256 + 300


def test_rows_of_all_bins_come_first_and_then_the_cells_of_each():
    table = table_for(steps(3))
    parts, rows = parts_of(table), table.entries & ROW_MASK
    length = table.rows.shape[1]
    for channel in range(3):
        wanted, used = [], 0
        for bin_, count in enumerate(parts[channel].tolist()):
            wanted.append(channel * length + (table.grid.bins + used if count > 1 else bin_))
            used += count if count > 1 else 0
        assert rows[channel].tolist() == wanted
    assert (parts[0] == 1).all()
    assert table.points.shape == (3, 4 * length)
    assert table.nbytes == table.rows.nbytes + table.points.nbytes + table.entries.nbytes


@pytest.mark.parametrize("shape", [(3000,), (40, 9, 30), (400, 9), (5, 9, 6, 7)], ids=str)
def test_values_and_gradients_of_divided_tables(shape):
    """Some elements outside, and both orders of memory."""
    module = step() if len(shape) == 1 else steps(9)
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    for memory_format in [torch.contiguous_format, *([torch.channels_last] if len(shape) == 4 else [])]:
        x = x.contiguous(memory_format=memory_format)
        assert_table_right(module, x, g, run(module, x, g))
    assert table_for(module).entries is not None


def test_gradients_of_parameters_of_a_steep_function():
    module, x, g = step(), normal(100_000), normal(100_000, seed=2)
    _, _, by = run(module, x, g)
    wanted = exact(module, x).by_parameters
    for key, got in by.items():
        sizes = summed(module, key, (g * wanted[key]).abs())
        assert (got - summed(module, key, g.double() * wanted[key])).abs() <= 1e-5 * sizes


@settings(max_examples=60)
@given(st.floats(1, 300), st.floats(-7, 7), st.floats(-2, 2), st.integers(0, 2**20))
def test_accurate_tables_keep_to_stated_errors(a, b, c, seed):
    module = step(a=a, b=b, c=c)
    table, x = table_for(module), normal(4000, seed=seed, scale=0.1) + b
    x = torch.cat((x, normal(1000, seed=seed + 1, scale=4.0))).clamp(*REACH)
    assert table.accurate
    y, by_x, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    assert (y - wanted.value).abs().max() <= table.value_error
    assert (by_x - wanted.slope).abs().max() <= table.slope_error


def test_a_steep_place_does_not_spoil_the_others():
    """Elsewhere values and slopes keep to what they would be without it."""
    module, x = step(a=3000.0), torch.linspace(-8, 0.9, 5000)
    y, by_x, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    assert table_for(module).accurate
    assert (y - wanted.value).abs().max() <= 4e-6
    assert (by_x - wanted.slope).abs().max() <= 2e-3


def test_kinks_on_nodes_of_divided_bins_keep_both_slopes():
    module = nn.Formula("abs(x) * exp(-(20 * x)**2) + a * x", a=0.3, engine="table")
    table = table_for(module)
    assert table.accurate
    assert (parts_of(table)[0, 127:129] > 1).all()
    x = torch.tensor([-1e-6, 0.0, 1e-6])
    assert run(module, x, torch.ones_like(x))[1].tolist() == pytest.approx([-0.7, 1.3, 1.3], abs=1e-4)


@pytest.mark.parametrize("seed", [3, 5])
def test_the_ends_of_pieces_cost_little(seed):
    """The second derivative of DiTAC jumps at 18 places that depend on its parameters."""
    module, count = nn.DiTAC(velocities=smooth_field(seed), engine="table"), 2**18
    x, g = normal(count, scale=1.0), normal(count, seed=2, scale=1.0)
    table = table_for(module)
    assert table.accurate
    assert table.rows.shape[1] < 1000
    y, slope, _ = run(module, x, torch.ones_like(x))
    by = run(module, x, g)[2]["velocities"]
    wanted = exact(module, x)
    assert (y - wanted.value).abs().max() <= 3e-6
    assert (slope - wanted.slope).square().mean().sqrt() <= 2e-5
    total = (g.double() * wanted.by_parameters["velocities"]).sum(1)
    assert (by - total).norm() <= 1e-4 * total.norm()


def test_the_ends_of_pieces_in_each_channel():
    module = nn.DiTAC(velocities=smooth_field(3, 6), per_channel=6, engine="table")
    x, g = normal(300, 6, 40, scale=1.0), normal(300, 6, 40, seed=2, scale=1.0)
    assert table_for(module).accurate
    y, slope, _ = run(module, x, torch.ones_like(x))
    by = run(module, x, g)[2]["velocities"]
    wanted = exact(module, x)
    assert (y - wanted.value).abs().max() <= 3e-6
    assert (slope - wanted.slope).square().mean().sqrt() <= 2e-5
    # Of few elements with gradients of either sign not much is left.
    total = (g.double() * wanted.by_parameters["velocities"]).sum((1, 3))
    assert (by - total).norm() <= 3e-4 * total.norm()


@pytest.mark.parametrize("seed", range(6))
def test_steep_fields_have_tables(seed):
    module, x = nn.DiTAC(velocities=random_field(seed, 0.5), engine="table"), normal(2**16, scale=1.0)
    table = table_for(module)
    assert table.accurate
    y, _, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    assert (y - wanted.value).abs().max() <= table.value_error
    # Rounding x to float32 alone moves the value by as much.
    assert table.value_error <= 2e-6 * 8 + 4e-7 * (8 + 2 * float(wanted.slope.abs().max()))


def test_extremely_steep_fields_have_none():
    module = nn.DiTAC(velocities=random_field(0, 12.0))
    assert module.engine_for(torch.empty(2**20)) == "fused"
    assert nn.DiTAC(velocities=smooth_field(3)).engine_for(torch.empty(2**20)) == "table"


def test_tables_serve_channels_with_fields_of_their_own():
    module = nn.DiTAC(velocities=smooth_field(3, 24), per_channel=24)
    assert module.engine_for(torch.empty(64, 24, 16, 16)) == "table"
    assert module.engine_for(torch.empty(4, 24, 16, 16)) == "fused"


@pytest.mark.parametrize("name", ["step", "steps", "ditac", "ditacs", "snake", "steep"])
def test_tables_without_a_compiler_are_the_same(name, monkeypatch):
    module = {
        "step": step,
        "steps": lambda: steps(4),
        "ditac": lambda: nn.DiTAC(velocities=smooth_field(5)),
        "ditacs": lambda: nn.DiTAC(velocities=smooth_field(3, 4), per_channel=4),
        "snake": lambda: nn.Snake(a=3.0),
        "steep": lambda: nn.DiTAC(velocities=random_field(1, 0.5)),
    }[name]()
    arguments = (module._plans[0], leaves_of(module), REACH, CPU)
    native = tabulate(*arguments)
    monkeypatch.setattr(fits, "_library", lambda: None)
    plain = tabulate(*arguments)
    assert native.grid == plain.grid
    assert native.accurate == plain.accurate
    assert (native.entries is None) == (plain.entries is None)
    if native.entries is not None:
        assert ((parts_of(native) - parts_of(plain)).abs() <= 1).all()
        assert native.rows.shape[1] == pytest.approx(plain.rows.shape[1], rel=0.01)
    assert native.value_error == pytest.approx(plain.value_error, rel=0.05)
    assert native.slope_error == pytest.approx(plain.slope_error, rel=0.05, abs=1e-7)


GRID = Grid(origin=0.25, step=1 / 16, first=-80, bins=128)


def division_of(parts, grid=GRID):
    return Division(grid, parts, int(_lengths(parts).amax()), 0.0, 0.0)


def random_division(channels: int):
    generator = torch.Generator().manual_seed(channels)
    choices = torch.tensor([1, 1, 1, 2, 3, 7, 64, MOST_PARTS])
    parts = choices[torch.randint(len(choices), (channels, GRID.bins), generator=generator)].int()
    parts[-1] = 1 if channels > 1 else parts[-1]
    return division_of(parts)


@pytest.mark.parametrize("channels", [1, 3])
def test_native_cells_are_those_of_torch(channels, monkeypatch):
    division = random_division(channels)
    errors = 3 * torch.rand(channels, division.longest, 4, generator=torch.Generator().manual_seed(1))
    native, native_finer = division.cells(), division.finer(errors)
    monkeypatch.setattr(fits, "_library", lambda: None)
    plain, plain_finer = division.cells(), division.finer(errors)
    assert torch.equal(native[0], plain[0])
    for one, other in zip(native[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-7, atol=1e-12)
    assert ((native_finer.parts - plain_finer.parts).abs() <= 1).all()
    assert (native_finer.parts >= division.parts).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_cells_fill_their_bins(channels):
    division = random_division(channels)
    entries, cells = division.cells()
    nodes = GRID.low + GRID.step * torch.arange(GRID.bins)
    for channel in range(channels):
        for bin_ in range(0, GRID.bins, 11):
            parts = int(division.parts[channel, bin_])
            if parts == 1:
                continue
            first = int(entries[channel, bin_] & ROW_MASK) - channel * (GRID.bins + division.longest) - GRID.bins
            wanted = nodes[bin_] + GRID.step * torch.arange(parts) / parts
            near = pytest.approx(wanted.tolist(), abs=2e-6)
            assert cells.ends[channel, first : first + parts, 0].tolist() == near
            assert cells.steps[channel, first : first + parts].tolist() == pytest.approx([GRID.step / parts] * parts)
    assert (cells.ends[..., 0] < cells.ends[..., 1]).all()


def test_too_many_cells_are_capped_in_their_own_channel():
    parts = torch.ones(2, GRID.bins, dtype=torch.int32)
    parts[0, 3:9], parts[1, 3:9] = 500, 20
    capped = division_of(parts).capped(1000)
    assert 700 < capped.longest <= 1000
    assert torch.equal(capped.parts[1], parts[1])
    assert division_of(parts).capped(3000).parts is parts


def test_cells_are_no_narrower_than_float32_can_tell():
    """At a hundred thousand, there are eight to a bin of a sixteenth."""
    module = nn.Formula("tanh(a * (x - 100000))", a=50.0, engine="table", reach=(99_990.0, 100_010.0))
    points = table_for(module).points.view(-1, 4)
    assert (points[:, 0] < points[:, 3]).all()


def test_tables_have_no_more_rows_than_allowed(monkeypatch):
    module = steps(5)
    monkeypatch.setattr(grids, "MOST_ROWS", 5 * 600)
    table = tabulate(module._plans[0], leaves_of(module), REACH, CPU)
    assert 257 < table.rows.shape[1] <= 600
    assert table.rows.shape[1] <= MOST_BINS
    monkeypatch.setattr(grids, "MOST_ROWS", 5 * 257)
    table = tabulate(module._plans[0], leaves_of(module), REACH, CPU)
    assert table.rows.shape[1] <= 257
    assert not table.accurate


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3000, 1, 1), (70, 5, 9), (700, 5, 1), (30, 40, 33), (50, 150, 1)], ids=str)
def test_native_lookups_of_divided_tables_are_those_of_torch(shape, dtype, monkeypatch):
    """More channels than are gathered together, and fewer."""
    layout = Layout(*shape, torch.contiguous_format)
    table = table_for(step() if layout.channels == 1 else steps(layout.channels))
    assert table.entries is not None
    x, g = normal(*shape, scale=4.0).to(dtype), normal(*shape, seed=2).to(dtype)
    x.view(-1)[:4] = torch.tensor([torch.nan, torch.inf, *REACH], dtype=dtype)

    def results():
        y, out, moments = torch.empty_like(x), torch.empty_like(x), torch.full_like(table.rows, 7.0)
        outside = look_up(table, layout, x, y)
        assert torch.equal(outside, look_up_gradient(table, layout, x, g, out, moments))
        return outside, y.float(), out.float(), moments[..., :3]

    native = results()
    monkeypatch.setattr(lookup, "_library", lambda *dtypes: None)
    plain = results()
    assert torch.equal(native[0], plain[0])
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(native[1], plain[1], rtol=ulp, atol=1e-6)
    torch.testing.assert_close(native[2], plain[2], rtol=ulp, atol=1e-4)
    torch.testing.assert_close(native[3], plain[3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(60, 40, 100), (400, 300)], ids=str)
def test_channels_in_groups_give_the_same_bits(shape, threads):
    module = steps(shape[1])
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    results = []
    for count in (1, 2, 3):
        threads(count)
        first, again = run(module, x, g), run(module, x, g)
        assert all(map(torch.equal, first[:2], again[:2]))
        assert all(torch.equal(first[2][name], again[2][name]) for name in first[2])
        results.append(first)
    for other in results[1:]:
        assert all(map(torch.equal, results[0][:2], other[:2]))
        for name, got in other[2].items():
            torch.testing.assert_close(results[0][2][name], got, rtol=1e-4, atol=1e-5 * float(got.abs().max()))


def test_rows_that_no_element_meets_change_no_gradient(monkeypatch):
    module = steps(5)
    table = table_for(module)
    x, g = normal(100, 5, 20, scale=0.5), normal(100, 5, 20, seed=2)
    wanted = run(module, x, g)[2]
    monkeypatch.setattr(grids, "MANY", 0)
    assert table.rows.numel() > 0
    for name, got in run(module, x, g)[2].items():
        torch.testing.assert_close(got, wanted[name], rtol=1e-5, atol=1e-5 * float(got.abs().max()))


@pytest.mark.parametrize("place", [0.0, 100.0])
def test_gradients_of_parameters_without_any_incoming_gradient(place, monkeypatch):
    monkeypatch.setattr(grids, "MANY", 0)
    module, x = steps(5), torch.full((3, 5, 2), place)
    _, by_x, by = run(module, x, torch.zeros_like(x))
    assert not by_x.any()
    assert not any(got.any() for got in by.values())


def test_half_of_what_neighbours_err_counts():
    grid = grid_over(*REACH)
    errors = torch.zeros(1, grid.bins, 4)
    errors[0, 50, 2], errors[0, 70, 2], errors[0, 90, 3] = 8.0, 1.5, 1 / fits.BETTER * 9
    found = fits.Fit(errors, errors, fits.Scales(1.0, 1.0, 1.0, 1.0, 1.0), 0.0, 0.0, 8.0)
    parts = division_for(grid, found).parts[0]
    assert {k: int(parts[k]) for k in range(grid.bins) if parts[k] > 1} == {49: 2, 50: 3, 51: 2, 70: 2, 90: 4}
    assert points_of(grid, CPU).places.shape == (1, grid.bins, 4)
