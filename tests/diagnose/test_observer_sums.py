"""Sums of what was observed: merged, packed, and of several processes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from softknee._diagnose.units.states import linear_r2, moments
from softknee._diagnose.units.sums import Sums, gathered, merged
from softknee.integrations import ActivationRecorder


def test_t29_sums_of_parts_are_those_of_the_whole():
    """Parts of different means, and so different shifts."""
    x = torch.cat([torch.randn(300, 5, dtype=torch.float64) + 1e4, torch.randn(500, 5, dtype=torch.float64) - 50])
    y = x.relu()
    parts = []
    for z, h in zip(x.split(200), y.split(200), strict=True):
        one = Sums()
        one.add(z[..., None], h[..., None])
        one.add_slopes((z > 0).double()[..., None], torch.ones(1, 1, 1))
        one.add_gradient(z.sin()[..., None])
        parts.append(one)
    whole = Sums()
    whole.add(x[..., None], y[..., None])
    whole.add_slopes((x > 0).double()[..., None], torch.ones(1, 1, 1))
    whole.add_gradient(x.sin()[..., None])
    for found in (merged(parts), parts[0] + parts[1] + parts[2] + parts[3]):
        for name in ("h_counts", "slope_counts", "grad_zero", "cells", "z_edges", "h_edges", "slope_edges"):
            assert torch.equal(found.parts[name], whole.parts[name])
        mine, its = moments(found, "z"), moments(whole, "z")
        assert_close(vars(mine), vars(its), rtol=1e-10, atol=1e-10)
        assert_close(linear_r2(found), linear_r2(whole), rtol=1e-9, atol=0)
        assert_close(found.parts["grad_sums"], whole.parts["grad_sums"])
    exact = (x - x.mean()).pow(4).mean() / x.var(correction=0) ** 2
    assert_close(moments(whole, "z").kurtosis, exact.item(), rtol=1e-9, atol=0)


def test_t29_counts_go_on_where_float32_stops():
    one = Sums()
    one.add(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
    one.parts["h_counts"] += 2**24 - 1
    one.add(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
    assert one.parts["h_counts"][1].tolist() == [2**24 + 1] * 2
    assert one.packed().sums().parts["h_counts"][1].tolist() == [2**24 + 1] * 2
    many = torch.zeros(2**24 + 1, 1, 1)
    assert merged([one, one]).parts["h_counts"][1].tolist() == [2**25 + 2] * 2
    large = Sums()
    large.add_gradient(many)
    assert large.parts["grad_zero"].item() == 2**24 + 1


def test_packed_sums_come_back_bit_by_bit():
    one = Sums()
    x = torch.randn(7, 3, 2)
    one.add(x, x.tanh())
    again = one.packed().sums()
    assert (again.n, again.inputs) == (14, 14)
    assert set(again.parts) == set(one.parts)
    assert all(torch.equal(again.parts[name], one.parts[name]) for name in one.parts)
    assert gathered({"a": one})["a"] is one


def check_processes(rank):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) + 7
    mine, whole = Sums(), Sums()
    part = x.chunk(2)[rank][..., None]
    mine.add(part, part.relu())
    whole.add(x[..., None], x.relu()[..., None])
    found = gathered({"a": mine, **({"only here": mine} if rank else {})})
    assert set(found) == {"a", "only here"}
    assert found["a"].n == 40
    assert torch.equal(found["a"].parts["cells"], whole.parts["cells"])
    assert_close(vars(moments(found["a"], "z")), vars(moments(whole, "z")), rtol=1e-6, atol=1e-6)


def check_recorder(rank):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU()), torch.randn(40, 3)
    found = []
    for batch, together in ((x.chunk(2)[rank], True), (x, False)):
        recorder = ActivationRecorder(model, together=together)
        recorder.begin(0)
        model(batch)
        found.append(recorder.end())
    mine, whole = found
    assert mine["activations/1/samples"] == 40
    for name in ("dead", "zero", "mean", "std"):
        assert_close(mine[f"activations/1/{name}"], whole[f"activations/1/{name}"], rtol=1e-6, atol=1e-8)


def _process(rank, folder):
    from torch import distributed

    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    check_processes(rank)
    check_recorder(rank)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_what_two_processes_have_seen_is_merged(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_process, args=(str(tmp_path),), nprocs=2)
