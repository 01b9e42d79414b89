"""Kernels of two inputs for GPUs, run by Triton's interpreter: in every layout, and against those for the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from interpreted import programs_in_another_order
from pairs import COPIED, HALVES, IN_PLACE, IN_PLACE_SHARED, SHAPES, assert_right, derivatives, plan_for
from subjects import normal

from softknee import nn
from softknee._engine.plan import Plan
from softknee._engine.select import engine

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
every_order = pytest.mark.parametrize("halves", HALVES, ids=str)
every_kind = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per channel"])
# More elements take long, and blocks are not large.
SMALL = [(shape, dim) for shape, dim in SHAPES if torch.Size(shape).numel() < 10_000]
# Across blocks; those of many channels are narrow.
ACROSS = [((2, 34, 70), 1), ((70, 34), 1), ((3, 64, 16), 1), ((1, 4, 1500), 1), ((2, 8, 2, 3), 1)]
KINDS = [(kind, *one) for kind, long in ((False, (2, 2100)), (True, (2, 140))) for one in (*SMALL, *ACROSS, (long, 1))]
# What lies across blocks takes longest, and which half comes first only moves both pointers: in one order each way.
LAID = [
    (halves, *one) for halves in HALVES for one in KINDS if one[1:] in SMALL or halves.gate_first is halves.interleaved
]


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    """Has every plan take the kernels for GPUs, and notes that it did."""
    kernels, asked = Plan.kernels, []

    def for_gpu(plan, dtype, device="cpu"):
        asked.append(device)
        return kernels(plan, dtype, "cuda")

    monkeypatch.setattr(Plan, "kernels", for_gpu)
    with np.errstate(all="ignore"):
        yield asked
    assert asked


@pytest.mark.parametrize(("halves", "per_channel", "shape", "dim"), LAID, ids=str)
def test_every_layout(halves, per_channel, shape, dim):
    plan = plan_for(halves, per_channel=per_channel)
    assert_right(plan, normal(*shape), dim)
    if len(shape) == 4:
        assert_right(plan, normal(*shape).contiguous(memory_format=torch.channels_last), dim)


@every_order
@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(halves, per_channel, dtype):
    plan, x = plan_for(halves, per_channel=per_channel, trained=False), normal(40, 12).to(dtype)
    for one, other in zip(derivatives(plan, x, 1, "fused", dtype), derivatives(plan, x, 1, "eager"), strict=True):
        assert one.dtype == dtype
        near = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(one.float(), other, rtol=near, atol=near * other.abs().max().item())


@every_order
@every_kind
@pytest.mark.parametrize("shape", [(70, 34), (3, 34, 70)], ids=str)
def test_the_order_of_programs_does_not_matter(halves, per_channel, shape):
    plan, x = plan_for(halves, per_channel=per_channel), normal(*shape)
    first = derivatives(plan, x, 1, "fused")
    with programs_in_another_order():
        assert all(map(torch.equal, first, derivatives(plan, x, 1, "fused")))


@every_kind
@pytest.mark.parametrize(
    "way", {**IN_PLACE, **IN_PLACE_SHARED, **COPIED}.values(), ids=[*IN_PLACE, *IN_PLACE_SHARED, *COPIED]
)
def test_two_tensors_in_every_layout(per_channel, way):
    plan = plan_for(HALVES[0], per_channel=per_channel)
    for shape in ((3, 4, 5, 6), (2, 1, 3, 1), (1, 2, 16, 48), (3, 32, 2, 2), (1, 1, 1, 1)):
        assert_right(plan, way(normal(*shape, seed=1), normal(*shape, seed=2)), 1)


@pytest.mark.parametrize(("per_channel", "shape", "dim"), KINDS, ids=str)
def test_two_tensors_of_every_shape(per_channel, shape, dim):
    plan, gate, value = plan_for(HALVES[0], per_channel=per_channel), normal(*shape, seed=1), normal(*shape, seed=2)
    assert_right(plan, (gate, value), dim)
    assert_right(plan, torch.cat((gate, value), dim).chunk(2, dim), dim)


@pytest.mark.parametrize("title", ["GTU", "GEGLU", "SwiGLUOAI", "DReGLU"])
def test_catalogued_pairs(title):
    x, results = normal(6, 40, scale=5.0), []
    for how, dtype in (("fused", torch.float32), ("eager", torch.float64)):
        leaf = x.to(dtype, copy=True).requires_grad_()
        with engine(how):
            y = getattr(nn, title)(interleaved=True)(leaf)
        results.append([y.detach().double(), *(one.double() for one in torch.autograd.grad(y.sum(), leaf))])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
