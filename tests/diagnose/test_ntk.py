from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from softknee._card.kernel import kernel
from softknee._diagnose.curvature import ntk as module
from softknee._diagnose.curvature.ntk import ntk
from softknee._errors import UsageError


def inputs(samples=6, width=4, seed=0):
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Scaled(nn.Module):
    """A linear layer in the parameterisation of kernels: `sigma W x / sqrt(fan in)`, W standard normal."""

    def __init__(self, fan_in, fan_out, square, generator):
        super().__init__()
        drawn = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64)
        self.weight, self.scale = nn.Parameter(drawn), math.sqrt(square / fan_in)

    def forward(self, x):
        return nn.functional.linear(x, self.weight * self.scale)


def test_t23_a_linear_layer_without_bias_has_the_gram_matrix_as_kernel_and_a_bias_adds_one():
    x = inputs()
    gram = x @ x.T
    assert torch.allclose(ntk(nn.Linear(4, 1, bias=False).double(), x).values, gram, atol=1e-14)
    assert torch.allclose(ntk(nn.Linear(4, 1).double(), x).values, gram + 1, atol=1e-14)
    # Every output has the same kernel and none moves another.
    logits = ntk(nn.Linear(4, 3, bias=False).double(), x, reduction="logit")
    assert torch.allclose(logits.values, torch.kron(gram, torch.eye(3).double()), atol=1e-14)
    assert torch.allclose(ntk(nn.Linear(4, 3, bias=False).double(), x).values, 3 * gram, atol=1e-14)


def test_t23_two_layer_relu_is_near_its_infinite_width_closed_form():
    # |x||y| (k1 + c k0) / d, with both layers trained and weights of variance 1 (sw2 = 1).
    x = inputs(4, 5)
    norms = x.norm(dim=1)
    c = (x @ x.T / norms[:, None] / norms).clamp(-1, 1)
    angle = torch.arccos(c)
    k0 = (math.pi - angle) / (2 * math.pi)
    k1 = (angle.sin() + (math.pi - angle) * c) / (2 * math.pi)
    exact = norms[:, None] * norms * (k1 + c * k0) / 5
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [
            ntk(nn.Sequential(Scaled(5, 512, 1, generator), nn.ReLU(), Scaled(512, 1, 1, generator)), x).values
            for _ in range(40)
        ]
    )
    assert torch.allclose(kernel("relu", x, 1, 1.0)[1], exact, rtol=1e-10)
    error = draws.std(0) / math.sqrt(40)
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()
    assert float(error.max()) < 0.025


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "erf", "gelu", "hardtanh", "silu"])
def test_t23_three_layers_of_width_1024_agree_with_the_recursion(name):
    functions = {
        "relu": torch.relu,
        "erf": torch.erf,
        "gelu": nn.functional.gelu,
        "hardtanh": nn.functional.hardtanh,
        "silu": nn.functional.silu,
    }
    x = inputs(4, 8, seed=1)
    _, exact = kernel(functions[name], x, depth=2, sigma_w2=1.5)
    generator = torch.Generator().manual_seed(2)

    class Layer(nn.Module):
        def forward(self, x):
            return functions[name](x)

    draws = []
    for _ in range(12):
        layers = [Scaled(a, b, 1.5, generator) for a, b in ((8, 1024), (1024, 1024), (1024, 1))]
        model = nn.Sequential(layers[0], Layer(), layers[1], Layer(), layers[2])
        draws.append(ntk(model, x).values)
    stacked = torch.stack(draws)
    # Entries of one kernel hang together, so it is judged by its trace and its sum. All ten comparisons of the five
    # functions pass in 95 % of all experiments if each may miss by 3.5 standard errors (Student's t with 12 draws).
    for read in (lambda k: k.diagonal(dim1=-2, dim2=-1).sum(-1), lambda k: k.sum((-2, -1))):
        values = read(stacked)
        assert abs(float(values.mean() - read(exact))) < 3.5 * float(values.std()) / math.sqrt(12)


def networks():
    torch.manual_seed(0)
    return {
        "perceptron": (nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)), torch.randn(5, 4)),
        "convolution": (
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.PReLU(), nn.Flatten(), nn.Linear(48, 2)),
            torch.randn(5, 1, 6, 6),
        ),
        "attention": (
            nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(24, 2)),
            torch.randn(3, 3, 8),
        ),
    }


def by_hand(model, x):
    """All gradients by autograd, sample by sample."""
    rows = []
    for one in x:
        for output in model(one[None])[0]:
            found = torch.autograd.grad(output, list(model.parameters()), retain_graph=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in found if g is not None]).double())
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


@pytest.mark.parametrize("name", ["perceptron", "convolution", "attention"])
def test_vmap_loop_and_groups_of_parameters_give_the_same_kernel(name, monkeypatch):
    model, x = networks()[name]
    model.eval()
    wanted = by_hand(model, x)
    scale = float(wanted.abs().max())
    found = ntk(model, [x[:2], x[2:]], reduction="logit")
    assert torch.allclose(found.values, wanted, atol=1e-5 * scale)
    count = found.outputs
    summed = wanted.view(len(x), count, len(x), count).diagonal(dim1=1, dim2=3).sum(-1)
    assert torch.allclose(ntk(model, x).values, summed, atol=1e-5 * scale)
    largest = max(one.numel() for one in model.parameters())
    small = ntk(model, [x], reduction="logit", budget=len(x) * count * largest * 12)
    assert torch.allclose(small.values, wanted, atol=1e-5 * scale)
    assert found.method == small.method == "vmap"
    monkeypatch.setattr(module, "vmap", lambda *_: 1 / 0)
    looped = ntk(model, [x], reduction="logit")
    assert looped.method == "loop"
    assert torch.allclose(looped.values, wanted, atol=1e-5 * scale)


def test_slopes_of_prelu_are_right_with_as_many_samples_as_outputs_and_wrong_gradients_are_noticed(monkeypatch):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 2)).double(), inputs(2)
    wanted = by_hand(model, x)
    assert torch.allclose(ntk(model, x, reduction="logit").values, wanted, rtol=1e-12)
    right = module._mapped
    monkeypatch.setattr(module, "_mapped", lambda *a, **k: {name: 1.01 * one for name, one in right(*a, **k).items()})
    found = ntk(model, x, reduction="logit")
    assert found.method == "loop"
    assert torch.allclose(found.values, wanted, rtol=1e-12)


class Branching(nn.Module):
    """Looks at its values, which vmap refuses, and runs a part again for gradients."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        hidden = checkpoint(lambda y: torch.tanh(self.first(y)), x.requires_grad_(), use_reentrant=True)
        return self.second(hidden) * (2 if float(x.detach().sum()) > 0 else 1)


def test_models_that_vmap_refuses_go_sample_by_sample():
    torch.manual_seed(0)
    model, x = Branching(), torch.randn(4, 4)
    frozen = [one.requires_grad for one in model.parameters()]
    found = ntk(model, x)
    assert found.method == "loop"
    signs = [2 if float(one.detach().sum()) > 0 else 1 for one in x]
    plain = nn.Sequential(model.first, nn.Tanh(), model.second)
    wanted = by_hand(plain, x).view(4, 2, 4, 2).diagonal(dim1=1, dim2=3).sum(-1)
    wanted = wanted * torch.tensor(signs)[:, None] * torch.tensor(signs)
    assert torch.allclose(found.values, wanted, rtol=1e-5)
    assert [one.requires_grad for one in model.parameters()] == frozen
    assert all(one.grad is None for one in model.parameters())


def test_training_mode_gradients_and_statistics_are_left_alone():
    model, x = networks()["convolution"]
    model.train()
    model(x).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [one.grad.clone() for one in model.parameters()]
    state = torch.get_rng_state()
    ntk(model, [x])
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(one.grad, grad) for one, grad in zip(model.parameters(), grads, strict=True))


def test_spectrum_condition_and_alignment():
    x = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    found = ntk(nn.Linear(3, 1, bias=False).double(), x)
    assert found.eigenvalues == pytest.approx((9, 4, 1))
    assert found.condition == pytest.approx(9)
    assert found.trace == pytest.approx(14)
    assert found.alignment is None
    doubled = ntk(nn.Linear(3, 1, bias=False).double(), torch.cat([x, x]))
    assert doubled.condition is None
    # Inputs that are their classes, one hot: the kernel is the targets' own.
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    one_hot = nn.functional.one_hot(labels).double()
    aligned = ntk(nn.Linear(3, 2, bias=False).double(), [(one_hot, labels)])
    assert aligned.alignment == pytest.approx(1)
    json.dumps(found.to_dict(), allow_nan=False)


def test_alignment_of_every_logit_apart_is_that_of_the_closed_form():
    # Theta = G (x) I; <HGH (x) I, y y'> = sum_k y_k' G y_k with centred columns.
    x, y = inputs(), inputs(width=2, seed=3)
    found = ntk(nn.Linear(4, 2, bias=False).double(), [(x, y)], reduction="logit")
    centred, targets = x - x.mean(0), y - y.mean(0)
    gram = centred @ centred.T
    wanted = torch.einsum("ik,ij,jk->", targets, gram, targets)
    wanted = wanted / (gram.norm() * math.sqrt(2) * targets.square().sum())
    assert found.alignment == pytest.approx(float(wanted))


def test_velocity_is_the_angle_the_kernel_turned_by():
    torch.manual_seed(0)
    x = inputs()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    before = ntk(model, x)
    assert before.velocity(before) == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        model[0].weight += 0.3 * torch.randn_like(model[0].weight)
    after = ntk(model, x)
    angle = torch.nn.functional.cosine_similarity(before.values.flatten(), after.values.flatten(), dim=0)
    assert before.velocity(after) == pytest.approx(1 - float(angle))
    with pytest.raises(UsageError, match="over the same samples"):
        before.velocity(ntk(model, inputs(seed=1)))


def test_named_targets_are_kept_from_the_model():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, values):
            return {"logits": self.linear(values)}

    found = ntk(Named(), [{"values": torch.randn(5, 4), "labels": torch.tensor([0, 1, 0, 1, 1])}])
    assert found.alignment is not None
    assert found.outputs == 2


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (nn.Linear(4, 2), {"reduction": "mean"}, "must be 'sum' or 'logit', got 'mean'"),
        (nn.Linear(4, 2), {"budget": 0}, "number of bytes, got 0"),
        (nn.Linear(4, 2), {"budget": 100}, r"the gradients of weight alone take 12 x 8 numbers, .* raise `budget`"),
        (nn.Linear(4, 2).requires_grad_(False), {}, "no parameter of the model requires gradients"),
        (nn.Linear(4, 2), {"outputs": lambda y: y.sum()}, r"`outputs` returned a tensor of shape \(\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(model, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        ntk(model, inputs().float(), **options)


def test_outputs_picks_some():
    model = nn.Linear(4, 300, bias=False).double()
    x = inputs()
    assert torch.allclose(ntk(model, x, outputs=lambda y: y[:, :1]).values, x @ x.T, atol=1e-14)


def test_of_many_outputs_some_are_taken_evenly_spaced():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 640)), torch.randn(5, 4)
    found, picked = ntk(model, x), ntk(model, x, outputs=lambda y: y[:, ::20])
    assert found.outputs == picked.outputs == 32
    assert torch.equal(found.values, picked.values)
