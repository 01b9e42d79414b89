from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from subjects import (
    CHANNELS,
    DEFAULTS,
    SUBJECTS,
    assert_parameters_right,
    assert_right,
    exact,
    normal,
    run,
    subject,
)
from torch import nn
from torch.autograd import grad
from torch.nn import functional as F

from softknee._engine.select import engine
from softknee._errors import UsageError


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def inputs_for(case, *shape: int, scale: float = 2.0) -> torch.Tensor:
    """Normal numbers, but for logarithms only such that their arguments are positive."""
    x = normal(*shape, scale=scale)
    return x.clamp(min=-1) if case.spec.name == "soft_exponential" else x


def check(module, x, g):
    assert_right(module, x, g, run(module, x, g))


@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_catalogue_against_float64(case):
    module = case.module()
    assert module.engine == "fused"
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
# Of large numbers kernels do not know the phase, and rounding the frequency changes it before; mish's kernel multiplies
# an infinite input by a slope of zero.
BOUNDED = {"snake": 1e9, "staf": 10.0, "mish": 3.5e38}


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_special_inputs(case):
    """What float64 gives, or what torch's float32 makes of it where that overflows on the way."""
    module = case.module()
    x = torch.tensor([value for value in SPECIALS if abs(value) <= BOUNDED.get(case.spec.name, math.inf)])
    x = x.view(-1, 1).repeat(1, 2)
    got, wanted = run(module, x, torch.ones_like(x)), exact(module, x)
    with engine("eager"):
        eager = run(module, x, torch.ones_like(x))
    for one, best, other in zip(got, (wanted.value.float(), wanted.slope.float()), eager, strict=False):
        right = [torch.isclose(one, right, rtol=1e-5, atol=1e-6, equal_nan=True) for right in (best, other)]
        assert (right[0] | right[1]).all(), (x[:, 0], one[:, 0], best[:, 0], other[:, 0])
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


def second_derivatives(module, x, g, v, engine_name):
    """Of `v g f'` by everything that it depends on, and of a penalty on that gradient."""
    module = module.double() if engine_name == "eager" else module
    x, g, v = (tensor.to(next(iter([*module.parameters(), x])).dtype).detach() for tensor in (x, g, v))
    x.requires_grad_(), g.requires_grad_()
    parameters = [*module.parameters()]
    with engine(engine_name):
        (by_x,) = grad(module(x), x, g, create_graph=True)
        return [by_x, *grad(by_x, [x, g, *parameters], v, materialize_grads=True)]


@pytest.mark.parametrize("case", SUBJECTS, ids=str)
def test_second_derivatives(case):
    x, g, v = inputs_for(case, 12, CHANNELS, 4), normal(12, CHANNELS, 4, seed=2), normal(12, CHANNELS, 4, seed=3)
    got = second_derivatives(case.module(), x, g, v, "fused")
    module = case.module().double()
    x, g, v = x.double(), g.double(), v.double()
    wanted = second_derivatives(module, x, g, v, "eager")
    for one, other in zip(got, wanted, strict=True):
        scale = other.abs().max().item() + 1e-6
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ["swish", "staf", "snake", "telu", "rational"])
def test_derivatives_of_sums_and_higher_ones(name):
    """Cotangents of the parameters' gradients, and third derivatives: beyond the kernels."""

    def all_of(module, x, how):
        with engine(how):
            x = x.detach().requires_grad_()
            parameters = [*module.parameters()]
            first = grad(module(x).square().sum(), [x, *parameters], create_graph=True)
            penalty = sum(one.square().sum() for one in first)
            second = grad(penalty, [x, *parameters], create_graph=True)
            third = grad(second[0].sum(), [x, *parameters])
            return [penalty, *second, *third]

    case = subject(name, per_channel=name != "telu")
    x = normal(8, CHANNELS)
    got = all_of(case.module(), x, "fused")
    wanted = all_of(case.module().double(), x.double(), "eager")
    for one, other in zip(got, wanted, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * scale)


def test_hessian_vector_products_of_a_network():
    def product(how, dtype):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(4, CHANNELS), subject("swish", per_channel=True).module(), nn.Linear(CHANNELS, 1)
        ).to(dtype)
        x = normal(20, 4).to(dtype)
        parameters = [*network.parameters()]
        directions = [normal(*p.shape, seed=7).to(dtype) for p in parameters]
        with engine(how):
            first = grad(network(x).square().mean(), parameters, create_graph=True)
            return grad(first, parameters, directions)

    for got, wanted in zip(product("fused", torch.float32), product("eager", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize(("x_needs", "parameters_need"), [(True, True), (True, False), (False, True), (False, False)])
def test_only_what_is_asked_for_gets_a_gradient(x_needs, parameters_need):
    module = subject("swish", per_channel=True).module()
    module.requires_grad_(parameters_need)
    x, g = normal(7, CHANNELS).requires_grad_(x_needs), normal(7, CHANNELS, seed=2)
    y = module(x)
    assert y.requires_grad is (x_needs or parameters_need)
    if not y.requires_grad:
        return
    y.backward(g)
    wanted = exact(module, x.detach())
    assert (x.grad is not None) is x_needs
    assert (module.beta.grad is not None) is parameters_need
    if x_needs:
        torch.testing.assert_close(x.grad.double(), wanted.slope * g, rtol=1e-5, atol=1e-6)
    if parameters_need:
        sums = (wanted.by_parameters["beta"] * g).sum(0)
        torch.testing.assert_close(module.beta.grad.double(), sums, rtol=1e-5, atol=1e-5)


def test_some_parameters_may_be_frozen():
    module = subject("staf").module()
    module.frequency.requires_grad_(False)
    x, g = normal(50), normal(50, seed=2)
    y = module(x.requires_grad_())
    y.backward(g)
    assert module.frequency.grad is None
    wanted = exact(module, x.detach()).by_parameters["phase"] * g
    torch.testing.assert_close(module.phase.grad.double(), wanted.sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["swish", "relu"])
def test_changes_in_place_of_what_is_saved_are_noticed(name):
    module = subject(name).module()
    x = normal(10, 4).requires_grad_()
    inner = x * 1
    y = module(inner)
    (y if name == "relu" else inner).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_changes_in_place_of_parameters_are_noticed():
    module = subject("swish").module()
    y = module(normal(10).requires_grad_())
    with torch.no_grad():
        module.beta.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["relu", "relu6", "swish"])
def test_results_may_be_changed_in_place_where_they_are_not_saved(name):
    module = subject(name).module()
    x = normal(10, 4).requires_grad_()
    y = module(x)
    if name == "swish":
        y.mul_(2)
        y.sum().backward()
        torch.testing.assert_close(x.grad.double(), 2 * exact(module, x.detach()).slope, rtol=1e-5, atol=1e-6)
    else:
        # As torch's own do, for the same reason.
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_backward_twice_through_one_graph_gives_the_same():
    module = subject("staf", per_channel=True).module()
    x, g = normal(9, CHANNELS).requires_grad_(), normal(9, CHANNELS, seed=2)
    y = module(x)
    inputs = [x, *module.parameters()]
    once, again = grad(y, inputs, g, retain_graph=True), grad(y, inputs, g)
    assert all(map(torch.equal, once, again))
    with pytest.raises(RuntimeError, match="second time"):
        grad(y, inputs, g)


def test_the_incoming_gradient_is_left_alone():
    module = subject("swish").module()
    for g in (
        normal(3, 4, 5, 6),
        normal(3, 4, 5, 6).contiguous(memory_format=torch.channels_last),
        normal(6, 5, 4, 3).permute(3, 2, 1, 0),
    ):
        before = g.clone()
        module(normal(3, 4, 5, 6).requires_grad_()).backward(g)
        assert torch.equal(g, before)


def test_gradients_accumulate_over_uses():
    module = subject("swish", per_channel=True).module()
    x, y = normal(6, CHANNELS), normal(8, CHANNELS, seed=3)
    (module(x).sum() + module(y).sum()).backward()
    both = module.beta.grad.clone()
    module.beta.grad = None
    module(x).sum().backward()
    module(y).sum().backward()
    torch.testing.assert_close(both, module.beta.grad)


@pytest.mark.parametrize("case", DEFAULTS, ids=str)
def test_only_random_activations_draw(case):
    x = normal(6, CHANNELS).requires_grad_()
    before = torch.get_rng_state()
    case.module()(x).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


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


# Random activations.

LOWER, UPPER = 0.125, 1 / 3


def noise(*shape: int, seed: int = 0, module=None, x=None) -> torch.Tensor:
    """The slopes that a forward pass drew."""
    from softknee.nn import RReLU

    torch.manual_seed(seed)
    x = -torch.ones(shape) if x is None else x
    return ((module or RReLU(engine="fused"))(x) / x).detach()


def rrelu(**options):
    from softknee.nn import RReLU

    return RReLU(engine="fused", **options)


KINDS = {
    "shared": ((400, 50), {}),
    "rows": ((20, 5, 200), {"per_channel": 5}),
    "columns": ((4000, 5), {"per_channel": 5}),
}


@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_drawn_slopes_are_uniform(shape, options):
    slopes = noise(*shape, module=rrelu(**options))
    assert rrelu(**options).engine == "fused"
    uniform = stats.uniform(LOWER, UPPER - LOWER)
    assert stats.kstest(slopes.flatten().numpy(), uniform.cdf).pvalue > 1e-3
    # Neighbours along every dimension are independent.
    for dim in range(slopes.dim()):
        one, other = slopes.narrow(dim, 0, slopes.shape[dim] - 1), slopes.narrow(dim, 1, slopes.shape[dim] - 1)
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()
        assert abs(correlation) < 5 / math.sqrt(one.numel())
    assert len(slopes.unique()) > 0.98 * slopes.numel()


@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_the_seed_governs_what_is_drawn(shape, options):
    module = rrelu(**options)
    assert torch.equal(noise(*shape, module=module), noise(*shape, module=module))
    assert not torch.equal(noise(*shape, module=module), noise(*shape, module=module, seed=1))
    torch.manual_seed(0)
    x = -torch.ones(shape)
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "options"), KINDS.values(), ids=[*KINDS])
def test_backward_uses_the_slopes_of_forward(shape, options, dtype):
    module = rrelu(trainable=True, **options)
    x, g = normal(*shape).to(dtype).requires_grad_(), normal(*shape, seed=2).to(dtype)
    y = module(x)
    once = grad(y, [x, *module.parameters()], g, retain_graph=True)
    again = grad(y, [x, *module.parameters()], g)
    assert all(map(torch.equal, once, again))
    if dtype == torch.float32:
        torch.testing.assert_close(once[0], torch.where(x > 0, g, g * y / x), rtol=1e-5, atol=1e-6)
        share = ((y / x - LOWER) / (UPPER - LOWER)).detach()
        flowing = torch.where(x > 0, 0.0, g * x).detach()
        by_upper = (flowing * share).double()
        dims = [*range(x.dim())] if not options else [dim for dim in range(x.dim()) if dim != 1]
        torch.testing.assert_close(once[2].double(), by_upper.sum(dims).view(-1), rtol=1e-3, atol=1e-2)


def test_random_activations_twice_differentiated():
    module = rrelu()
    x, g, v = normal(40, 5).requires_grad_(), normal(40, 5, seed=2).requires_grad_(), normal(40, 5, seed=3)
    y = module(x)
    (by_x,) = grad(y, x, g, create_graph=True)
    slopes = torch.where(x > 0, 1.0, y / x).detach()
    by_g, by_x_again = grad(by_x, [g, x], v, materialize_grads=True)
    torch.testing.assert_close(by_g, v * slopes, rtol=1e-5, atol=1e-6)
    assert not by_x_again.any()


def test_random_activations_say_how_far_they_can_be_differentiated():
    module = rrelu()
    x = normal(40, 5).requires_grad_()
    (by_x,) = grad(module(x).sum(), x, create_graph=True)
    (second,) = grad(by_x.square().sum(), x, retain_graph=True)
    assert not second.any()
    with pytest.raises(UsageError, match="can be differentiated twice by its input, and no further"):
        grad(by_x.square().sum(), x, create_graph=True)


def test_evaluation_draws_nothing():
    module = rrelu().eval()
    x = -torch.ones(50)
    before = torch.get_rng_state()
    torch.testing.assert_close(module(x), x * (LOWER + UPPER) / 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_the_same_after_a_random_activation_as_seeded():
    """What follows depends on the seed alone, not on how large the activation's input was."""

    def following(size):
        torch.manual_seed(0)
        rrelu()(-torch.ones(size))
        return F.dropout(torch.ones(50))

    assert torch.equal(following(10), following(5000))


class Foreign(torch.autograd.Function):
    """Hands memory that is not torch's own to whatever came before it."""

    @staticmethod
    def forward(ctx, x, memory):
        ctx.memory = memory
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(ctx.memory), None


def test_memory_of_others_is_not_written_over():
    module, x = subject("mish").module(), normal(100).requires_grad_()
    memory = np.ones(100, dtype=np.float32)
    Foreign.apply(module(x * 1), memory).sum().backward()
    assert (memory == 1).all()
    torch.testing.assert_close(x.grad.double(), exact(module, x.detach()).slope, rtol=1e-4, atol=1e-6)
