"""Activations of DTensors, and tensor parallel layers around them."""

from __future__ import annotations

import pytest
import torch
from networks import (
    ATOL,
    CASES,
    FEATURES,
    RTOL,
    WIDTH,
    WORLD,
    Network,
    activation,
    assert_same,
    batch,
    loss_of,
    named,
    reference,
    whole,
)
from torch import distributed, nn

import softknee as sk
from softknee.nn.options import needs_channels

# How an input lies in the two processes: uncut, cut by rows or columns, or as two summands.
PLACES = ("replicated", "rows", "columns", "summands")
# How parameters do: as if there were one process, as DTensors, or cut along the channels.
PARAMETERS = ("plain", "replicated", "cut")


def mesh_of_two():
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (WORLD,), mesh_dim_names=("tp",))


def distribute(module, how, mesh):
    """Make DTensors of a module's parameters."""
    from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor

    def cut(_, one, mesh):
        for name, value in [*one.named_parameters(recurse=False)]:
            places = [Shard(value.dim() - 1) if how == "cut" else Replicate()]
            one.register_parameter(name, nn.Parameter(distribute_tensor(value.detach(), mesh, places)))

    return module if how == "plain" else distribute_module(module, mesh, cut)


def distributed_input(x, place, mesh):
    """A DTensor whose whole is `x`, as a leaf."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    if place == "summands":
        part = x * (0.25 + 0.5 * distributed.get_rank())
        return DTensor.from_local(part, mesh, [Partial()], run_check=False).requires_grad_()
    places = {"replicated": Replicate(), "rows": Shard(0), "columns": Shard(1)}
    return distribute_tensor(x, mesh, [places[place]]).requires_grad_()


def outcome(module, x):
    """Value, gradients and the gradient of a second order in `x`."""
    y = module(x)
    parameters = [*module.parameters()]
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(slope.square().sum(), x, retain_graph=True)
    for parameter in parameters:
        parameter.grad = None
    y.square().sum().backward()
    return [whole(one) for one in (y.detach(), slope.detach(), *second, *(one.grad for one in parameters))]


def check_activation(rank, case, place, how, size):
    module = distribute(activation(case), how, mesh_of_two())
    x = 2 * torch.randn(size, 8, generator=torch.Generator().manual_seed(4))
    with sk.engine("eager"):
        wanted = outcome(activation(case), x.clone().requires_grad_())
    got = outcome(module, distributed_input(x, place, mesh_of_two()))
    for number, (one, other) in enumerate(zip(got, wanted, strict=True)):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale, msg=named(f"{number}"))
    for parameter in module.parameters():
        assert type(parameter.grad) is type(parameter.data), "gradients are kept as their parameters are"
        if how != "plain":
            assert parameter.grad.placements == parameter.placements


@pytest.mark.parametrize("how", PARAMETERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("place", PLACES)
def test_values_and_gradients_are_those_of_one_process(pair, case, place, how):
    pair(check_activation, case, place, how, 6)


@pytest.mark.parametrize("case", ["scalar", "vector-per-channel", "table", "gated"])
@pytest.mark.parametrize("size", [1, 5])
def test_parts_of_different_sizes(pair, case, size):
    pair(check_activation, case, "rows", "plain", size)


def check_engines(rank):
    """The parts are evaluated by the engines, not operation by operation."""
    x = distributed_input(torch.randn(4, 4096), "columns", mesh_of_two())
    for name, options, engine in (
        ("mish", {}, "fused"),
        ("swiglu", {"interleaved": True, "engine": "fused"}, "fused"),
        ("swish", {"per_channel": 4096}, "fused"),
        ("staf", {"engine": "table"}, "table"),
        ("swish", {"engine": "eager"}, "eager"),
    ):
        assert sk.create(name, **options).engine_for(x) == engine


def test_parts_are_evaluated_by_engines(pair):
    pair(check_engines)


def check_memory_formats(rank):
    from torch.distributed.tensor import DTensor, Shard

    part = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    for dim, per_channel in ((0, 4), (1, 8)):
        images = DTensor.from_local(part, mesh_of_two(), [Shard(dim)])
        y = sk.create("prelu", per_channel=per_channel)(images)
        assert y.stride() == images.stride()
        assert y.to_local().stride() == part.stride()
        torch.testing.assert_close(y.to_local(), torch.nn.functional.leaky_relu(part, 0.25))


def test_memory_formats_stay(pair):
    pair(check_memory_formats)


def check_two_dimensions(rank):
    """A mesh of data and tensor parallel, one of them of a single process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    x = 2 * torch.randn(6, 8, generator=torch.Generator().manual_seed(4))
    for shape in ((1, 2), (2, 1)):
        for case in ("scalar", "vector-per-channel"):
            mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
            with sk.engine("eager"):
                wanted = outcome(activation(case), x.clone().requires_grad_())
            got = outcome(activation(case), distribute_tensor(x, mesh, [Shard(0), Shard(1)]).requires_grad_())
            for one, other in zip(got, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_meshes_of_two_dimensions(pair):
    pair(check_two_dimensions)


def check_numbers_of_channels(rank):
    """A function of the channel's number knows it in every part."""
    module, x = sk.create("brelu"), torch.randn(4, 6)
    distributed.broadcast(x, 0)
    for place in ("rows", "columns", "summands"):
        torch.testing.assert_close(module(distributed_input(x, place, mesh_of_two())).full_tensor(), module(x))


def test_functions_of_the_channels_number(pair):
    pair(check_numbers_of_channels)


def check_retained(rank):
    """No gradient that somebody keeps is written over."""
    module = sk.create("mish", engine="fused")
    x = distributed_input(torch.ones(4, 8), "columns", mesh_of_two())
    y = module(x)
    y.retain_grad()
    z = 3 * y
    z.retain_grad()
    z.sum().backward()
    assert torch.equal(y.grad.full_tensor(), torch.full((4, 8), 3.0))
    assert torch.equal(z.grad.full_tensor(), torch.ones(4, 8))


def test_gradients_that_are_kept_stay(pair):
    pair(check_retained)


class Summed(torch.autograd.Function):
    """Layers written by hand sum gradients like this; what they pass on is still on its way."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return torch.distributed._functional_collectives.all_reduce(g, "sum", distributed.group.WORLD)


def check_gradient_on_its_way(rank, engine, channels_last):
    x = torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(4))
    x = (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()
    act = sk.create("swish", engine=engine)
    Summed.apply(act(x)).sum().backward()
    got, x.grad = [x.grad, act.beta.grad], None
    wanted = sk.create("swish", engine="eager")
    (WORLD * wanted(x)).sum().backward()
    for one, other in zip(got, [x.grad, wanted.beta.grad], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("engine", ["fused", "table"])
def test_gradients_that_are_on_their_way(pair, engine, channels_last):
    pair(check_gradient_on_its_way, engine, channels_last)


def check_compiled(rank, case):
    torch._dynamo.reset()
    module = activation(case)
    x = distributed_input(batch() @ torch.ones(FEATURES, 8), "columns", mesh_of_two())
    wanted = module(x)
    by_wanted = torch.autograd.grad(wanted.square().sum(), [x, *module.parameters()])
    got = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    by_got = torch.autograd.grad(got.square().sum(), [x, *module.parameters()])
    for one, other in zip([got, *by_got], [wanted, *by_wanted], strict=True):
        torch.testing.assert_close(whole(one), whole(other), rtol=1e-3, atol=1e-4 * float(whole(other).abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["scalar", "vector-per-channel", "table", "gated"])
def test_compiled(pair, case):
    pair(check_compiled, case)


def parallelized(network, *, local):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {"up": ColwiseParallel(use_local_output=local), "down": RowwiseParallel()}
    return parallelize_module(network, mesh_of_two(), plan)


def check_layers(rank, case, how):
    network, wanted = parallelized(Network(case), local=False), reference(case)
    distribute(network.act, how, mesh_of_two())
    loss_of(network(batch())).backward()
    assert_same(network, wanted)
    for one in (network, wanted):
        torch.optim.AdamW(sk.parameter_groups(one, 0.1), lr=0.05).step()
    assert_same(network, wanted)


@pytest.mark.parametrize("how", PARAMETERS)
@pytest.mark.parametrize("case", CASES)
def test_layers_cut_by_columns_and_rows(pair, case, how):
    pair(check_layers, case, how)


class Projections(nn.Module):
    """Gate and value by a layer each, as in Llama."""

    def __init__(self, per_channel):
        super().__init__()
        torch.manual_seed(1)
        self.gate, self.up, self.down = nn.Linear(FEATURES, WIDTH), nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, 4)
        self.act = sk.create("swiglu", trainable=True, per_channel=per_channel, engine="fused")

    def forward(self, x):
        return self.down(self.act(self.gate(x), self.up(x)))


def check_projections(rank, per_channel, how):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    network, wanted = Projections(per_channel), Projections(per_channel)
    cut, seen = ColwiseParallel(use_local_output=False), []
    parallelize_module(network, mesh_of_two(), {"gate": cut, "up": cut, "down": RowwiseParallel()})
    distribute(network.act, how, mesh_of_two())
    network.act.register_forward_hook(lambda _, inputs, y: seen.append([y.to_local().shape[-1], y.shape[-1]]))
    loss_of(network(batch())).backward()
    with sk.engine("eager"):
        loss_of(wanted(batch())).backward()
    assert_same(network, wanted)
    assert seen == [[WIDTH // WORLD, WIDTH]]


@pytest.mark.parametrize("how", PARAMETERS)
@pytest.mark.parametrize("per_channel", [None, WIDTH])
def test_gates_and_values_from_layers_of_their_own(pair, per_channel, how):
    pair(check_projections, per_channel, how)


def check_sequences(rank):
    """Inputs cut along the sequence, as normalizations take them."""
    from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module

    def make():
        torch.manual_seed(1)
        return nn.Sequential(nn.LayerNorm(FEATURES), sk.create("rational"), sk.create("swish", beta=0.7))

    x = torch.randn(2, 8, FEATURES, generator=torch.Generator().manual_seed(2))
    network, wanted = make(), make()
    parallelize_module(network, mesh_of_two(), {"0": SequenceParallel(), "2": SequenceParallel()})
    # The rational is given a DTensor by the normalization, the swish one by its own style.
    from torch.distributed.tensor import Shard, distribute_tensor

    y = network[2](network[1](network[0](distribute_tensor(x, mesh_of_two(), [Shard(1)]))))
    with sk.engine("eager"):
        loss_of(wanted(x)).backward()
    loss_of(y).backward()
    for (name, one), other in zip(network.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(whole(one.grad), other.grad, rtol=RTOL, atol=ATOL, msg=named(name))


def test_sequence_parallel(pair):
    pair(check_sequences)


# Other kinds than functions of single elements, and whether their parameters must be DTensors.
KINDS = {name: sk.get(name).kind == "contextual" for name in sk.list() if sk.get(name).kind in {"vector", "contextual"}}


def check_kind(rank, name, place):
    def make():
        torch.manual_seed(1)
        return sk.create(name, **({"channels": 8} if needs_channels(sk.get(name)) else {}))

    x = torch.randn((4, 8, 6, 6) if name == "frelu" else (4, 8), generator=torch.Generator().manual_seed(4))
    module, wanted = make(), make()
    if KINDS[name]:
        distribute(module, "replicated", mesh_of_two())
    results = []
    for one, given in ((module, distributed_input(x, place, mesh_of_two())), (wanted, x.requires_grad_())):
        y = one(given)
        # Not symmetrical: reflections and permutations would have no gradient.
        (y * y.new_tensor(0.5) + y**3).sum().backward()
        results.append([whole(found) for found in (y.detach(), given.grad, *(p.grad for p in one.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_of_activations(pair, name, place):
    if KINDS[name] and place in {"columns", "summands"}:
        pytest.skip("torch's own layers do not take it")
    pair(check_kind, name, place)


def check_local(rank):
    """With local tensors each process has the gradient of its own part, which somebody must sum."""
    network, wanted = parallelized(Network("scalar"), local=True), reference("scalar")
    loss_of(network(batch())).backward()
    assert not torch.allclose(network.act.beta.grad, wanted.act.beta.grad, rtol=0.01)
    for parameter in network.act.parameters():
        distributed.all_reduce(parameter.grad)
    assert_same(network, wanted)
    with pytest.raises(sk.UsageError, match="has parameters for 8 channels, got an input of shape"):
        parallelized(Network("per-channel"), local=True)(batch())


def test_local_tensors(pair):
    pair(check_local)


def check_noise(rank, how):
    """Replicated inputs get the same noise everywhere; slopes are those of the values."""
    module = distribute(sk.create("prob_act", sigma=0.3), how, mesh_of_two()).train()
    torch.manual_seed(7)
    x = distributed_input(torch.randn(64, 8, generator=torch.Generator().manual_seed(4)), "replicated", mesh_of_two())
    y = module(x)
    mine = y.to_local().detach()
    others = [torch.empty_like(mine) for _ in range(WORLD)]
    distributed.all_gather(others, mine)
    assert torch.equal(*others)
    assert (mine - x.to_local().relu()).std() > 0
    y.sum().backward()
    sign = (mine - x.to_local().relu()) / whole(module.sigma.detach())
    torch.testing.assert_close(whole(module.sigma.grad), sign.sum().view(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["plain", "replicated"])
def test_noise_of_replicated_inputs(pair, how):
    pair(check_noise, how)
