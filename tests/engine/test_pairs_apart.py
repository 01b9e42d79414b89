"""Kernels of gates and values that are two tensors, in every layout, against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from pairs import COPIED, IN_PLACE, IN_PLACE_SHARED, SHAPES, assert_right, derivatives, plan_for
from subjects import normal

from softknee import nn
from softknee._engine.layout import Halves, halves_like, laid_apart
from softknee._engine.select import LARGE_PAIRS, engine, evaluate, prepare

HALVES = Halves(gate_first=True, interleaved=False)
every_kind = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per channel"])
WAYS = {**IN_PLACE, **IN_PLACE_SHARED, **COPIED}
every_way = pytest.mark.parametrize("way", WAYS)


def plan_of(*, per_channel=False, trained=True):
    return plan_for(HALVES, per_channel=per_channel, trained=trained)


def laid(way, *shape):
    return WAYS[way](normal(*shape, seed=1), normal(*shape, seed=2))


@every_way
@every_kind
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 1, 3, 1), (1, 2, 40, 70)], ids=str)
def test_every_layout(way, per_channel, shape):
    for trained in (False, True):
        assert_right(plan_of(per_channel=per_channel, trained=trained), laid(way, *shape), 1)


@every_kind
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_every_shape(per_channel, shape, dim):
    plan, gate, value = plan_of(per_channel=per_channel), normal(*shape, seed=1), normal(*shape, seed=2)
    assert_right(plan, (gate, value), dim)
    assert_right(plan, torch.cat((gate, value), dim).chunk(2, dim), dim)
    assert_right(plan, torch.stack((value, gate), -1).unbind(-1)[::-1], dim)


@every_way
@every_kind
def test_copies_are_made_only_where_needed(way, per_channel):
    gate, value = laid(way, 3, 4, 5, 6)
    (first, second), layout = laid_apart(gate, value, channel_dim=1 if per_channel else None)
    where_they_are = first.data_ptr() == gate.data_ptr() and second.data_ptr() == value.data_ptr()
    assert where_they_are is (way in IN_PLACE or (way in IN_PLACE_SHARED and not per_channel))
    assert layout.outer * layout.channels * layout.inner == gate.numel()


@every_way
@every_kind
def test_gradients_lie_as_gates_and_values(way, per_channel):
    plan, inputs = plan_of(per_channel=per_channel), laid(way, 3, 4, 5, 6)
    (gate, value), layout = plan.laid(inputs, 1)
    y, *by = derivatives(plan, inputs, 1, "fused")[:3]
    assert y.is_contiguous(memory_format=layout.memory_format)
    assert [one.stride() for one in by] == [gate.stride(), value.stride()]
    if layout.run:
        one, other = halves_like(gate, value, run=layout.run)
        assert one.untyped_storage().nbytes() == 2 * gate.numel() * gate.element_size()
        places = torch.arange(2 * gate.numel())
        found = torch.cat([places.as_strided(x.shape, x.stride(), x.storage_offset()).flatten() for x in (one, other)])
        assert torch.equal(found.sort().values, places), "every place belongs to one of them"


LAID = {
    "transposed": lambda g: g.mT.contiguous().mT,
    "channels last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "strided": lambda g: torch.stack([g, g], -1)[..., 0],
    "expanded": lambda g: g[:1].expand_as(g),
}


@pytest.mark.parametrize("way", ["dense", "halves of channels", "columns that alternate"])
@pytest.mark.parametrize("lay", LAID.values(), ids=[*LAID])
def test_incoming_gradients_that_are_not_dense(way, lay):
    plan, inputs, g, results = plan_of(trained=False), laid(way, 3, 4, 5, 6), lay(normal(3, 4, 5, 6)), []
    for how, dtype in (("fused", torch.float32), ("eager", torch.float64)):
        leaves = [one.detach().to(dtype).requires_grad_() for one in inputs]
        results.append(torch.autograd.grad(evaluate(plan, tuple(leaves), (1.3, 0.2), None, how), leaves, g.to(dtype)))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


@every_kind
@pytest.mark.parametrize("way", IN_PLACE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_one_tensor(per_channel, way, dtype):
    plan = plan_of(per_channel=per_channel)
    gate, value = (one.to(dtype) for one in laid("the same" if way.startswith("the same") else "dense", 3, 4, 5, 6))
    y, by_both, by_beta = derivatives(plan, torch.cat((gate, value), 1), 1, "fused", dtype)
    got = derivatives(plan, WAYS[way](gate, value), 1, "fused", dtype)
    assert [one.dtype for one in got] == 4 * [dtype]
    assert torch.equal(got[0], y)
    assert torch.equal(torch.cat(got[1:3], 1), by_both)
    torch.testing.assert_close(got[3], by_beta)


@every_kind
@pytest.mark.parametrize("way", ["dense", "halves of channels"])
def test_neither_repetition_nor_threads_change_a_bit(per_channel, way, threads):
    plan, inputs, results = plan_of(per_channel=per_channel), laid(way, 70, 60, 10, 5), []
    for count in (1, 1, 2, 3):
        threads(count)
        results.append(derivatives(plan, inputs, 1, "fused"))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("way", IN_PLACE)
def test_only_the_inputs_are_kept(way):
    plan, values = plan_of(), (torch.tensor([1.3], requires_grad=True), torch.tensor([0.2]))
    for dtype, most in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)):
        inputs = [one.to(dtype).requires_grad_() for one in laid("dense", 16, 64, 8, 16)]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):  # noqa: B023
            evaluate(plan, WAYS[way](*inputs), values, None)
        large = {x.data_ptr(): x.numel() * x.element_size() for x in kept if x.numel() > 1}
        assert sum(large.values()) <= most * 2 * inputs[0].numel()


def test_the_incoming_gradient_s_memory_is_used_for_that_of_the_gate():
    plan, seen = plan_of(trained=False), []
    gate, value = (one.requires_grad_() for one in laid("dense", 8, 4, 50, 60))
    y = evaluate(plan, (gate * 1, value), (1.3, 0.2), None, "fused")
    y.register_hook(lambda g: seen.append(g.data_ptr()))
    y.grad_fn.next_functions[0][0].register_prehook(lambda by: seen.append(by[0].data_ptr()))
    y.exp().sum().backward()
    assert seen[0] == seen[1]


@every_kind
@pytest.mark.parametrize("way", ["dense", "halves of channels", "thirds", "the same"])
def test_higher_derivatives(per_channel, way):
    plan = plan_of(per_channel=per_channel)

    def all_of(how, dtype):
        inputs = tuple(one.detach().to(dtype).requires_grad_() for one in laid(way, 2, 4, 3, 2))
        count = 4 if per_channel else 1
        beta = torch.linspace(0.5, 1.5, count, dtype=dtype).requires_grad_()
        slope = torch.linspace(-1.0, 0.5, count, dtype=dtype)
        leaves = (*inputs, beta)
        y = evaluate(plan, inputs, (beta, slope), 1, how)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), leaves, create_graph=True)
        return [y, *first, *second, *torch.autograd.grad(second[0].square().sum(), leaves)]

    for got, wanted in zip(all_of("fused", torch.float32), all_of("eager", torch.float64), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-3, atol=1e-5 * wanted.abs().max().item())


def test_one_tensor_may_be_both():
    """Its gradient is the sum of both."""
    x, plan = normal(4, 6).requires_grad_(), plan_of(trained=False)
    (got,) = torch.autograd.grad(evaluate(plan, (x, x), (1.3, 0.2), None, "fused").sum(), x)
    wide = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(evaluate(plan, (wide, wide), (1.3, 0.2), None, "eager").sum(), wide)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)


def test_only_what_is_asked_for_gets_a_gradient():
    plan = plan_of(per_channel=True)
    for needs in range(8):
        gate, value, beta = (normal(7, 5), normal(7, 5, seed=2), torch.ones(5))
        wanted = [bool(needs & 1 << place) for place in range(3)]
        for one, asked in zip((gate, value, beta), wanted, strict=True):
            one.requires_grad_(asked)
        y = evaluate(plan, (gate, value), (beta, torch.zeros(5)), 1, "fused")
        assert y.requires_grad is any(wanted)
        if y.requires_grad:
            y.sum().backward()
        assert [one.grad is not None for one in (gate, value, beta)] == wanted


@pytest.mark.parametrize("place", [0, 1])
def test_changes_in_place_are_noticed(place):
    inputs = tuple(normal(10, 4, seed=seed).requires_grad_() * 1 for seed in (1, 2))
    y = evaluate(plan_of(trained=False), inputs, (1.0, 0.0), None, "fused")
    inputs[place].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("way", ["dense", "channels last", "halves of channels", "columns that alternate"])
@every_kind
def test_hooks_may_bring_inputs_back_in_another_order(way, per_channel):
    plan, inputs = plan_of(per_channel=per_channel), laid(way, 3, 4, 5, 6)
    wanted = derivatives(plan, inputs, 1, "fused")
    for unpack in (
        lambda x: x.contiguous(),
        lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
        lambda x: torch.stack([x, x], -1)[..., 0],
    ):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, unpack):
            got = derivatives(plan, inputs, 1, "fused")
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other)


def test_auto_leaves_small_tensors_and_what_is_watched_to_torch():
    light, heavy = nn.SwiGLU(), nn.XATGLU()
    small, large = torch.empty(LARGE_PAIRS // 2 - 1), torch.empty(LARGE_PAIRS // 2)
    assert (light.engine_for(small, small), light.engine_for(large, large)) == ("eager", "fused")
    assert heavy.engine_for(small, small) == "fused"
    for gate, value in (
        2 * [large.double()],
        2 * [torch.empty(0, 4)],
        [large, large.to("meta")],
        2 * [large.to("meta")],
    ):
        assert heavy.engine_for(gate, value) == "eager"
    with engine("eager"):
        assert heavy.engine_for(large, large) == "eager"
    with engine("table"):
        assert light.engine_for(small, small) == "fused"


def test_both_must_be_plain_memory():
    plan, x = plan_of(), normal(3, 4)
    assert prepare(plan, (x, x), None, "fused") is not None
    for other in (torch._efficientzerotensor(3, 4), torch.imag(torch.randn(3, 4, dtype=torch.complex64).conj())):
        assert prepare(plan, (x, other), None, "fused") is None
        assert prepare(plan, (other, x), None, "fused") is None
