"""Gates and values that are two DTensors: the parts of one of two processes, of which the other is not there."""

from __future__ import annotations

import pytest
import torch
from pairs import parameters_for, plan_for
from subjects import normal
from torch import distributed

from softknee import nn
from softknee._engine.layout import Halves
from softknee._engine.select import evaluate

fake = pytest.importorskip(
    "torch.testing._internal.distributed.fake_pg", reason="needs a PyTorch with torch.distributed"
)


@pytest.fixture
def mesh():
    """Two processes, of which this is the first; what would come from the other is left as it is."""
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,))
    distributed.destroy_process_group()


def of_whole(x, mesh, dim):
    """The DTensor of which this process has `x`."""
    from torch.distributed.tensor import DTensor, Shard

    return DTensor.from_local(x, mesh, [Shard(dim)])


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per channel"])
def test_each_process_evaluates_its_part_of_both(mesh, dim, per_channel):
    """Even where they are cut along the channels, which no halves of one tensor allow."""
    plan, inputs = plan_for(Halves(True, False), per_channel=per_channel), (normal(6, 8), normal(6, 8, seed=2))
    leaves = [one.detach().requires_grad_() for one in inputs]
    values = parameters_for(plan, 16 if dim else 8)
    y = evaluate(plan, tuple(of_whole(one, mesh, dim) for one in leaves), values, 1, "fused")
    assert y.shape == ((6, 16) if dim else (12, 8))
    assert [place.is_shard(dim) for place in y.placements] == [True]
    got = [y.to_local(), *torch.autograd.grad(y.to_local().square().sum(), leaves)]
    wide = [one.detach().double().requires_grad_() for one in inputs]
    own = [value[:8].double() for value in values]
    wanted = evaluate(plan, tuple(wide), own, 1, "eager")
    for one, other in zip(got, [wanted, *torch.autograd.grad(wanted.square().sum(), wide)], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_parts_are_evaluated_by_kernels(mesh):
    module, x = nn.SwiGLU(per_channel=16, engine="fused"), normal(6, 8)
    assert module.engine_for(of_whole(x, mesh, 1), of_whole(x, mesh, 1)) == "fused"


def test_values_are_cut_as_gates_are(mesh):
    from torch.distributed.tensor import DTensor, Replicate

    gate, value = normal(6, 4), normal(6, 8, seed=2)
    y = nn.SwiGLU(engine="fused")(of_whole(gate, mesh, 1), DTensor.from_local(value, mesh, [Replicate()]))
    torch.testing.assert_close(y.to_local(), torch.nn.functional.silu(gate) * value[:, :4])
