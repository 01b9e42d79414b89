"""Gradients of every parameter: those of the whole sample, with distributions in which nothing is too small."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from softknee._diagnose.flow.distribution import Counter, distribution
from softknee._diagnose.flow.gradients import gradient_flow
from softknee._errors import UsageError
from softknee.nn import Swish


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def data(sizes=(16, 16, 5), features=6, classes=3):
    return [(torch.randn(size, features), torch.randint(0, classes, (size,))) for size in sizes]


def network():
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), Swish(trainable=True), nn.Linear(8, 3))
    )


def reference(model, batches):
    """The gradient of the mean loss of all samples at once."""
    x, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    loss = F.cross_entropy(model.eval()(x), target)
    parameters = dict(model.named_parameters())
    return float(loss.detach()), dict(zip(parameters, torch.autograd.grad(loss, parameters.values()), strict=True))


def test_the_gradient_is_that_of_the_whole_sample_and_of_every_parameter():
    model, batches = network(), data()
    loss, expected = reference(model, batches)
    found = gradient_flow(model, batches, "cross_entropy")
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.samples == 37
    assert {one.path for one in found.layers} == set(expected)
    for one in found.layers:
        gradient = expected[one.path]
        assert one.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-5)
        assert one.gradient.mean == pytest.approx(gradient.mean().item(), abs=1e-7)
        assert one.gradient.count == gradient.numel() == math.prod(one.shape)
        assert one.weight_norm == pytest.approx(dict(model.named_parameters())[one.path].norm().item(), rel=1e-6)


def test_says_what_each_parameter_is():
    rows = {one.path: one for one in gradient_flow(network(), data(), "cross_entropy").layers}
    kinds = {path: (one.module, one.kind) for path, one in rows.items()}
    assert kinds["0.weight"] == ("Linear", "weight")
    assert kinds["0.bias"] == ("Linear", "bias")
    assert kinds["1.weight"] == ("PReLU", "parameter")
    assert kinds["3.weight"] == ("BatchNorm1d", "parameter")
    assert kinds["4.beta"] == ("Swish", "parameter")
    assert all((one.output is not None) == (not path.endswith("bias")) for path, one in rows.items())


def test_outputs_are_those_of_the_module():
    model, batches = network(), data()
    found = {one.path: one for one in gradient_flow(model, batches, "cross_entropy").layers}["2.weight"].output
    outputs = model[:3](torch.cat([x for x, _ in batches])).detach()
    assert found.count == outputs.numel()
    assert found.mean == pytest.approx(outputs.mean().item(), abs=1e-6)
    assert found.std == pytest.approx(outputs.std(correction=0).item(), rel=1e-5)
    assert (found.min, found.max) == pytest.approx((outputs.min().item(), outputs.max().item()))
    assert sum(found.counts) == outputs.numel()


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_vanishing_and_exploding_gradients_show_from_layer_to_layer(factor):
    """Orthogonal layers scale gradients by just their factor; those of the weights are all alike, whatever it is."""
    model = nn.Sequential(*(nn.Linear(40, 40, bias=False) for _ in range(6)))
    for layer in model:
        nn.init.orthogonal_(layer.weight, gain=factor)
    batches = [(torch.randn(size, 40), torch.randn(size, 40)) for size in (20, 12)]
    found = gradient_flow(model, batches, lambda outputs, target: (outputs * target).sum(1).mean())
    assert [one.ratio for one in found.layers] == [*([pytest.approx(factor, rel=1e-4)] * 5), None]
    assert found.per_layer == pytest.approx(factor, rel=1e-4)
    last = torch.cat([target for _, target in batches]).norm() / 32
    assert found.layers[-1].output_gradient == pytest.approx(last.item(), rel=1e-5)
    norms = [one.gradient_norm for one in found.layers]
    assert max(norms) < 2 * min(norms)


def test_gradients_are_set_beside_weights():
    weight = gradient_flow(network(), data(), "cross_entropy").layers[0]
    assert weight.relative == pytest.approx(weight.gradient_norm / weight.weight_norm)


class Backwards(nn.Module):
    """Registers its layers in another order than it calls them."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(8, 3), nn.Linear(6, 8), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(torch.relu_(self.first(x)))


def test_layers_come_in_the_order_of_calls_and_what_did_not_run_has_no_gradient():
    found = gradient_flow(Backwards(), data(), "cross_entropy").layers
    assert [one.path for one in found[::2]] == ["first.weight", "last.weight", "idle.weight"]
    assert (found[4].gradient, found[4].output, found[4].gradient_norm, found[4].ratio) == (None,) * 4


def test_frozen_parameters_have_weights_but_no_gradient():
    model = network()
    model[0].weight.requires_grad_(requires_grad=False)
    row = gradient_flow(model, data(), "cross_entropy").layers[0]
    assert (row.trained, row.gradient) == (False, None)
    assert row.weight.count == 48


class Checkpointed(nn.Module):
    def __init__(self, inner, how):
        super().__init__()
        self.stem, self.inner, self.how = nn.Linear(6, 6), inner, how

    def forward(self, x):
        x = self.stem(x)
        return self.inner(x) if self.how is None else checkpoint(self.inner, x, use_reentrant=self.how)


@pytest.mark.parametrize("how", [True, False])
def test_t31_checkpoints_change_nothing(how):
    inner, batches = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)), data()
    model = Checkpointed(inner, None)
    plain = gradient_flow(model, batches, "cross_entropy").to_dict()
    model.how = how
    found = gradient_flow(model, batches, "cross_entropy").to_dict()
    for one, same in zip(plain["layers"], found["layers"], strict=True):
        assert one["path"] == same["path"]
        assert one["output"] == same["output"]
        assert same["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-6)
        assert same["ratio"] == (one["ratio"] and pytest.approx(one["ratio"], rel=1e-6))


def test_a_shared_weight_is_counted_once_with_all_that_reaches_it():
    layer = nn.Linear(6, 6, bias=False)
    model, x = nn.Sequential(layer, nn.Tanh(), layer), torch.randn(9, 6)
    (found,) = gradient_flow(model, [(x, torch.randn(9, 6))], "mse").layers
    assert found.output.count == 2 * x.numel()
    weight = layer.weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad((torch.tanh(x @ weight.T) @ weight.T).square().mean(), weight)
    torch.manual_seed(0)
    (found,) = gradient_flow(model, [(x, torch.zeros(9, 6))], "mse").layers
    assert found.gradient_norm == pytest.approx(gradient.norm().item(), rel=1e-5)


def test_gradients_of_1e_minus_8_are_seen():
    layer = nn.Linear(50, 50)
    x = torch.randn(64, 50)
    found = gradient_flow(layer, [(x, torch.zeros(64, 50))], lambda outputs, _: 1e-8 * outputs.square().mean()).layers[
        0
    ]
    assert found.gradient.scale < 1e-8
    assert found.gradient.zero == 0
    assert sum(count > 0 for count in found.gradient.counts) > 15


def test_what_is_not_finite_is_counted():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].bias[1] = math.inf
    found = gradient_flow(model, [(torch.randn(8, 6), torch.randn(8, 3))], "mse")
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.layers[1].weight.nonfinite == 0.25
    assert found.layers[0].output.nonfinite == 0.25
    assert found.layers[2].gradient.nonfinite > 0
    assert found.to_dict()["loss"] is None


def test_half_precision_does_not_lose_what_small_batches_add():
    model = nn.Linear(4, 1, bias=False).to(torch.bfloat16)
    batches = [(torch.ones(1, 4, dtype=torch.bfloat16), torch.zeros(1, 1)) for _ in range(1000)]
    found = gradient_flow(model, batches, lambda outputs, _: outputs.mean()).layers[0]
    assert found.gradient_norm == pytest.approx(2.0, rel=1e-3)


def test_a_loss_is_needed():
    with pytest.raises(UsageError, match="the model returned no loss; give one"):
        gradient_flow(nn.Linear(6, 3), data())


def test_t30_everything_is_as_before():
    model, batches = network().train(), data()
    F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [one.grad.clone() for one in model.parameters()]
    state = torch.get_rng_state()
    gradient_flow(model, batches, "cross_entropy")
    with pytest.raises(IndexError):
        gradient_flow(model, [(x, target + 9) for x, target in batches], "cross_entropy")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(one.grad, grad) for one, grad in zip(model.parameters(), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_a_distribution_is_that_of_numpy():
    x = torch.cat([torch.randn(2000), torch.zeros(100), torch.tensor([math.nan, math.inf])]) * 3 + 1
    x[2000:2100] = 0
    found = distribution(x)
    kept = x[x.isfinite()].double()
    assert found.count == 2102
    assert found.zero == pytest.approx(100 / 2102)
    assert found.nonfinite == pytest.approx(2 / 2102)
    assert found.scale == pytest.approx(kept.square().mean().sqrt().item())
    assert found.std == pytest.approx(kept.std(correction=0).item())
    assert len(found.counts) == len(found.edges) + 1
    edges = torch.tensor([-math.inf, *found.edges, math.inf], dtype=torch.float64) * found.scale
    expected = [((kept >= low) & (kept < high)).sum().item() for low, high in itertools.pairwise(edges)]
    assert sum(abs(one - other) for one, other in zip(found.counts, expected, strict=True)) <= 4
    assert found.edges[20] == 0


def test_t29_parts_count_as_the_whole_does():
    x = 1e4 + torch.randn(3000, dtype=torch.float64)
    counter = Counter()
    for part in x.split([1000, 1, 1999]):
        counter.add(part)
    whole, found = distribution(x), counter.distribution()
    assert found.std == pytest.approx(x.std(correction=0).item(), rel=1e-9)
    assert (found.mean, found.scale) == pytest.approx((whole.mean, whole.scale), rel=1e-12)
    assert sum(found.counts) == 3000


@pytest.mark.parametrize("x", [torch.zeros(5), torch.empty(0), torch.full((3,), math.nan)])
def test_distributions_of_nothing(x):
    json.dumps(distribution(x).to_dict(), allow_nan=False)
    assert sum(distribution(x).counts) == int(x.isfinite().sum())
