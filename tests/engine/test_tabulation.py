from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import (
    CHANNELS,
    DEFAULTS,
    EPS,
    NOTHING_TO_DO,
    SUBJECTS,
    ULP,
    assert_parameters_right,
    assert_table_right,
    exact,
    leaves_of,
    normal,
    run,
    subject,
    summed,
    table_for,
)

from softknee import nn
from softknee._engine.fit import ROUNDINGS, SLOPE_TOLERANCE, VALUE_TOLERANCE
from softknee._engine.grid import MOST_BINS, grid_over, tabulate
from softknee._engine.layout import Layout
from softknee._engine.lookup import look_up
from softknee._engine.table import REACH
from softknee._errors import UsageError

# Some parameter values are chosen so that none is.
pytestmark = pytest.mark.filterwarnings("ignore:a table was asked for that cannot be made fine enough")

CPU = torch.device("cpu")
# Each once, however many parameter values hypothesis tries: a formula is compiled once.
FORMULAS = (
    ("x * sigmoid(a * x) + b", {}),
    ("sin(a * x) * exp(-x**2 / 8) + b * x", {}),
    ("tanh(a * x) + b * x**2 / 10", {}),
    ("log1p(exp(a * x + b))", {}),
    ("a * atan(x + b)", {}),
    ("x / sqrt(1 + a**2 * x**2) + b", {}),
    ("a * x * erf(b * x)", {}),
    # Kinks in 0, where nodes are.
    ("a * abs(x) + b * x", {}),
    ("max(x, 0) + a * min(x, 0) + b * relu(x)**2", {}),
)
BENT = (
    # Kinks at b, within bins.
    ("a * abs(x - b)", {}),
    ("max(a * x, b)", {}),
)
NUMBER = st.floats(-2, 2).map(lambda number: round(number, 3))
# Derivatives of these are infinite in 0 or jump by millions.
SINGULAR = {"sgt-per-channel", "soft_exponential-per-channel"}


def formula(text: str, a: float, b: float, engine: str = "table"):
    return nn.Formula(text, a=a, b=b, engine=engine)


def assert_stated_errors(module, x, *, kinks: bool = False):
    """No value inside errs by more than the table says, and no slope but in bins that hold a kink."""
    table = table_for(module)
    y, by_x, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    inside = (x >= table.grid.low) & (x <= table.grid.high)
    assert ((y - wanted.value).abs() <= table.value_error)[inside].all()
    if not kinks:
        assert ((by_x - wanted.slope).abs() <= table.slope_error)[inside].all()
    roundings = ULP * EPS * wanted.conditioning.clamp(min=wanted.value.abs().amax())
    assert ((y - wanted.value).abs() <= roundings)[~inside].all()
    slope_roundings = 4 * ULP * EPS * wanted.slope_conditioning.clamp(min=wanted.slope.abs().amax())
    assert ((by_x - wanted.slope).abs() <= slope_roundings)[~inside].all()


ACCURATE = [case for case in SUBJECTS if str(case) not in SINGULAR]
KINKED = {"srelu-per-channel", "hardtanh-per-channel"}


@settings(max_examples=60)
@given(st.sampled_from(ACCURATE), st.integers(0, 2**20), st.floats(1, 12))
def test_catalogue_keeps_to_stated_errors(case, seed, scale):
    module = case.module(engine="table", seed=seed)
    x = normal(150, CHANNELS, seed=seed, scale=scale)
    if case.spec.name == "soft_exponential":
        x = x.clamp(min=-1)
    assert_stated_errors(module, x, kinks=str(case) in KINKED)


@settings(max_examples=60)
@given(st.sampled_from(FORMULAS + BENT), NUMBER, NUMBER, st.integers(0, 2**20))
def test_formulas_keep_to_stated_errors(text, a, b, seed):
    module = formula(text[0], a, b)
    assert_stated_errors(module, normal(600, seed=seed, scale=4.0), kinks=text in BENT)


@pytest.mark.parametrize("case", [case for case in ACCURATE if str(case) not in KINKED], ids=str)
def test_accurate_tables_are_within_tolerance(case):
    """Of the largest value and slope; apart from what rounding the input does to these."""
    module = case.module(engine="table")
    if str(case) == "soft_exponential-per-channel":
        pytest.skip("is not accurate")
    table = table_for(module)
    assert table.accurate
    channels = module.per_channel or 1 + module.spec.channelwise
    x = torch.linspace(table.grid.low, table.grid.high, 4001).view(-1, 1) + 1e-4 * normal(4001, channels)
    x = x.clamp(table.grid.low, table.grid.high)
    y, by_x, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    value, slope = wanted.value.abs().amax(), wanted.slope.abs().amax()
    bend = wanted.slope.diff(dim=0).abs().amax() / x.diff(dim=0).abs().clamp(min=1e-4).amin()
    assert ((y - wanted.value).abs() <= VALUE_TOLERANCE * value + ROUNDINGS * (value + x.abs() * slope)).all()
    noise = ROUNDINGS * (slope + x.abs() * bend.clamp(max=wanted.slope_conditioning.amax()))
    assert ((by_x - wanted.slope).abs() <= SLOPE_TOLERANCE * slope + noise).all()


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_every_table_is_built_by_its_parameters_alone(case):
    module = case.module(engine="table")
    first, again = (tabulate(module._plans[0], leaves_of(module), REACH, CPU) for _ in range(2))
    assert first is not again
    assert torch.equal(first.rows, again.rows)
    assert (first.grid, first.value_error, first.slope_error) == (again.grid, again.value_error, again.slope_error)
    assert first.grid.bins <= MOST_BINS


@pytest.mark.parametrize(
    ("low", "high", "knots"),
    [
        (-8.0, 8.0, ()),
        (-8.0, 8.0, (-4.0, -2.0, 0.0, 2.0, 4.0)),
        (-8.0, 8.0, (-1.4, -0.7, 0.0, 0.7, 1.4)),
        (-0.3, 0.2, (0.1,)),
        (3.0, 100.0, (0.0, 0.001, 0.002)),
        (-1.0, 1.0, (-4.0, 4.0)),
    ],
)
def test_grids_cover_their_range_and_have_knots_on_nodes(low, high, knots):
    grid = grid_over(low, high, knots)
    for times in (1, 3):
        finer = grid.finer(times)
        assert finer.low <= low + 1e-9
        assert finer.high >= high - 1e-9
        assert finer.low == pytest.approx(grid.low, abs=1e-12)
        assert finer.bins == times * grid.bins
        for knot in filter(lambda knot: low < knot < high, knots):
            steps = (knot - finer.origin) / finer.step
            assert steps == pytest.approx(round(steps), abs=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "bends"), [(-8.0, 8.0, (-1e-7, 1e-7)), (-1e7, 1e8, ()), (-8.0, 8.0, (0.1, 0.1000001, 3.0))]
)
def test_grids_have_no_more_bins_than_fit(low, high, bends):
    grid = grid_over(low, high, bends)
    assert grid.bins <= MOST_BINS
    assert grid.low <= low < high <= grid.high


@pytest.mark.parametrize("size", [1e-37, 1e37])
def test_large_and_small_functions_have_tables_as_fine(size):
    module = nn.Formula("a * tanh(x)", a=size, engine="table")
    assert table_for(module).accurate
    x = normal(100)
    torch.testing.assert_close(module(x).double() / size, torch.tanh(x.double()), rtol=0, atol=4e-6)


@pytest.mark.parametrize("terms", [2, 3, 9, 51])
def test_linear_splines_are_exact(terms):
    values = normal(terms, seed=4)
    module = nn.LinearSpline(terms=terms, values=values, engine="table")
    x = normal(3000, scale=4.0)
    y, by_x, by = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    assert table_for(module).accurate
    torch.testing.assert_close(y.double(), wanted.value, rtol=0, atol=4e-6 * float(wanted.value.abs().max()))
    torch.testing.assert_close(by_x.double(), wanted.slope, rtol=0, atol=1e-5 * float(wanted.slope.abs().max()))
    torch.testing.assert_close(by["values"].double(), wanted.by_parameters["values"].sum(1), rtol=1e-5, atol=1e-4)


def test_cubic_splines_are_exact_but_for_their_base():
    module = nn.BSpline(terms=9, coefficients=normal(9), base=0.0, engine="table")
    table = table_for(module)
    assert table.grid == grid_over(*REACH, module.spec.knots(9))
    x = normal(3000, scale=1.0)
    y, by_x, _ = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    torch.testing.assert_close(y.double(), wanted.value, rtol=0, atol=2e-6 * float(wanted.value.abs().max()))
    torch.testing.assert_close(by_x.double(), wanted.slope, rtol=0, atol=1e-5 * float(wanted.slope.abs().max()))


@pytest.mark.parametrize("shape", [(40, CHANNELS, 9), (400, CHANNELS), (7, CHANNELS, 6, 9)], ids=str)
@pytest.mark.parametrize("name", ["swish", "staf", "bspline", "rational"])
def test_tables_of_channels(name, shape):
    """Some elements outside, and both orders of memory."""
    module = subject(name, per_channel=True).module(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    formats = [torch.contiguous_format, *([torch.channels_last] if len(shape) == 4 else [])]
    for memory_format in formats:
        x = x.contiguous(memory_format=memory_format)
        results = run(module, x, g)
        assert_table_right(module, x, g, results)
        assert results[0].stride() == x.stride()


@pytest.mark.parametrize("shape", [(40, 4, 9), (400, 4), (7, 4, 6, 9)], ids=str)
def test_tables_by_channel_index(shape):
    module = nn.BReLU(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    assert module.engine_for(x) == "table"
    assert_table_right(module, x, g, run(module, x, g))


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_catalogue_by_tables(case):
    module = case.module(engine="table")
    x, g = normal(300, CHANNELS, scale=3.0), normal(300, CHANNELS, seed=2)
    assert module.engine_for(x) == ("eager" if case.spec.name in NOTHING_TO_DO else "table")
    assert_table_right(module, x, g, run(module, x, g))


@pytest.mark.parametrize("shape", [(40,), (10, CHANNELS), (4, CHANNELS, 2)], ids=str)
@pytest.mark.parametrize("case", [subject("softplus"), subject("swish", per_channel=True)], ids=str)
def test_inputs_that_are_no_numbers_or_infinite(case, shape):
    channels = 40 if shape == (40,) else CHANNELS
    module = case.module(engine="table", channels=channels)
    x = normal(*shape)
    flat = x.view(-1)
    flat[::7], flat[1::7], flat[2::7] = math.nan, math.inf, -math.inf
    y, by_x, by = run(module, x, torch.ones_like(x))
    wanted = exact(module, x)
    assert torch.equal(y.isnan(), wanted.value.isnan())
    known = x.isfinite()
    torch.testing.assert_close(y[known].double(), wanted.value[known], rtol=0, atol=1e-5)
    torch.testing.assert_close(by_x[known].double(), wanted.slope[known], rtol=0, atol=1e-4)
    assert (y[x == math.inf] == math.inf).all()
    for name, got in by.items():
        assert torch.equal(got.isnan(), summed(module, name, wanted.by_parameters[name]).isnan())


@pytest.mark.parametrize("scale", [-100.0, 100.0])
@pytest.mark.parametrize("case", [subject("snake"), subject("rational", per_channel=True)], ids=str)
def test_every_element_outside(case, scale):
    module = case.module(engine="table")
    x, g = scale + normal(30, CHANNELS, 3), normal(30, CHANNELS, 3, seed=2)
    got = run(module, x, g)
    wanted = run(case.module(engine="fused"), x, g)
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-5, atol=1e-6)
    assert_parameters_right(module, exact(module, x), g, got[2])


def test_ends_of_the_grid_are_inside():
    module = nn.Softplus(engine="table")
    table = table_for(module)
    ends = torch.tensor([table.grid.low, table.grid.high])
    beyond = torch.nextafter(ends, 2 * ends)
    for x, outside in ((ends, 0), (beyond, 2)):
        y = torch.empty_like(x)
        found = look_up(table, Layout(2, 1, 1, torch.contiguous_format), x, y)
        assert (0 if found is None else len(found)) == outside
        torch.testing.assert_close(module(x).double(), exact(module, x).value, rtol=1e-6, atol=1e-6)


def test_a_reach_of_ones_own():
    x, g = normal(500, scale=30.0), normal(500, seed=2)
    wide = nn.Swish(beta=0.3, engine="table", reach=(-100.0, 120.0))
    grid = table_for(wide).grid
    assert (grid.low, grid.high) == (-100.0, 120.0)
    assert_table_right(wide, x, g, run(wide, x, g))
    narrow = nn.Swish(beta=0.3, engine="table", reach=(-0.5, 0.25))
    assert_table_right(narrow, x, g, run(narrow, x, g))
    with pytest.raises(UsageError, match="reach of Swish must be two finite numbers in order, got 2, 1"):
        nn.Swish(reach=(2.0, 1.0))


@pytest.mark.parametrize("name", ["relu", "relu6", "prelu", "linear_spline", "hardtanh"])
def test_slopes_at_kinks_on_nodes_are_one_sided(name):
    module = subject(name).module(engine="table")
    kinks = torch.tensor([-1.0, 0.0, 1.0, 3.0, 6.0])
    _, got, _ = run(module, kinks, torch.ones_like(kinks))
    sides = [exact(module, kinks + side).slope for side in (-1e-3, 1e-3)]
    near = [torch.isclose(got.double(), side, rtol=1e-5, atol=1e-5) for side in sides]
    assert (near[0] | near[1]).all()
