"""What is observed of activations, against float64 references; and that the model notices nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import softknee as sk
from softknee.integrations._histogram import EDGES
from softknee.integrations._observe import Observer, slope_of


def observed(model, x, *modules):
    observer = Observer({name: module for name, module in model.named_modules() if module in modules})
    observer.attach()
    try:
        model(x)
    finally:
        observer.detach()
    return observer.take()


def health_of(activation, x):
    (health,) = observed(nn.Sequential(activation), x, activation).values()
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
        # Stuck at -1 is not 0: nothing flows back, but something comes out.
        (nn.Tanh(), -1e4, 0.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_units_that_were_killed_are_dead(activation, bias, share):
    model = layer(12, [1, 5, 7], activation, bias)
    health = observed(model, torch.randn(64, 8), activation)["1"]
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
def test_units_are_channels_or_the_last_dimension(shape, units):
    health = health_of(nn.ReLU(), -torch.ones(shape))
    assert (health.units, health.dead) == (units, 1.0)
    assert health.units * health.samples == torch.Size(shape).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_numbers_agree_with_a_reference(dtype):
    x = (torch.randn(50, 40) * 4).to(dtype)
    health = health_of(nn.ReLU(), x)
    outputs = x.relu().double()
    assert health.zero == (outputs == 0).double().mean().item()
    assert_close(health.mean, outputs.mean().item())
    assert_close(health.std, outputs.std(correction=0).item())
    inputs = health.inputs
    assert_close(inputs.total, x.double().sum().item())
    assert_close(inputs.total_squares, x.double().square().sum().item())
    assert (inputs.minimum, inputs.maximum, inputs.count) == (x.min().item(), x.max().item(), x.numel())
    expected = torch.histogram(x.double().flatten(), torch.tensor(EDGES, dtype=torch.float64)).hist
    assert inputs.counts[1:-1] == tuple(expected.int().tolist())


def test_small_deviations_from_a_large_mean_are_seen():
    x = torch.randn(4096, 4, dtype=torch.float64) + 1e4
    assert_close(health_of(nn.ReLU(), x.float()).std, x.float().double().std(correction=0).item(), rtol=1e-6, atol=0)


def test_what_is_not_finite_is_counted_and_left_out():
    x = torch.tensor([[1.0, torch.nan], [3.0, torch.inf], [-torch.inf, 5.0]])
    health = health_of(nn.Softsign(), x)
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
    assert_close((added.total, added.total_squares), (whole.total, whole.total_squares))


def test_batches_of_one_step_are_as_one_batch():
    x = torch.randn(64, 8)
    activation = nn.ReLU()
    model = layer(12, [3], activation)
    observer = Observer({"1": activation})
    for part in x.split(10):
        observer.attach()
        model(part)
    observer.detach()
    (merged,), (whole,) = observer.take().values(), observed(model, x, activation).values()
    assert (merged.samples, merged.dead, merged.zero, merged.inputs.counts) == (
        whole.samples,
        whole.dead,
        whole.zero,
        whole.inputs.counts,
    )
    assert_close((merged.mean, merged.std), (whole.mean, whole.std))
    assert observer.take() == {}


def test_an_input_that_is_overwritten_was_seen_before():
    x = torch.randn(30, 4)
    assert health_of(nn.ELU(inplace=True), x.clone()) == health_of(nn.ELU(), x)


def test_calls_of_a_shared_activation_are_told_apart():
    shared = nn.ReLU()
    model = nn.Sequential(layer(6, [0, 1, 2], shared), nn.Linear(6, 4), shared)
    found = observed(model, torch.randn(64, 8), shared)
    assert {name: health.units for name, health in found.items()} == {"0.1": 6, "0.1#2": 4}
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
        observer = Observer({"act": model.block[1]})
        observer.attach()
        model(x).sum().backward()
        observer.detach()
        found.append(observer.take())
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    assert found[0] == found[1]
    assert found[1]["act"].samples == 7
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
        observer = Observer({str(number): each[number] for number in (2, 4, 5)} if observing else {})
        observer.attach()
        each(x).square().sum().backward()
        observer.detach()
        results.append(
            [torch.get_rng_state(), *each.state_dict().values(), *(parameter.grad for parameter in each.parameters())]
        )
    assert all(torch.equal(mine, its) for mine, its in zip(*results, strict=True))
    assert twin.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in twin.modules())
    assert set(observer.take()) == {"2", "4", "5"}


@pytest.mark.parametrize("inference", [torch.no_grad, torch.inference_mode])
def test_models_without_gradients_are_observed_as_well(inference):
    x = torch.randn(20, 8)
    activation = nn.GELU()
    model = layer(6, [0], activation)
    expected = observed(model, x, activation)
    observer = Observer({"1": activation})
    observer.attach()
    with inference():
        model(x[:9])
    observer.attach()
    model(x[9:])
    observer.detach()
    found = observer.take()["1"]
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
    observer = Observer({"1": activation})
    observer.attach()
    with NoReading():
        model(x).sum().backward()
    observer.detach()
    assert observer.take()["1"].samples == 16


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.compile])
def test_calls_that_are_not_the_models_own_are_left_out(transform):
    activation = nn.ReLU()
    observer = Observer({"act": activation})
    observer.attach()
    options = {"backend": "eager"} if transform is torch.compile else {}
    transform(activation, **options)(torch.randn(4, 3))
    observer.detach()
    assert observer.take() == {}


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
