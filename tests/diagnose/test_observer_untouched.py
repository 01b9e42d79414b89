"""A model that is observed notices nothing, and calls that are not its own are not counted."""

from __future__ import annotations

import copy

import pytest
import torch
from observing import Checkpointed, layer, observed, observer_of, taken
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import softknee as sk
from softknee._diagnose.units.observer import Observer
from softknee._diagnose.units.places import Target


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
