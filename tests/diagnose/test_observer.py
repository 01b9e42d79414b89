"""What is observed of activations, against float64 references; and that the model notices nothing."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee._diagnose.units.fused import collected, to_cpu
from softknee._diagnose.units.histogram import EDGES
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import Target, pick, picks_of, targets_of
from softknee._diagnose.units.slopes import slope_of, steepest
from softknee._diagnose.units.states import has_slopes, histogram, linear_r2, moments
from softknee._diagnose.units.sums import Sums, gathered, merged
from softknee._surgery.find import look
from softknee.integrations import ActivationRecorder


def observer_of(model, *modules, **options):
    targets = [Target(name, module, module) for name, module in model.named_modules() if module in modules]
    return Observer(model, targets, **options)


def taken(observer):
    return {name: plain(sums) for name, sums in collected(to_cpu(observer.take())).items()}


def plain(sums):
    outputs = moments(sums, "h")
    return SimpleNamespace(
        units=sums.units,
        samples=sums.n,
        dead=int((sums.parts["slope_counts"][0] == sums.slopes).sum()) / sums.units if has_slopes(sums) else None,
        zero=int(sums.parts["h_counts"][1].sum()) / (sums.n * sums.units),
        nonfinite=int(sums.parts["h_counts"][0].sum()) / (sums.n * sums.units),
        mean=outputs.mean,
        std=outputs.std,
        inputs=histogram(sums),
    )


# All values, and few that are summed together.
@pytest.fixture(params=[None, 10**6], ids=["all", "few"])
def values(request):
    return request.param


def observed(model, x, *modules, values=None):
    observer = observer_of(model, *modules, values=values)
    observer.attach()
    try:
        model(x)
    finally:
        observer.detach()
    return taken(observer)


def health_of(activation, x, values=None):
    (health,) = observed(nn.Sequential(activation), x, activation, values=values).values()
    return health


def layer(units, killed, activation, bias=-1e4):
    linear = nn.Linear(8, units)
    with torch.no_grad():
        linear.bias[killed] = bias
    return nn.Sequential(linear, activation)


@pytest.mark.parametrize(
    ("activation", "bias", "share"),
    [
        (nn.ReLU(), -1e4, 3 / 12),
        (nn.ReLU(inplace=True), -1e4, 3 / 12),
        (sk.nn.ReLU(), -1e4, 3 / 12),
        (sk.create("max(x, 0)"), -1e4, 3 / 12),
        # In float32 nothing comes through below -6.2, or -104.
        (nn.GELU(), -50.0, 3 / 12),
        (nn.SiLU(), -50.0, 0.0),
        (nn.SiLU(), -1e4, 3 / 12),
        (nn.LeakyReLU(), -1e4, 0.0),
        # Stuck at -1 is not silent, but nothing flows back.
        (nn.Tanh(), -1e4, 3 / 12),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_units_that_were_killed_are_dead(activation, bias, share, values):
    """T15, for several activations."""
    model = layer(12, [1, 5, 7], activation, bias)
    health = observed(model, torch.randn(64, 8), activation, values=values)["1"]
    assert (health.units, health.samples, health.dead) == (12, 64, share)


def test_a_unit_whose_outputs_are_zero_lives_if_its_slope_is_not():
    health = health_of(nn.Tanh(), torch.zeros(5, 3))
    assert (health.zero, health.dead) == (1.0, 0.0)


def test_a_unit_that_fires_once_lives():
    x = -torch.ones(100, 4)
    x[17, 2] = 1.0
    health = health_of(nn.ReLU(), x)
    assert health.dead == 3 / 4
    assert health.zero == 399 / 400


@pytest.mark.parametrize(
    ("shape", "units"),
    [((), 1), ((7,), 1), ((7, 3), 3), ((2, 5, 3), 3), ((2, 3, 4, 5), 3), ((2, 3, 2, 4, 5), 3), ((1, 3, 1, 2, 1, 2), 3)],
)
def test_units_are_channels_or_the_last_dimension(shape, units, values):
    health = health_of(nn.ReLU(), -torch.ones(shape), values)
    assert (health.units, health.dead) == (units, 1.0)
    assert health.units * health.samples == torch.Size(shape).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_numbers_agree_with_a_reference(dtype, values):
    x = (torch.randn(50, 40) * 4).to(dtype)
    health = health_of(nn.ReLU(), x, values)
    outputs = x.relu().double()
    assert health.zero == (outputs == 0).double().mean().item()
    assert_close(health.mean, outputs.mean().item(), rtol=1e-6, atol=0)
    assert_close(health.std, outputs.std(correction=0).item(), rtol=1e-6, atol=0)
    inputs = health.inputs
    assert_close(inputs.total, x.double().sum().item(), rtol=1e-5, atol=1e-4)
    assert_close(inputs.total_squares, x.double().square().sum().item(), rtol=1e-6, atol=0)
    assert (inputs.minimum, inputs.maximum, inputs.count) == (x.min().item(), x.max().item(), x.numel())
    expected = torch.histogram(x.double().flatten(), torch.tensor(EDGES, dtype=torch.float64)).hist
    assert inputs.counts[1:-1] == tuple(expected.int().tolist())


def test_t29_small_deviations_from_a_large_mean_are_seen():
    x = torch.randn(4096, 4, dtype=torch.float64) + 1e4
    assert_close(health_of(nn.ReLU(), x.float()).std, x.float().double().std(correction=0).item(), rtol=1e-6, atol=0)


def test_what_is_not_finite_is_counted_and_left_out(values):
    x = torch.tensor([[1.0, torch.nan], [3.0, torch.inf], [-torch.inf, 5.0]])
    health = health_of(nn.Softsign(), x, values)
    # Softsign of an infinite number is not a number.
    assert health.nonfinite == 3 / 6
    assert_close(health.mean, (1 / 2 + 3 / 4 + 5 / 6) / 3)
    assert (health.inputs.count, health.inputs.minimum, health.inputs.maximum) == (3, 1.0, 5.0)


def test_values_beyond_the_edges_and_on_them_are_counted():
    x = torch.tensor([-1e30, EDGES[0], 0.0, -0.0, EDGES[-1], 1e30])
    counts = health_of(nn.ReLU(), x).inputs.counts
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (1, 1, 2, 6)
    assert counts[1 + EDGES.index(0.0)] == 2


def test_histograms_of_parts_add_up_to_that_of_the_whole():
    x = torch.randn(60, 3)
    parts = [health_of(nn.ReLU(), part).inputs for part in x.split(17)]
    whole = health_of(nn.ReLU(), x).inputs
    added = sum(parts[1:], parts[0])
    assert added.counts == whole.counts
    assert (added.minimum, added.maximum) == (whole.minimum, whole.maximum)
    assert_close((added.total, added.total_squares), (whole.total, whole.total_squares), rtol=1e-6, atol=1e-4)


def test_batches_of_one_step_are_as_one_batch(values):
    x = torch.randn(64, 8)
    activation = nn.ReLU()
    model = layer(12, [3], activation)
    observer = observer_of(model, activation, values=values)
    for part in x.split(10):
        observer.attach()
        model(part)
    observer.detach()
    (together,), (whole,) = taken(observer).values(), observed(model, x, activation).values()
    assert (together.samples, together.dead, together.zero, together.inputs.counts) == (
        whole.samples,
        whole.dead,
        whole.zero,
        whole.inputs.counts,
    )
    assert_close((together.mean, together.std), (whole.mean, whole.std), rtol=1e-6, atol=1e-7)
    assert taken(observer) == {}


def test_an_input_that_is_overwritten_was_seen_before(values):
    x = torch.randn(30, 4)
    assert health_of(nn.ELU(inplace=True), x.clone(), values) == health_of(nn.ELU(), x)


def test_calls_of_a_shared_activation_are_told_apart():
    shared = nn.ReLU()
    model = nn.Sequential(layer(6, [0, 1, 2], shared), nn.Linear(6, 4), shared)
    found = observed(model, torch.randn(64, 8), shared)
    assert {name: health.units for name, health in found.items()} == {"0.1": 6, "0.1#1": 4}
    assert found["0.1"].dead == 3 / 6


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.block = layer(6, [0, 1], sk.nn.Swish())

    def forward(self, x):
        if self.reentrant is None:
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_run_again_for_the_backward_pass_is_not_counted(reentrant):
    torch.manual_seed(0)
    plain = Checkpointed(None)
    again = copy.deepcopy(plain)
    again.reentrant = reentrant
    found, gradients = [], []
    for model in (plain, again):
        x = torch.linspace(-3, 3, 56).reshape(7, 8).requires_grad_()
        observer = observer_of(model, model.block[1])
        observer.attach()
        model(x).sum().backward()
        observer.detach()
        found.append(taken(observer))
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    assert found[0] == found[1]
    assert found[1]["block.1"].samples == 7
    assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("inplace", [False, True])
def test_the_model_notices_nothing(inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(inplace),
        nn.Linear(16, 4),
        sk.nn.Swish(),
        nn.RReLU(),
        nn.Dropout(),
    )
    twin = copy.deepcopy(model)
    x = torch.randn(32, 8)
    results = []
    for each, observing in ((model, False), (twin, True)):
        torch.manual_seed(1)
        observer = observer_of(each, *([each[number] for number in (2, 4, 5)] if observing else []), gradients=True)
        observer.attach()
        each(x).square().sum().backward()
        observer.detach()
        results.append(
            [torch.get_rng_state(), *each.state_dict().values(), *(parameter.grad for parameter in each.parameters())]
        )
    assert all(torch.equal(mine, its) for mine, its in zip(*results, strict=True))
    assert twin.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in twin.modules())
    assert set(taken(observer)) == {"2", "4", "5"}


@pytest.mark.parametrize("inference", [torch.no_grad, torch.inference_mode])
def test_models_without_gradients_are_observed_as_well(inference):
    x = torch.randn(20, 8)
    activation = nn.GELU()
    model = layer(6, [0], activation)
    expected = observed(model, x, activation)
    observer = observer_of(model, activation)
    observer.attach()
    with inference():
        model(x[:9])
    observer.attach()
    model(x[9:])
    observer.detach()
    found = taken(observer)["1"]
    assert (found.dead, found.samples, found.inputs.counts) == (
        expected["1"].dead,
        expected["1"].samples,
        expected["1"].inputs.counts,
    )


class NoReading(TorchDispatchMode):
    """Raises where the program would have to wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in {"_local_scalar_dense", "nonzero", "equal", "masked_select"}
        assert function is not torch.ops.aten.index.Tensor
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.GELU(), sk.nn.Swish(), sk.nn.STAF(terms=3)])
def test_hooks_never_wait_for_a_device(activation):
    x = torch.randn(16, 8)
    model = layer(6, [0], activation)
    observer = observer_of(model, activation)
    observer.attach()
    with NoReading():
        model(x).sum().backward()
    observer.detach()
    assert taken(observer)["1"].samples == 16


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.compile])
def test_calls_that_are_not_the_models_own_are_left_out(transform):
    activation = nn.ReLU()
    observer = Observer(activation, [Target("act", activation, activation)])
    observer.attach()
    options = {"backend": "eager"} if transform is torch.compile else {}
    transform(activation, **options)(torch.randn(4, 3))
    observer.detach()
    assert taken(observer) == {}


@pytest.mark.parametrize("name", ["silu", "snake", "relu", "gelu", "prelu"])
def test_slopes_are_those_of_autograd_in_float64(name):
    activation = sk.create(name)
    x = torch.linspace(-4, 4, 203)
    points = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(activation.double()(points).sum(), points)
    assert_close(slope_of(activation.float(), x), expected.float(), rtol=1e-5, atol=1e-6)


def test_a_function_without_a_derivative_is_flat():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    assert_close(slope_of(Constant(), torch.ones(3)), torch.zeros(3))
    assert health_of(Constant(), torch.ones(4, 3)).dead == 1.0


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


@pytest.mark.parametrize("shape", [(64, 16, 8, 8), (128, 256), (5, 300, 4), (3, 2, 5)])
@pytest.mark.parametrize("most", [1, 32, 1000])
def test_each_unit_has_as_many_values_and_others_at_another_turn(shape, most):
    axis = len(shape) - 1 if len(shape) == 3 else 1
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    chosen = [pick(x, picks_of(x, axis, most, turn)) for turn in range(3)]
    for one in chosen:
        assert one.shape[axis] == shape[axis]
        assert 1 <= one.numel() // shape[axis] <= most
        assert one.unique().numel() == one.numel()
    if x.numel() // shape[axis] > 2 * most:
        assert not torch.equal(chosen[0], chosen[1])


def test_steepest_slopes_are_found_for_each_unit():
    like = torch.empty(1, 3, 1, 1)
    prelu = nn.PReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.5, 2.0, -3.0]))
    assert steepest(prelu, like, 1).flatten().tolist() == [1.0, 2.0, 3.0]
    assert_close(steepest(nn.Tanh(), like, 1), torch.ones(1, 1, 1))
    # At sqrt(2), within what a grid can tell.
    assert_close(steepest(nn.GELU(), like, 1).item(), 1.128904, rtol=1e-4, atol=0)


class Written(nn.Module):
    """Two layers with an activation between, written in several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first, self.second, self.third = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(6, 4)
        self.act = nn.ReLU(inplace=how == "in place")
        self.other = nn.ReLU() if how == "module" else self.act

    def activated(self, x, act):
        calls = {
            "function": F.relu,
            "method": torch.Tensor.relu,
            "function in place": lambda z: F.relu(z, inplace=True),
        }
        return calls.get(self.how, act)(x)

    def block(self, x):
        return self.activated(self.second(self.activated(self.first(x), self.act)), self.other)

    def forward(self, x):
        if self.how in {"reentrant", "not reentrant"}:
            return self.third(checkpoint(self.block, x, use_reentrant=self.how == "reentrant"))
        return self.third(self.block(x))


WAYS = ["module", "shared", "in place", "function", "method", "function in place", "reentrant", "not reentrant"]


def seen_of(how, values):
    torch.manual_seed(0)
    model = Written(how)
    with torch.no_grad():
        model.first.bias[:3] = -1e4
    x = torch.linspace(-3, 3, 160).reshape(20, 8).sin().requires_grad_()
    targets = targets_of(look(model, (x[:4],), {}), model)
    observer = Observer(model, targets, values=values, gradients=True)
    observer.attach()
    for part in x.split(11):
        observer.begin()
        observer.open()
        y = model(part)
        observer.close()
        y.square().sum().backward()
    observer.detach()
    return list(collected(to_cpu(observer.take())).values())


@pytest.mark.parametrize("how", WAYS[1:])
def test_t31_the_same_numbers_however_it_is_written(how, values):
    expected, found = seen_of("module", values), seen_of(how, values)
    assert len(found) == 2
    assert [one.units for one in found] == [12, 6]
    for mine, its in zip(found, expected, strict=True):
        assert (mine.n, mine.slopes) == (its.n, its.slopes) == (20, 20)
        if how == "reentrant":
            # One block for several activations: which one runs again is not known, and its first run had no gradients.
            assert mine.gradients == 0
        for name, part in mine.parts.items():
            assert_close(part, its.parts[name])
    assert int((found[0].parts["slope_counts"][0] == 20).sum()) >= 3


def test_gradients_of_a_reentrant_checkpoint_are_seen_where_its_activation_is_its_own():
    torch.manual_seed(0)
    plain_model = Checkpointed(None)
    again = copy.deepcopy(plain_model)
    again.reentrant = True
    rows = []
    for model in (plain_model, again):
        x = torch.linspace(-3, 3, 56).reshape(7, 8).requires_grad_()
        observer = Observer(model, targets_of(look(model, (x,), {}), model), values=100, gradients=True)
        observer.attach()
        model(x).square().sum().backward()
        observer.detach()
        (sums,) = collected(to_cpu(observer.take())).values()
        assert sums.gradients == 7
        rows.append(sums.parts["grad_sums"])
    assert_close(rows[0], rows[1])


def test_a_gated_pair_is_its_gate_and_the_output_of_its_activation(values):
    class SwiGLU(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up = nn.Linear(6, 10), nn.Linear(6, 10)

        def forward(self, x):
            return F.silu(self.gate(x)) * self.up(x)

    model, x = SwiGLU(), torch.randn(30, 6)
    (target,) = targets = targets_of(look(model, (x,), {}), model)
    observer = Observer(model, targets, values=values)
    observer.attach()
    observer.open()
    model(x)
    observer.close()
    (found,) = taken(observer).values()
    assert target.site.role == "pair"
    z = model.gate(x).double()
    assert_close(found.inputs.total, z.sum().item(), rtol=1e-6, atol=1e-6)
    assert_close(found.mean, F.silu(z).mean().item(), rtol=1e-5, atol=1e-7)


def test_outputs_of_another_shape_have_no_slopes_and_units_of_their_own(values):
    found = health_of(nn.GLU(), torch.randn(9, 8), values)
    assert (found.units, found.samples, found.dead, found.inputs.count) == (4, 9, None, 72)


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
