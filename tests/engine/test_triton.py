"""Kernels for GPUs, run by Triton's interpreter: against float64, against those for the CPU, and in each layout."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from interpret import interpret
from interpreted import programs_in_another_order
from subjects import DEFAULTS, EPS, SUBJECTS, exact, normal, subject
from test_vector_math import CASES, SPECIALS, assert_close, samples

from softknee._engine.build import NoCompiler, level
from softknee._engine.graph import Builder
from softknee._engine.kernels import native_kernel
from softknee._engine.layout import Layout
from softknee._engine.plan import Plan
from softknee._engine.trace import Formula
from softknee._engine.triton_pointwise import triton_kernel

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
ULPS = 8
UNARY = [case for case in CASES if case.name not in {"floor", "trunc", "round", "softplus"}]
FUSES = level() != "portable"
HALF = (torch.bfloat16, torch.float16)
# Outer, channels, inner: one sample of each kind of block, cut off at every end.
LAYOUTS = [(3, 3, 7), (70, 3, 17), (2, 3, 64), (1, 2, 1030), (3, 37, 1), (300, 5, 1), (40, 32, 1), (600, 1, 1)]
FLAT = Layout(1, 1, 1, torch.contiguous_format)


@pytest.fixture(autouse=True)
def quiet_numpy():
    with np.errstate(all="ignore"):
        yield


def graph_of(name: str, *, binary: bool = False):
    """The graph of one operation on `x`, or on `x` and `g`."""
    to = Builder()
    return to.finish((to.add(name, *map(to.input, ("x", "g") if binary else ("x",))),))


def run(graph, arrays, *, kernel=triton_kernel, leaves=None, layout=None, results=1, seed=0, per_channel=False):
    """Results and sums of a graph; everything in one channel unless a layout says otherwise."""
    layout = layout or FLAT._replace(outer=arrays[0].numel())
    count = 0 if leaves is None else len(leaves)
    made = kernel(graph, arrays=results, leaves=count, per_channel=per_channel, dtype=arrays[0].dtype)
    out = tuple(torch.full_like(arrays[0], 7.0) for _ in range(results))
    return out, made(arrays, out, leaves, layout, seed)


def same(got, wanted) -> bool:
    """Whether numbers are the same, NaN included; a zero may have either sign."""
    return bool(((got == wanted) | (got.isnan() & wanted.isnan())).all())


@pytest.mark.parametrize("case", UNARY, ids=lambda case: case.name)
def test_elementary_functions_are_right_and_the_cpus(case):
    x = np.concatenate([samples(case.limit)[::40], SPECIALS[(np.abs(SPECIALS) <= case.limit) | ~np.isfinite(SPECIALS)]])
    graph, arrays = graph_of(case.name), (torch.from_numpy(x),)
    ((y,), _) = run(graph, arrays)
    assert_close(y.numpy(), case.reference(x.astype(np.float64)), bound=case.bounds[0], at=(x,))
    if FUSES:
        assert same(y, run(graph, arrays, kernel=native_kernel)[0][0])


def test_power_is_right_and_the_cpus():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.choice(samples(), 4000), np.repeat(SPECIALS, len(SPECIALS))]).astype(np.float32)
    y = np.concatenate([rng.uniform(-20, 20, 4000), np.tile(SPECIALS, len(SPECIALS))]).astype(np.float32)
    graph, arrays = graph_of("pow", binary=True), (torch.from_numpy(x), torch.from_numpy(y))
    ((got,), _) = run(graph, arrays)
    assert_close(got.numpy(), np.power(x.astype(np.float64), y.astype(np.float64)), bound=1.2, at=(x, y))
    if FUSES:
        assert same(got, run(graph, arrays, kernel=native_kernel)[0][0])


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "max", "min", "lt", "le", "gt", "ge", "eq", "ne"])
def test_binary_operations_are_the_cpus_whatever_the_arguments(name):
    x = torch.from_numpy(SPECIALS)
    arrays = tuple(part.flatten().contiguous() for part in torch.meshgrid(x, x, indexing="ij"))
    to = Builder()
    # Truths are stored as the numbers 0 and 1.
    graph = to.finish((to.add("mul", to.add(name, to.input("x"), to.input("g")), to.constant(3.0)),))
    assert same(run(graph, arrays)[0][0], run(graph, arrays, kernel=native_kernel)[0][0])


def test_remainder_is_the_cpus():
    arrays = (normal(500, scale=20.0), normal(500, seed=2))
    graph = graph_of("remainder", binary=True)
    (got,), (wanted,) = (run(graph, arrays, kernel=kernel)[0] for kernel in (triton_kernel, native_kernel))
    # The interpreter rounds the product, a GPU does not.
    assert bool(((got - wanted).abs() <= EPS * arrays[0].abs()).all())


@pytest.mark.parametrize("name", ["neg", "abs", "sign", "sqrt", "floor"])
def test_unary_operations_are_the_cpus_whatever_the_argument(name):
    arrays = (torch.from_numpy(SPECIALS),)
    (got,), (wanted,) = (run(graph_of(name), arrays, kernel=kernel)[0] for kernel in (triton_kernel, native_kernel))
    assert same(got, wanted)
    assert torch.equal(got.signbit(), wanted.signbit())


@pytest.mark.parametrize("constant", [0.1, -0.0, 1e-40, 1e39, float("inf"), float("-inf"), float("nan"), 16777217.0])
def test_constants_are_rounded_to_float32(constant):
    to = Builder()
    x = to.input("x")
    graph = to.finish((to.add("add", to.add("mul", x, 0.0), constant), to.add("max", constant, constant)))
    (got, alone), _ = run(graph, (torch.ones(3),), results=2)
    rounded = torch.tensor(constant, dtype=torch.float32)
    assert same(got, rounded.expand(3))
    assert same(alone, rounded.expand(3))


def test_truths_combine_and_count_as_numbers():
    to = Builder()
    x, g, p = to.input("x"), to.input("g"), to.input("p0")
    low, high = to.add("lt", x, g), to.add("gt", p, 0.0)
    both, either = to.add("and", low, high), to.add("or", to.add("not", low), to.add("not", high))
    outputs = (to.add("where", both, x, to.add("add", either, either)), to.add("add", low, high))
    arrays, leaves = (normal(50), normal(50, seed=2)), torch.tensor([[0.5]])
    graph = to.finish(outputs)
    got, wanted = (
        run(graph, arrays, kernel=kernel, leaves=leaves, results=2)[0] for kernel in (triton_kernel, native_kernel)
    )
    assert all(map(same, got, wanted))


def formula_of(module) -> Formula:
    """The formula of a module with all its parameters trained."""
    spec = module.spec
    lengths = [len(getattr(module, param.name)) if param.vector else None for param in spec.parameters]
    return traced_once(spec.kernel or spec.function, tuple(lengths), channelwise=spec.channelwise)


@cache
def traced_once(function, lengths, *, channelwise) -> Formula:
    return Formula(function, lengths, (True,) * len(lengths), channelwise=channelwise)


def leaves_of(module, channels: int):
    """Its parameter values, `(entries, channels)`."""
    rows = [
        torch.as_tensor(getattr(module, param.name)).detach().float().reshape(-1, channels if module.per_channel else 1)
        for param in module.spec.parameters
    ]
    rows += [torch.arange(channels).float()[None]] if module.spec.channelwise else []
    return torch.cat([row.expand(-1, channels) for row in rows]).contiguous() if rows else None


def by_entries(wanted, layout, *, absolute: bool = False):
    """Contributions of elements to the gradients of parameters in float64, summed by entry and channel."""
    parts = [part.reshape(-1, layout.outer, layout.channels, layout.inner) for part in wanted.by_parameters.values()]
    whole = torch.cat(parts) if parts else torch.zeros(0, *layout[:3])
    return (whole.abs() if absolute else whole).sum((1, 3))


def assert_as_good_as_torch(got, wanted, conditioning, written):
    """As near to float64 as the formula in float32 gets, operation by operation."""
    allowance = ULPS * EPS * (conditioning + wanted.abs().amax()) + 2 * (written - wanted).abs()
    assert bool(((got - wanted).abs() <= allowance).all()), float(((got - wanted).abs() / allowance).max())


def check_against_float64(module, x, layout, *, per_channel: bool):
    formula, leaves, wanted = formula_of(module), leaves_of(module, layout.channels), exact(module, x)
    given = {"x": x, "g": torch.ones_like(x)}
    shape = [1] * x.dim()
    shape[min(1, x.dim() - 1)] = layout.channels
    given |= {f"p{k}": leaf.view(shape).expand_as(x) for k, leaf in enumerate(() if leaves is None else leaves)}
    options = {"leaves": leaves, "layout": layout, "per_channel": per_channel}
    ((y,), _), ((slope,), sums) = run(formula.value, (x,), **options), run(formula.gradient, (x, given["g"]), **options)
    assert_as_good_as_torch(y, wanted.value, wanted.conditioning, *interpret(formula.value, given))
    written, *parts = interpret(formula.gradient, given)
    assert_as_good_as_torch(slope, wanted.slope, wanted.slope_conditioning, written)
    if sums is not None:
        kept, total = by_entries(wanted, layout), by_entries(wanted, layout, absolute=True)
        torch_parts = torch.stack(parts).reshape(-1, *layout[:3]).double().sum((1, 3))
        assert bool(((sums - kept).abs() <= ULPS * EPS * total + 2 * (torch_parts - kept).abs()).all())
    return y, slope, sums


@pytest.mark.parametrize("subject", [s for s in DEFAULTS if not s.spec.channelwise], ids=str)
def test_kernels_are_right_and_the_cpus(subject):
    module, x = subject.module(), normal(1100)
    layout = FLAT._replace(outer=1100)
    y, slope, sums = check_against_float64(module, x, layout, per_channel=False)
    formula, leaves, wanted = formula_of(module), leaves_of(module, 1), exact(module, x)
    ((cpu_y,), _) = run(formula.value, (x,), kernel=native_kernel, leaves=leaves)
    ((cpu_slope,), cpu_sums) = run(formula.gradient, (x, torch.ones(1100)), kernel=native_kernel, leaves=leaves)
    # The interpreter never fuses a product with a sum.
    assert bool(((y - cpu_y).abs() <= ULPS * EPS * (wanted.conditioning + wanted.value.abs().amax())).all())
    scale = wanted.slope_conditioning + wanted.slope.abs().amax()
    assert bool(((slope - cpu_slope).abs() <= ULPS * EPS * scale).all())
    if sums is not None:
        assert torch.allclose(
            sums, cpu_sums, rtol=1e-5, atol=1e-5 * float(by_entries(wanted, layout, absolute=True).max())
        )


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.per_channel or s.spec.channelwise], ids=str)
@pytest.mark.parametrize("shape", [(4, 5, 9), (70, 5)], ids=["rows", "columns"])
def test_kernels_with_parameters_of_each_channel_are_right(subject, shape):
    layout = Layout(shape[0], 5, 9 if len(shape) > 2 else 1, torch.contiguous_format)
    check_against_float64(subject.module(), normal(*shape), layout, per_channel=True)


@pytest.fixture(scope="module")
def snake():
    """Two parameters, one trained, neither of them symmetric."""

    def function(x, frequency, slope):
        return slope * x + torch.sin(frequency * x).square() / frequency

    return Formula(function, (None, None), (True, True))


def leaves_for(channels: int):
    return torch.stack([torch.linspace(0.5, 2.0, channels), torch.linspace(-1.0, 1.5, channels)])


@pytest.mark.parametrize("sizes", LAYOUTS, ids=str)
def test_layouts_are_only_layouts(snake, sizes):
    layout = Layout(*sizes, torch.contiguous_format)
    x, g, v = (normal(*sizes, seed=seed) for seed in (1, 2, 3))
    leaves = leaves_for(sizes[1])
    given = {"x": x, "g": g, "v": v, **{f"p{k}": leaf.view(1, -1, 1).expand_as(x) for k, leaf in enumerate(leaves)}}
    for graph, arrays, results in ((snake.value, (x,), 1), (snake.gradient, (x, g), 1), (snake.second, (x, g, v), 2)):
        got, sums = run(graph, arrays, leaves=leaves, layout=layout, results=results, per_channel=True)
        wanted = interpret(graph, {name: tensor.double() for name, tensor in given.items()})
        for one, other in zip(got, wanted, strict=False):
            assert torch.allclose(one.double(), other, rtol=1e-5, atol=1e-5)
        for k, other in enumerate(wanted[results:]):
            assert torch.allclose(sums[k].double(), other.sum((0, 2)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [1, 15, 16, 1023, 1024, 1025, 2048, 5000])
def test_sizes_are_only_sizes(snake, count):
    x, g, leaves = normal(count), normal(count, seed=2), leaves_for(1)
    (got,), sums = run(snake.gradient, (x, g), leaves=leaves)
    given = {
        "x": x.double(),
        "g": g.double(),
        **{f"p{k}": leaf.double().expand(count) for k, leaf in enumerate(leaves)},
    }
    wanted, *parts = interpret(snake.gradient, given)
    assert torch.allclose(got.double(), wanted, rtol=1e-5, atol=1e-5)
    assert torch.allclose(sums[:, 0].double(), torch.stack(parts).sum(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("sizes", [(1100, 1, 1), (3, 3, 7), (40, 5, 1)], ids=str)
def test_half_precision_is_float32_rounded_once(snake, dtype, sizes):
    layout, leaves = Layout(*sizes, torch.contiguous_format), leaves_for(sizes[1])
    arrays = tuple(normal(*sizes, seed=seed).to(dtype) for seed in (1, 2))
    options = {"leaves": leaves, "layout": layout, "per_channel": sizes[1] > 1}
    (got,), sums = run(snake.gradient, arrays, **options)
    (wanted,), wanted_sums = run(snake.gradient, tuple(array.float() for array in arrays), **options)
    assert got.dtype == dtype
    assert torch.equal(got, wanted.to(dtype))
    assert torch.equal(sums, wanted_sums)


def test_results_may_be_written_over_arguments(snake):
    x, g, leaves = normal(1500), normal(1500, seed=2), leaves_for(1)
    (wanted,), wanted_sums = run(snake.gradient, (x, g), leaves=leaves)
    kernel = triton_kernel(snake.gradient, arrays=1, leaves=2, per_channel=False, dtype=torch.float32)
    sums = kernel((x, g), (g,), leaves, FLAT._replace(outer=1500))
    assert torch.equal(g, wanted)
    assert torch.equal(sums, wanted_sums)


@pytest.mark.parametrize("sizes", [(5000, 1, 1), (70, 3, 17), (600, 5, 1)], ids=str)
def test_the_order_of_programs_does_not_matter(snake, sizes):
    layout, arrays = Layout(*sizes, torch.contiguous_format), tuple(normal(*sizes, seed=seed) for seed in (1, 2))
    options = {"leaves": leaves_for(sizes[1]), "layout": layout, "per_channel": sizes[1] > 1}
    (first,), sums = run(snake.gradient, arrays, **options)
    with programs_in_another_order():
        (second,), again = run(snake.gradient, arrays, **options)
    assert torch.equal(first, second)
    assert torch.equal(sums, again)


@pytest.mark.parametrize("seed", [0, 1, 2**61 + 12345])
@pytest.mark.parametrize("sizes", [(5000, 1, 1), (3, 2, 1100), (3, 2, 7), (3, 40, 1)], ids=str)
def test_random_numbers_are_the_cpus(seed, sizes):
    to = Builder()
    graph = to.finish((to.add("add", to.add("mul", to.input("x"), 0.0), to.add("uniform")),))
    options = {"layout": Layout(*sizes, torch.contiguous_format), "seed": seed, "per_channel": sizes[1] > 1}
    got, wanted = (
        run(graph, (torch.ones(sizes),), kernel=kernel, **options)[0][0] for kernel in (triton_kernel, native_kernel)
    )
    assert torch.equal(got, wanted)
    assert 0 <= float(got.min()) < float(got.max()) < 1


def derivatives(module):
    """What autograd makes of a module: values, first derivatives and one second one."""
    x = normal(6, 5, 3).requires_grad_()
    y = module(x)
    first = torch.autograd.grad(y.square().sum(), [x, *module.parameters()], create_graph=True)
    return [part.detach() for part in (y, *first, *torch.autograd.grad(first[0].square().sum(), x))]


@pytest.mark.parametrize("name", ["swish", "rational"])
def test_autograd_runs_on_these_kernels(monkeypatch, name):
    module, kernels = subject(name, per_channel=True).module(), Plan.kernels
    wanted, asked = derivatives(module), []

    def on_gpu(plan, dtype, device):
        asked.append(device)
        return kernels(plan, dtype, "cuda")

    monkeypatch.setattr(Plan, "kernels", on_gpu)
    for got, cpu in zip(derivatives(module), wanted, strict=True):
        assert torch.allclose(got, cpu, rtol=1e-4, atol=1e-4 * float(cpu.abs().max()))
    assert len(asked) >= 3


def test_without_triton_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr("softknee._engine.triton_pointwise.trouble", lambda: "there is no Triton: gone")
    with pytest.raises(NoCompiler, match="^there is no Triton: gone$"):
        run(graph_of("exp"), (torch.ones(3),))
