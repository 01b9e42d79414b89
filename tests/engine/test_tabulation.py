from __future__ import annotations

import math
import threading
from collections import OrderedDict
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import (
    CHANNELS,
    DEFAULTS,
    EPS,
    SUBJECTS,
    ULP,
    Subject,
    assert_parameters_right,
    assert_table_right,
    exact,
    normal,
    run,
    subject,
    summed,
)
from torch.autograd import grad

from softknee import nn
from softknee._engine import lookup
from softknee._engine import table as tables
from softknee._engine.differentiable import Evaluation
from softknee._engine.fit import ROUNDINGS, SLOPE_TOLERANCE, VALUE_TOLERANCE
from softknee._engine.grid import MOST_BINS, _tabulated, grid_over, tabulate
from softknee._engine.layout import Layout
from softknee._engine.lookup import look_up, look_up_gradient
from softknee._engine.table import REACH, Tabulated, table_of
from softknee._errors import UsageError

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


def leaves_of(module) -> torch.Tensor | None:
    plan = module._plans[0]
    leaves = plan.leaves(module._values(), module.per_channel or 1 + plan.channelwise, CPU)
    return None if leaves is None else leaves.detach()


def table_for(module):
    return table_of(module._plans[0], leaves_of(module), CPU, module.reach)


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


# Gradients of parameters.


def pulled_back(module, x, g, times):
    """The gradients of all entries by a table of so many times the coarsest grid's bins, nodes wherever they are."""
    plan, leaves = module._plans[0], leaves_of(module)
    table, _ = _tabulated(plan, grid_over(*REACH, plan.knots).finer(times), leaves, CPU)
    layout = Layout(x.numel(), 1, 1, torch.contiguous_format)
    at = Evaluation(plan, Tabulated(table), layout, leaves, 0)
    return at.engine.gradient(at, x, g, torch.empty_like(x), sums=True)[:, 0]


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
    assert module.engine_for(x) == "table"
    assert_table_right(module, x, g, run(module, x, g))


# Special inputs.


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


# Memory, threads and native code.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3000, 1, 1), (70, 5, 9), (700, 5, 1), (1, 5, 333), (2, 1, 3)], ids=str)
def test_native_lookups_are_those_of_torch(shape, dtype, monkeypatch):
    layout = Layout(*shape, torch.contiguous_format)
    module = subject("bspline", per_channel=True).module(channels=layout.channels)
    table = table_of(module._plans[0], leaves_of(module), CPU, REACH)
    x, g = normal(*shape, scale=5.0).to(dtype), normal(*shape, seed=2).to(dtype)
    x.view(-1)[:2] = torch.tensor([math.nan, math.inf], dtype=dtype)

    def results():
        y, out, moments = torch.empty_like(x), torch.empty_like(x), torch.full_like(table.rows, 7.0)
        outside = look_up(table, layout, x, y)
        assert torch.equal(outside, look_up_gradient(table, layout, x, g, out, moments))
        return outside, y.float(), out.float(), moments[..., :3]

    native = results()
    monkeypatch.setattr(lookup, "_library", lambda dtype: None)
    plain = results()
    assert torch.equal(native[0], plain[0])
    ulp = torch.finfo(dtype).eps
    sizes = table.rows.abs().sum(-1).amax()
    torch.testing.assert_close(native[1], plain[1], rtol=ulp, atol=float(2 * EPS * sizes))
    slopes = float(4 * EPS * sizes / table.grid.step * g.float().abs().max())
    torch.testing.assert_close(native[2], plain[2], rtol=ulp, atol=slopes)
    torch.testing.assert_close(native[3], plain[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["staf", "swish", "bspline"])
def test_halves_are_what_float32_gives_rounded(name, dtype):
    module = subject(name).module(engine="table")
    x, g = normal(400, scale=4.0).to(dtype), normal(400, seed=2).to(dtype)
    y, by_x, by = run(module, x, g)
    wide_y, wide_by_x, wide_by = run(module, x.float(), g.float())
    assert y.dtype == by_x.dtype == dtype
    assert torch.equal(y, wide_y.to(dtype))
    # Slopes outside are multiplied by the gradient after that was rounded, which is exact.
    assert torch.equal(by_x, wide_by_x.to(dtype))
    for key, got in by.items():
        torch.testing.assert_close(got, wide_by[key], rtol=1e-4, atol=1e-4)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", [subject("staf"), subject("swish", per_channel=True)], ids=str)
@pytest.mark.parametrize("shape", [(130, CHANNELS, 300), (40_000, CHANNELS)], ids=str)
def test_repetition_gives_the_same_bits(case, shape, count, threads):
    threads(count)
    module = case.module(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    first = run(module, x, g)
    for _ in range(3):
        again = run(module, x, g)
        assert all(map(torch.equal, first[:2], again[:2]))
        assert all(torch.equal(first[2][name], again[2][name]) for name in first[2])


@pytest.mark.parametrize("shape", [(130, CHANNELS, 300), (40_000, CHANNELS), (1, CHANNELS, 7)], ids=str)
@pytest.mark.parametrize("case", [subject("staf"), subject("swish", per_channel=True)], ids=str)
def test_threads_change_sums_in_the_last_digits_only(case, shape, threads):
    module = case.module(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(module, x, g))
    for other in results[1:]:
        assert all(map(torch.equal, results[0][:2], other[:2]))
        for name, got in other[2].items():
            torch.testing.assert_close(results[0][2][name], got, rtol=1e-5, atol=1e-5 * float(got.abs().max()))


# Differentiating twice.


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


# The cache of tables.


def test_tables_of_the_same_values_are_made_once():
    first, again = (Subject(nn.Swish.spec).module(engine="table") for _ in range(2))
    assert table_for(first) is table_for(again)
    assert table_for(first) is table_for(first)
    wider = nn.Swish(engine="table", reach=(-9.0, 9.0)).eval()
    assert table_for(wider) is not table_for(first)
    other = nn.Swish(beta=1.0 + EPS, engine="table")
    assert table_for(other) is not table_for(first)


CHANGES = {
    "in place": lambda beta: beta.mul_(2),
    "by its data": lambda beta: beta.data.mul_(2),
    "by numpy": lambda beta: beta.detach().numpy().__imul__(2),
    "filled": lambda beta: beta.data.fill_(2.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_changed_parameters_have_another_table(change):
    module, x = nn.Swish(beta=1.0, engine="table"), normal(50)
    before, table = module(x).detach(), table_for(module)
    with torch.no_grad():
        change(module.beta)
    assert table_for(module) is not table
    assert not torch.equal(module(x), before)
    torch.testing.assert_close(module(x).double(), exact(module, x).value, rtol=0, atol=1e-5)
    assert_table_right(module, x, normal(50, seed=2), run(module, x, normal(50, seed=2)))


def test_backward_uses_the_table_of_its_forward():
    """As eager does: `.data` goes unnoticed, and what was saved is what was there, if nothing else changed it."""
    module, x = nn.Swish(beta=1.0, engine="table"), normal(50).requires_grad_()
    wanted = exact(module, x).slope
    y = module(x)
    module.beta = torch.nn.Parameter(torch.tensor([3.0]))
    y.sum().backward()
    torch.testing.assert_close(x.grad.double(), wanted, rtol=0, atol=1e-5)


def test_a_module_used_twice_in_one_graph():
    module = subject("bspline").module(engine="table")
    x = normal(60).requires_grad_()
    module(module(x)).sum().backward()
    reference = subject("bspline").module(engine="eager").double()
    y = x.detach().double().requires_grad_()
    reference(reference(y)).sum().backward()
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=0, atol=1e-4 * float(y.grad.abs().max()))
    for got, wanted in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=0, atol=1e-4 * float(wanted.grad.abs().max()))


def test_many_tables_do_not_pile_up(monkeypatch):
    size = table_for(nn.Swish(engine="table")).nbytes
    monkeypatch.setattr(tables, "REMEMBERED", 10 * size)
    monkeypatch.setattr(tables, "_recent", OrderedDict())
    for k in range(30):
        nn.Swish(beta=1.0 + k / 128, engine="table")(normal(5))
        assert sum(kept.nbytes for kept in tables._recent.values()) <= 10 * size
    assert len(tables._recent) > 1


def test_tables_are_made_in_several_threads(monkeypatch):
    monkeypatch.setattr(tables, "REMEMBERED", 2**17)
    x, failures = normal(50), []

    def work(seed):
        try:
            for k in range(60):
                module = nn.Swish(beta=1.0 + (seed + k) / 64, engine="table")
                torch.testing.assert_close(module(x).double(), exact(module, x).value, rtol=0, atol=1e-5)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize("name", ["relu", "relu6", "prelu", "linear_spline", "hardtanh"])
def test_slopes_at_kinks_on_nodes_are_one_sided(name):
    module = subject(name).module(engine="table")
    kinks = torch.tensor([-1.0, 0.0, 1.0, 3.0, 6.0])
    _, got, _ = run(module, kinks, torch.ones_like(kinks))
    sides = [exact(module, kinks + side).slope for side in (-1e-3, 1e-3)]
    near = [torch.isclose(got.double(), side, rtol=1e-5, atol=1e-5) for side in sides]
    assert (near[0] | near[1]).all()
