"""Fully sharded data parallel: parameters are cut, also those with a single entry."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import CASES, WORLD, Network, assert_trains_as, batch, loss_of, named, optimizer_of, reference, whole
from torch import distributed, nn

import softknee as sk


def sharded(network, **options):
    """A network cut into its layers."""
    from torch.distributed.fsdp import fully_shard

    for layer in network.children():
        fully_shard(layer, **options)
    return fully_shard(network, **options)


def check_step(rank, case):
    assert_trains_as(sharded(Network(case)), Network(case), rank)


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_a_step_are_those_of_one_process(pair, case):
    pair(check_step, case)


def check_mixed_precision(rank, case):
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    network = sharded(Network(case), mp_policy=policy)
    seen = []
    network.act.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].dtype, module._values())))
    loss_of(network(batch().chunk(WORLD)[rank])).backward()
    (dtype, values) = seen[0]
    assert dtype == torch.bfloat16
    assert all(value.dtype == torch.bfloat16 for value in values if isinstance(value, nn.Parameter))
    # The same by hand: gradients of low copies, one for each half of the batch, meet in float32.
    low = [copy.deepcopy(Network(case)) for _ in range(WORLD)]
    for one, part in zip(low, batch().chunk(WORLD), strict=True):
        for parameter in one.parameters():
            parameter.data = parameter.bfloat16()
        loss_of(one(part.bfloat16())).backward()
    for (name, parameter), *parts in zip(network.named_parameters(), *(one.parameters() for one in low), strict=True):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        mean = torch.stack([part.grad.float() for part in parts]).mean(0)
        torch.testing.assert_close(whole(parameter.grad), mean, rtol=1e-6, atol=1e-7, msg=named(name))
    optimizer_of(network).step()
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("case", ["scalar", "vector-per-channel", "table", "gated-per-channel"])
def test_low_precision_with_masters_in_float32(pair, case):
    pair(check_mixed_precision, case)


def check_checkpoints(rank, case, folder):
    from torch.distributed.checkpoint import load, save
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

    network = sharded(Network(case))
    loss_of(network(batch())).backward()
    optimizer_of(network).step()
    y = network(batch())
    full = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    save({"model": get_model_state_dict(network)}, checkpoint_id=folder)
    if rank == 0:
        plain = Network(case)
        plain.load_state_dict(full)
        torch.testing.assert_close(plain(batch()), y, rtol=1e-5, atol=1e-6)
    fresh = sharded(Network(case))
    assert not torch.allclose(fresh(batch()), y)
    state = {"model": get_model_state_dict(fresh)}
    load(state, checkpoint_id=folder)
    set_model_state_dict(fresh, state["model"])
    assert torch.equal(fresh(batch()), y)


@pytest.mark.parametrize("case", ["scalar", "vector-per-channel", "table-per-channel", "fixed-per-channel"])
def test_checkpoints_of_two_processes_are_read_by_one(pair, case, tmp_path):
    from torch.distributed.checkpoint import load

    pair(check_checkpoints, case, str(tmp_path))
    network, wanted = Network(case), reference(case)
    optimizer_of(wanted).step()
    state = {"model": network.state_dict()}
    load(state, checkpoint_id=str(tmp_path), no_dist=True)
    network.load_state_dict(state["model"])
    torch.testing.assert_close(network(batch()), wanted(batch()), rtol=1e-4, atol=1e-4)


def check_print(rank):
    """One process alone prints the model, which must not wait for the other."""
    network = sharded(Network("table"))
    if rank == 0:
        assert "bspline" in repr(network).lower()
        assert "coefficients=<" in repr(network.act)
        assert network.act.engine == "table"
        assert "beta=<1>" in repr(sharded(Network("scalar").act))
        assert "engine=auto" in repr(sharded(Network("gated").act))
    distributed.barrier()


def test_one_process_may_print_the_model(pair):
    pair(check_print)


def check_meta(rank, case):
    """Nothing has memory before it is sharded; then all start from the first process's values."""
    with torch.device("meta"):
        network = Network(case)
    sharded(network)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    torch.manual_seed(rank)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    name, options = CASES[case]
    plain = sk.create(name, **options)
    for key, value in plain.state_dict().items():
        ours = whole(network.act.state_dict()[key])
        if key == "coefficients":  # drawn
            assert ours.shape == value.shape
            assert 0.01 < ours.std() < 1
        else:
            torch.testing.assert_close(ours, value, rtol=0, atol=0, msg=named(key))
    assert torch.isfinite(network(batch())).all()


@pytest.mark.parametrize("case", CASES)
def test_models_made_without_memory(pair, case):
    pair(check_meta, case)


def check_drawn(rank):
    """Drawn values are the same everywhere, though every process has another seed."""
    with torch.device("meta"):
        network = nn.Sequential(sk.nn.STAF(terms=5))
    sharded(network)
    network.to_empty(device="cpu")
    torch.manual_seed(rank)
    network[0].reset_parameters()
    mine = torch.cat([whole(parameter.detach()).flatten() for parameter in network.parameters()])
    all_ = [torch.empty_like(mine) for _ in range(WORLD)]
    distributed.all_gather(all_, mine)
    assert torch.equal(*all_)
    assert mine.std() > 0


def test_drawn_parameters_agree(pair):
    pair(check_drawn)


def check_loaded(rank, case):
    """Made without memory, filled from a state dict that one process has."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    trained = reference(case)
    optimizer_of(trained).step()
    with torch.device("meta"):
        network = Network(case)
    sharded(network)
    network.to_empty(device="cpu")
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(network, trained.state_dict() if rank == 0 else {}, options=options)
    torch.testing.assert_close(network(batch()), trained(batch()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["scalar", "vector-per-channel", "fixed-per-channel"])
def test_models_made_without_memory_are_loaded(pair, case):
    pair(check_loaded, case)


def check_everything(rank):
    """Sharded, in low precision, with activation checkpointing, gradients accumulated over two batches."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    network, wanted = Network("vector-per-channel"), Network("vector-per-channel")
    network.act = checkpoint_wrapper(network.act)
    sharded(network, mp_policy=policy)
    for scale in (1.0, 0.5):
        loss_of(network(scale * batch().chunk(WORLD)[rank])).backward()
        loss_of(wanted(scale * batch())).backward()
    for one, other in zip(network.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(whole(one.grad), other.grad, rtol=0.1, atol=0.02 * float(other.grad.abs().max()))


def test_all_at_once(pair):
    pair(check_everything)
