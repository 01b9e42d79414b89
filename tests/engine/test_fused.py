from __future__ import annotations

import itertools
import math

import pytest
import torch
from subjects import (
    CHANNELS,
    DEFAULTS,
    NOTHING_TO_DO,
    SUBJECTS,
    assert_parameters_right,
    assert_right,
    exact,
    inputs_for,
    normal,
    run,
    subject,
)

from softknee._engine.select import engine


def check(module, x, g):
    assert_right(module, x, g, run(module, x, g))


@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_catalogue_against_float64(case):
    module = case.module()
    assert module.engine == ("eager" if case.spec.name in NOTHING_TO_DO else "fused")
    check(module, inputs_for(case, 64, CHANNELS, 40), normal(64, CHANNELS, 40, seed=2))
    check(module, inputs_for(case, 300, CHANNELS, scale=0.2), normal(300, CHANNELS, seed=3))
    check(module, inputs_for(case, 30, CHANNELS, 7, scale=8.0), normal(30, CHANNELS, 7, seed=4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_halves_are_what_float32_gives_rounded(case, dtype):
    module = case.module()
    x, g = inputs_for(case, 16, CHANNELS, 9).to(dtype), normal(16, CHANNELS, 9, seed=2).to(dtype)
    y, by_x, by = run(module, x, g)
    wide, wide_by_x, _ = run(module, x.float(), g.float())
    assert y.dtype == by_x.dtype == dtype
    torch.testing.assert_close(y, wide.to(dtype), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(by_x, wide_by_x.to(dtype), rtol=0, atol=0, equal_nan=True)
    assert_parameters_right(module, exact(module, x), g, by)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["swish", "staf", "srelu"])
def test_parameters_in_halves(name, dtype):
    module = subject(name, per_channel=True).module().to(dtype)
    x, g = normal(16, CHANNELS).to(dtype), normal(16, CHANNELS, seed=2).to(dtype)
    y, by_x, by = run(module, x, g)
    wide = module.float()
    wanted_y, wanted_by_x, wanted_by = run(wide, x.float(), g.float())
    assert torch.equal(y, wanted_y.to(dtype))
    assert torch.equal(by_x, wanted_by_x.to(dtype))
    for key, got in by.items():
        assert torch.equal(got, wanted_by[key].to(dtype))


VARIED = [
    subject("swish"),
    subject("swish", per_channel=True),
    subject("srelu", per_channel=True),
    subject("bspline", per_channel=True),
    subject("brelu"),
    subject("mish"),
]
SHAPES = [(6, 5), (6, 5, 9), (3, 5, 6, 7), (3, 5, 4, 3, 2), (1, 5, 16, 17), (130, 5), (2, 5, 1), (1, 5), (5,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", VARIED, ids=str)
def test_shapes(case, shape):
    check(case.module(), normal(*shape), normal(*shape, seed=2))


def transposed(x):
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def sliced(x):
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return wide[..., ::2]


def offset(x):
    long = torch.zeros(x.numel() + 3)
    long[3:] = x.flatten()
    return long[3:].view(x.shape)


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": transposed,
    "sliced": sliced,
    "not aligned": offset,
}


@pytest.mark.parametrize(("of_x", "of_g"), [*itertools.product(LAYOUTS, LAYOUTS)])
@pytest.mark.parametrize("case", VARIED[1:5:2], ids=str)
def test_layouts_of_input_and_gradient(case, of_x, of_g):
    x, g = LAYOUTS[of_x](normal(3, CHANNELS, 6, 7)), LAYOUTS[of_g](normal(3, CHANNELS, 6, 7, seed=2))
    module = case.module()
    check(module, x, g)
    y, by_x, _ = run(module, x, g)
    if of_x in {"contiguous", "channels last"}:
        assert y.stride() == by_x.stride() == x.stride()


@pytest.mark.parametrize("case", VARIED, ids=str)
def test_three_dimensional_channels_last(case):
    x = normal(2, CHANNELS, 3, 4, 2).contiguous(memory_format=torch.channels_last_3d)
    check(case.module(), x, normal(2, CHANNELS, 3, 4, 2, seed=2))
    assert case.module()(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("shape", "dim"), [((4, 6, 5), -1), ((4, 6, 5), 2), ((5, 4, 6), 0), ((3, 4, 5, 6), -2)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("case", [VARIED[1], VARIED[4]], ids=str)
def test_channels_in_other_dimensions(case, shape, dim, last):
    x = normal(*shape)
    if last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    check(case.module(channel_dim=dim), x, normal(*shape, seed=2))


@pytest.mark.parametrize("case", [VARIED[1], VARIED[4]], ids=str)
def test_expanded_inputs_and_gradients(case):
    x = normal(1, CHANNELS, 1).expand(7, CHANNELS, 3)
    check(case.module(), x, torch.ones(()).expand(x.shape))
    leaf = normal(CHANNELS, 1).requires_grad_()
    case.module()(leaf.expand(4, CHANNELS, 3)).sum().backward()
    wanted = 12 * exact(case.module(), leaf.detach().view(1, CHANNELS, 1)).slope.view(CHANNELS, 1)
    torch.testing.assert_close(leaf.grad.double(), wanted, rtol=1e-5, atol=1e-5)


def test_without_elements_and_dimensions():
    module = subject("swish").module()
    assert module(torch.empty(0, 3)).shape == (0, 3)
    x = torch.tensor(0.7, requires_grad=True)
    y = module(x)
    y.backward()
    assert y.shape == x.grad.shape == ()
    assert x.grad.item() == pytest.approx(exact(module, x).slope.item(), rel=1e-6)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1023, 1024, 1025, 65536 + 3])
@pytest.mark.parametrize("case", VARIED[:2], ids=str)
def test_sizes_around_those_of_blocks(case, size):
    module = case.module()
    shape = (size,) if not case.per_channel else (1, CHANNELS, size)
    check(module, normal(*shape), normal(*shape, seed=2))
    if case.per_channel:
        check(module, normal(size, CHANNELS), normal(size, CHANNELS, seed=2))


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 1025])
def test_numbers_of_channels(channels):
    case = subject("swish", per_channel=True)
    module = case.module(channels=channels)
    for shape in ((9, channels), (2, channels, 3)):
        check(module, normal(*shape), normal(*shape, seed=2))


SPECIALS = [math.inf, -math.inf, -0.0, 0.0, 1e-45, -1e-38, 1e30, -1e30, 3.4e38, -3.4e38, 88.8, -88.8, 1.0]
# Of large numbers kernels do not know the phase, and rounding the frequency changes it before.
BOUNDED = {"snake": 1e9, "staf": 10.0}


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_special_inputs(case):
    """What float64 gives, or torch's float32 where that overflows on the way, if either is a number."""
    module = case.module()
    x = torch.tensor([value for value in SPECIALS if abs(value) <= BOUNDED.get(case.spec.name, math.inf)])
    x = x.view(-1, 1).repeat(1, 2)
    got, wanted = run(module, x, torch.ones_like(x)), exact(module, x)
    with engine("eager"):
        eager = run(module, x, torch.ones_like(x))
    for one, best, other in zip(got, (wanted.value.float(), wanted.slope.float()), eager, strict=False):
        right = [torch.isclose(one, right, rtol=1e-5, atol=1e-6, equal_nan=True) for right in (best, other)]
        neither = best.isnan() & other.isnan()
        assert (right[0] | right[1] | neither).all(), (x[:, 0], one[:, 0], best[:, 0], other[:, 0])
    zeros = x == 0
    assert torch.equal(got[0][zeros].signbit(), wanted.value[zeros].signbit())


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_what_is_no_number_stays_none(case):
    x = torch.full((CHANNELS, CHANNELS), math.nan)
    x[1:, 0] = 0.5
    y = case.module()(x)
    assert torch.equal(y.isnan(), x.isnan())


@pytest.mark.parametrize("case", [case for case in SUBJECTS if case.spec.kinks and not case.per_channel], ids=str)
def test_derivatives_at_kinks_are_those_of_the_formula(case):
    module = case.module()
    x = torch.tensor([-6.0, -3.0, -1.0, -0.0, 0.0, 1.0, 3.0, 6.0]).view(-1, 1).expand(-1, 2).contiguous()
    _, got, got_by = run(module, x, torch.ones_like(x))
    with engine("eager"):
        _, wanted, wanted_by = run(module, x, torch.ones_like(x))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    for name, one in got_by.items():
        torch.testing.assert_close(one, wanted_by[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", VARIED, ids=str)
def test_repetition_gives_the_same_bits(case, count, threads):
    threads(count)
    x, g = normal(130, CHANNELS, 300), normal(130, CHANNELS, 300, seed=2)
    module = case.module()
    first = run(module, x, g)
    for _ in range(3):
        again = run(module, x, g)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert all(torch.equal(first[2][name], again[2][name]) for name in first[2])


@pytest.mark.parametrize("case", VARIED, ids=str)
def test_the_number_of_threads_changes_no_bit(case, threads):
    x, g = normal(130, CHANNELS, 300), normal(130, CHANNELS, 300, seed=2)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(case.module(), x, g))
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][1], other[1])
        assert all(torch.equal(results[0][2][name], other[2][name]) for name in other[2])
