from __future__ import annotations

import math
import shutil
from itertools import product

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from interpret import OPERATIONS, interpret, same

from softknee._engine.emit_c import kernel_source
from softknee._engine.graph import Builder
from softknee._engine.kernels import native_kernel
from softknee._engine.layout import Layout
from softknee._engine.trace import Formula

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")

INF, NAN = math.inf, math.nan
LARGEST, SMALLEST, TINY = torch.finfo(torch.float32).max, 1e-45, torch.finfo(torch.float32).tiny
SIZES = (
    0.0,
    SMALLEST,
    TINY,
    1e-30,
    0.5,
    1.0,
    1.5,
    2.0,
    2.5,
    3.0,
    88.7,
    104.0,
    2.0**23 - 0.5,
    2.0**31,
    1e20,
    LARGEST,
    INF,
)
SPECIALS = [sign * size for size in SIZES for sign in (1.0, -1.0)] + [NAN]
ARITIES = {1: ("neg", "abs", "sign", "floor", "sqrt"), 2: ("add", "sub", "mul", "div", "max", "min")}
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
LAYOUT = {"memory_format": torch.contiguous_format}


def columns(count: int) -> list[torch.Tensor]:
    """Every combination of special values, one tensor for each argument."""
    return list(torch.tensor([*product(SPECIALS, repeat=count)]).unbind(1))


def run(graph, *arrays: torch.Tensor) -> torch.Tensor:
    """Evaluate a graph by a kernel and return its last result; those of three inputs have two."""
    count = len(graph.outputs)
    kernel = native_kernel(graph, arrays=count, leaves=0, per_channel=False, dtype=torch.float32)
    results = tuple(torch.full_like(arrays[0], 7.0) for _ in range(count))
    kernel(tuple(array.contiguous() for array in arrays), results, None, Layout(arrays[0].numel(), 1, 1, **LAYOUT))
    return results[-1]


def inputs(to: Builder, count: int) -> list[int]:
    return [to.input(name) for name in "xgv"[:count]]


def graph_of(name: str, count: int):
    to = Builder()
    return to.finish((to.add(name, *inputs(to, count)),))


@pytest.mark.parametrize(("name", "count"), [(name, count) for count, names in ARITIES.items() for name in names])
def test_arithmetic_is_that_of_torch(name, count):
    arrays = columns(count)
    # Rounded once more from float64, these are as rounded at once; torch's own float32 roots are not the nearest.
    got, wanted = run(graph_of(name, count), *arrays), OPERATIONS[name](*[array.double() for array in arrays]).float()
    # Of two zeros torch takes now this one, now that one.
    assert same(got + 0.0, wanted + 0.0) if name in {"max", "min"} else same(got, wanted)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_those_of_torch(name):
    to = Builder()
    graph = to.finish((to.add("where", to.add(name, *inputs(to, 2)), -0.0, NAN),))
    x, g = columns(2)
    assert same(run(graph, x, g), torch.where(OPERATIONS[name](x, g), -0.0, torch.tensor(NAN)))


def test_logic_is_that_of_torch():
    to = Builder()
    x, g = inputs(to, 2)
    left, right = to.add("lt", x, g), to.add("eq", x, 1.0)
    truths = [to.add("and", left, right), to.add("or", left, right), to.add("not", left)]
    graph = to.finish(
        (to.add("sub", to.add("where", truths[0], x, g), to.add("where", to.add("or", *truths[1:]), g, x)),)
    )
    arrays = dict(zip("xg", columns(2), strict=True))
    assert same(run(graph, *arrays.values()), interpret(graph, arrays)[0])


def test_where_keeps_what_it_takes():
    to = Builder()
    x, g, v = inputs(to, 3)
    arrays = columns(3)
    graph = to.finish((x, to.add("where", to.add("gt", x, g), g, v)))
    assert same(run(graph, *arrays), torch.where(arrays[0] > arrays[1], *arrays[1:]))


CLAMPS = {
    "both": (-1.0, 2.0),
    "below": (0.0, None),
    "above": (None, 0.0),
    "negative zero": (-0.0, None),
    "crossed": (2.0, -1.0),
    "infinite": (-INF, INF),
    "to infinity": (INF, None),
}


@pytest.mark.parametrize(("low", "high"), CLAMPS.values(), ids=[*CLAMPS])
def test_clamps_are_those_of_torch(low, high):
    (x,) = columns(1)
    graph = Formula(lambda x: x.clamp(low, high), (), ()).value
    assert same(run(graph, x), x.clamp(low, high))


def test_lengths_neither_overflow_nor_vanish():
    x, g = columns(2)
    graph = Formula(torch.hypot, (None,), (True,)).value
    kernel = native_kernel(graph, arrays=1, leaves=1, per_channel=True, dtype=torch.float32)
    y = torch.empty_like(x)
    kernel((x.contiguous(),), (y,), g.contiguous(), Layout(1, len(x), 1, **LAYOUT))
    wanted = torch.hypot(x, g)
    torch.testing.assert_close(y, wanted, rtol=3e-7, atol=SMALLEST, equal_nan=True)
    assert not y.signbit()[~y.isnan()].any()


@pytest.mark.parametrize("divisor", [1.0, -1.0, 2.0, 3.0, -0.75, 2.0**20, 0.0, NAN])
def test_remainders_are_those_of_torch(divisor):
    x = torch.tensor([*SPECIALS, *torch.arange(-40.0, 40.0, 0.25).tolist()])
    # Quotients as they occur: whole numbers of few digits, and none that vanishes.
    x = x[(x.abs() < 2.0**22) & (x.abs() > 1e-3) | ~x.isfinite() | (x == 0)]
    to = Builder()
    got = run(to.finish((to.add("remainder", to.input("x"), divisor),)), x)
    wanted = torch.remainder(x, divisor)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


@given(st.floats() | st.sampled_from(SPECIALS))
@example(1e39)
@example(-1e39)
@example(5e-324)
@example(16777217.0)
@example(0.1)
def test_constants_are_printed_as_the_nearest_float(value):
    to = Builder()
    (line,) = [
        line.strip()
        for line in kernel_source(
            to.finish((to.add("add", to.input("x"), value),)), arrays=1, leaves=0, per_channel=False
        ).splitlines()
        if "const float t" in line
    ]
    text = line.partition("+ ")[2].rstrip(";").strip("()")
    named = {"INFINITY": INF, "-INFINITY": -INF, "NAN": NAN}
    printed = named[text] if text in named else float(text.removesuffix("f"))
    assert same(torch.tensor([printed]), torch.tensor([value], dtype=torch.float64).float())


def test_constants_come_out_of_kernels():
    to = Builder()
    x, total = to.input("x"), None
    for value in (*SPECIALS, 0.1, 16777217.0):
        # Each constant at one place: what is taken there and nowhere else.
        taken = to.add("where", to.add("eq", x, float(len(to._constants))), value, 0.0)
        total = taken if total is None else to.add("where", to.add("eq", taken, 0.0), total, taken)
    graph = to.finish((total,))
    places = torch.arange(200.0)
    assert same(run(graph, places), interpret(graph, {"x": places})[0])


ROUNDED = {torch.bfloat16: 16, torch.float16: 13}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_read_and_written_as_torch_does(dtype):
    to = Builder()
    kernel = native_kernel(to.finish((to.input("x"),)), arrays=1, leaves=0, per_channel=False, dtype=dtype)
    every = torch.arange(-(2**15), 2**15).short().view(dtype)
    y = torch.empty_like(every)
    kernel((every,), (y,), None, Layout(every.numel(), 1, 1, **LAYOUT))
    assert same(y.float(), every.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_rounded_to_halves_as_torch_rounds(dtype):
    """A leaf for each element is added to zero: all ties, and numbers beside them, of both signs."""
    to = Builder()
    graph = to.finish((to.add("add", to.input("x"), to.input("p0")),))
    kernel = native_kernel(graph, arrays=1, leaves=1, per_channel=True, dtype=dtype)
    every = torch.arange(-(2**15), 2**15).short().view(dtype)
    every = every[every.isfinite()].float()
    half = torch.nextafter(every.to(dtype), torch.tensor(INF, dtype=dtype)).float() / 2 + every / 2
    numbers = torch.cat(
        [half, *(torch.nextafter(half, torch.tensor(end)) for end in (-INF, INF)), torch.tensor(SPECIALS)]
    )
    y, x = torch.empty(len(numbers), dtype=dtype), torch.zeros(len(numbers), dtype=dtype)
    kernel((x,), (y,), numbers, Layout(1, len(numbers), 1, **LAYOUT))
    assert same(y.float(), (numbers + 0.0).to(dtype).float())


@pytest.mark.parametrize("per_channel", [False, True])
def test_sums_and_both_results_are_of_the_outputs_asked_for(per_channel):
    to = Builder()
    x, g, v, p, q = (to.input(name) for name in ("x", "g", "v", "p0", "p1"))
    product_, difference = to.add("mul", x, g), to.add("sub", v, p)
    graph = to.finish((product_, difference, to.add("mul", g, q), to.add("abs", x)))
    kernel = native_kernel(graph, arrays=2, leaves=2, per_channel=per_channel, dtype=torch.float32)
    shape = (6, 5, 7) if per_channel else (210, 1, 1)
    arrays = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    leaves = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(3))
    y, z = (torch.empty(shape) for _ in range(2))
    sums = kernel(tuple(arrays), (y, z), leaves, Layout(*shape, **LAYOUT))
    (x, g, v), (p, q) = arrays, leaves[:, :, None]
    assert torch.equal(y, x * g)
    assert torch.equal(z, v - p)
    torch.testing.assert_close(sums, torch.stack([(g * q).sum((0, 2)), x.abs().sum((0, 2))]), rtol=1e-5, atol=1e-5)
