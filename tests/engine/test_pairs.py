"""Kernels of two inputs: halves of one tensor, in every order and layout, against the formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pairs import HALVES, SHAPES, assert_right, derivatives, plan_for
from subjects import normal

from softknee import nn
from softknee._card.cost import saved_bytes
from softknee._engine.layout import Halves, layout_of_pairs
from softknee._engine.lookup import in_memory_order
from softknee._engine.plan import Plan
from softknee._engine.select import LARGE_PAIRS, engine, evaluate, prepare

every_order = pytest.mark.parametrize("halves", HALVES, ids=str)
every_kind = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per channel"])
LAST = torch.channels_last


@st.composite
def pairs(draw):
    """A dense tensor of distinct numbers with an even dimension, and that dimension."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dim = draw(st.integers(0, len(shape) - 1))
    shape[dim] *= 2
    x = torch.arange(math.prod(shape)).view(shape)
    return (x.contiguous(memory_format=LAST) if len(shape) == 4 and draw(st.booleans()) else x), dim


@every_order
@given(pairs())
def test_runs_say_where_gates_and_values_are(halves, drawn):
    x, dim = drawn
    memory_format = torch.contiguous_format if x.is_contiguous() else LAST
    memory = in_memory_order(x, memory_format).flatten()
    gate, value = (
        in_memory_order(half.contiguous(memory_format=memory_format), memory_format) for half in halves.of(x, dim)
    )
    for shared in (True, False):
        layout = layout_of_pairs(x, memory_format, dim, interleaved=halves.interleaved, shared=shared)
        place = torch.arange(x.numel() // 2)
        first = memory[place + place // layout.run * layout.run]
        second = memory[place + place // layout.run * layout.run + layout.run]
        assert torch.equal(gate.flatten(), first if halves.gate_first else second)
        assert torch.equal(value.flatten(), second if halves.gate_first else first)
        assert layout.outer * layout.channels * layout.inner == x.numel() // 2
        assert layout.channels == (1 if shared else x.shape[dim] // 2)


@every_order
@every_kind
@pytest.mark.parametrize("trained", [False, True], ids=["fixed", "trained"])
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_every_layout(halves, per_channel, trained, shape, dim):
    plan = plan_for(halves, per_channel=per_channel, trained=trained)
    x = normal(*shape)
    assert prepare(plan, x, dim, "fused") is not None
    assert_right(plan, x, dim)


@every_order
@every_kind
@pytest.mark.parametrize(("shape", "dim"), [(shape, dim) for shape, dim in SHAPES if len(shape) == 4], ids=str)
def test_channels_last(halves, per_channel, shape, dim):
    plan, x = plan_for(halves, per_channel=per_channel), normal(*shape).contiguous(memory_format=LAST)
    assert_right(plan, x, dim)
    y, by_x, _ = derivatives(plan, x, dim, "fused")
    assert y.is_contiguous(memory_format=LAST)
    assert by_x.stride() == x.stride()


LAID = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "a part": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "expanded": lambda x: x[:1].expand(5, -1, -1),
    "not aligned": lambda x: torch.cat([torch.zeros(3), x.flatten()])[3:].view(x.shape),
}


@every_order
@pytest.mark.parametrize("lay", LAID.values(), ids=[*LAID])
def test_inputs_that_are_not_dense(halves, lay):
    assert_right(plan_for(halves, per_channel=True), lay(normal(5, 8, 6)), 1)


@every_order
@pytest.mark.parametrize("lay", LAID.values(), ids=[*LAID])
def test_gradients_that_are_not_dense(halves, lay):
    plan, x, g = plan_for(halves, per_channel=False, trained=False), normal(5, 8, 6).requires_grad_(), normal(5, 4, 6)
    values = (1.3, 0.2)
    (got,) = torch.autograd.grad(evaluate(plan, x, values, 1, "fused"), x, lay(g))
    wide = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(evaluate(plan, wide, values, 1, "eager"), wide, lay(g).double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_order
def test_halves_are_what_float32_gives_rounded(halves, per_channel, dtype):
    plan, x = plan_for(halves, per_channel=per_channel, trained=False), normal(40, 12).to(dtype)
    for one, other in zip(derivatives(plan, x, 1, "fused", dtype), _wide(plan, x, dtype), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other.to(dtype))


def _wide(plan, x, dtype):
    """As `derivatives`, at parameters and gradients that are rounded as there, in float32."""
    beta, slope = (
        torch.linspace(*ends, 6 if plan.per_channel else 1).to(dtype).float() for ends in ((0.5, 1.5), (-1.0, 0.5))
    )
    x = x.float().requires_grad_()
    y = evaluate(plan, x, (beta, slope), 1, "fused")
    return [y.detach(), torch.autograd.grad(y, x, normal(*y.shape, seed=3).to(dtype).float())[0]]


@every_kind
@every_order
def test_neither_repetition_nor_threads_change_a_bit(halves, per_channel, threads):
    plan, x, results = plan_for(halves, per_channel=per_channel), normal(700, 600), []
    for count in (1, 1, 2, 3):
        threads(count)
        results.append(derivatives(plan, x, 1, "fused"))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


PAIRS = ["GLU", "GTU", "Bilinear", "ReGLU", "GEGLU", "GEGLUTanh", "SwiGLU", "XATGLU", "DReGLU", "SquaredReGLU"]
PAIRS += ["SwiGLUClamped", "SwiGLUOAI", "SiTUGLU"]


@pytest.mark.parametrize("title", PAIRS)
def test_special_numbers(title):
    """What float64 gives, or torch's float32 where that overflows on the way."""
    ends = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-40, 1e30, -1e30, 88.8, -88.8, 1.0, 7.0, -10.0])
    x = torch.stack(torch.meshgrid(ends, ends, indexing="ij"), -1).view(-1, 2)
    module = getattr(nn, title)(gate_first=True)
    # Kernels take numbers as tensors, for which a formula may have another form.
    values = [torch.as_tensor(value).detach() for value in module._values()]
    results = []
    for how, dtype in (("fused", torch.float32), ("eager", torch.float64), ("eager", torch.float32)):
        leaf = x.to(dtype, copy=True).requires_grad_()
        y = evaluate(module._plans[0], leaf, module._values() if how == "fused" else values, 1, how)
        results.append([one.detach().float() for one in (y, *torch.autograd.grad(y.sum(), leaf))])
    for got, best, other in zip(*results, strict=True):
        right = [torch.isclose(got, one, rtol=1e-5, atol=1e-6, equal_nan=True) for one in (best, other)]
        assert (right[0] | right[1]).all()


def test_one_tensor_is_kept_and_one_is_made():
    plan, x = plan_for(Halves(True, False), per_channel=False), normal(256, 512)
    values = (torch.tensor([1.3], requires_grad=True), torch.tensor([0.2]))
    for dtype, most in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)):
        assert saved_bytes(lambda x: evaluate(plan, x, values, 1), x.to(dtype)) == most
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        leaf = x.requires_grad_()
        y = evaluate(plan, leaf, values, 1)
    assert leaf.data_ptr() in {tensor.data_ptr() for tensor in kept}
    (by_x,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    assert by_x.untyped_storage().nbytes() == x.untyped_storage().nbytes()


@every_kind
def test_higher_derivatives(per_channel):
    """Through the formula: of gradients by everything, and once more."""
    plan = plan_for(Halves(False, True), per_channel=per_channel)

    def all_of(how, dtype):
        x = normal(6, 10).to(dtype).requires_grad_()
        count = 5 if per_channel else 1
        beta = torch.linspace(0.5, 1.5, count, dtype=dtype).requires_grad_()
        slope = torch.linspace(-1.0, 0.5, count, dtype=dtype)
        y = evaluate(plan, x, (beta, slope), 1, how)
        first = torch.autograd.grad(y.square().sum(), (x, beta), create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), (x, beta), create_graph=True)
        return [y, *first, *second, *torch.autograd.grad(second[0].square().sum(), (x, beta))]

    for got, wanted in zip(all_of("fused", torch.float32), all_of("eager", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-3, atol=1e-5 * wanted.abs().max().item())


def test_only_what_is_asked_for_gets_a_gradient():
    plan, x = plan_for(Halves(True, False), per_channel=True), normal(7, 10)
    slope = torch.zeros(5)
    for x_needs in (True, False):
        for beta_needs in (True, False):
            leaf, beta = x.clone().requires_grad_(x_needs), torch.ones(5, requires_grad=beta_needs)
            y = evaluate(plan, leaf, (beta, slope), 1, "fused")
            assert y.requires_grad is (x_needs or beta_needs)
            if y.requires_grad:
                y.sum().backward()
            assert (leaf.grad is not None) is x_needs
            assert (beta.grad is not None) is beta_needs


def test_changes_in_place_are_noticed():
    plan, inner = plan_for(Halves(True, False), per_channel=False, trained=False), normal(10, 4).requires_grad_() * 1
    y = evaluate(plan, inner, (1.0, 0.0), 1, "fused")
    inner.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_auto_leaves_small_tensors_and_what_is_watched_to_torch():
    light, heavy = nn.SwiGLU(), nn.XATGLU()
    small, large = torch.empty(2, LARGE_PAIRS // 2 - 2), torch.empty(2, LARGE_PAIRS // 2)
    assert (light.engine_for(small), light.engine_for(large)) == ("eager", "fused")
    assert heavy.engine_for(small) == "fused"
    for other in (large.double(), large.to("meta"), torch.empty(0, 4)):
        assert heavy.engine_for(other) == "eager"
    with engine("eager"):
        assert heavy.engine_for(large) == "eager"
    # A table has one input.
    with engine("table"):
        assert light.engine_for(small) == "fused"


def test_there_are_no_tables_of_pairs():
    plan = Plan(lambda x, u: x * u, lambda x, u: x * u, halves=Halves(True, False))
    assert not plan.has_tables
