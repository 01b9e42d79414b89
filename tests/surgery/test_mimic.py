from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee as sk

EXACT = [
    ("swish", nn.SiLU(), 1e-12),
    ("prelu", nn.ReLU(), 0.0),
    ("prelu", nn.LeakyReLU(0.2), 1e-7),
    ("pelu", nn.ELU(), 1e-12),
    ("x * (1 + erf(b*x)) / 2[b=0.5]", nn.GELU(), 1e-7),
    ("x * (1 + tanh(a*x + b*x**3)) / 2[a=0.7,b=0.03]", nn.GELU(approximate="tanh"), 1e-7),
]
CLOSE = [("rational", nn.GELU(), 5e-3), ("linear_spline[terms=64]", nn.Tanh(), 5e-3), ("swish", nn.GELU(), 0.03)]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(F.gelu(self.first(x)))


def network(activation, width=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), activation, nn.Linear(width, width), activation, nn.Linear(width, 3))


def example(rows=64):
    return 3 * torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("to", "original", "error"), EXACT + CLOSE)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_new_activation_begins_as_the_old_one(to, original, error, per_channel):
    model, x = network(original), example()
    before = model(x)
    places = sk.sites(model, x)
    model, report = sk.swap(model, to, like="original", example_inputs=x, per_channel=per_channel)
    grid = {site.name: torch.linspace(math.floor(site.low), math.ceil(site.high), 997) for site in places}
    for change in report.changed:
        new = model.get_submodule(change.path)
        points = grid[change.site.name]
        inputs = points[:, None].expand(-1, 16) if per_channel else points
        distance = (new(inputs) - original(inputs)).abs().max().item()
        # The stated error is of float64; float32 adds its own.
        assert distance <= change.error + 2e-6
        assert change.error <= error
    assert report.difference == (model(x) - before).abs().max().item()
    assert report.difference <= 4 * error + 1e-5
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_function_can_be_named_instead():
    model, report = sk.swap(network(nn.ReLU()), "swish", like="x * sigmoid(1.5 * x)", example_inputs=example())
    assert [change.error for change in report.changed] == pytest.approx([0, 0], abs=1e-8)
    for change in report.changed:
        assert model.get_submodule(change.path).beta.item() == pytest.approx(1.5)
    assert report.difference > 0.01


def test_a_function_in_the_code_is_imitated_too():
    model, x = Functional(), example()
    _, report = sk.swap(model, "x * (1 + erf(b*x)) / 2[b=0.5]", like="original", example_inputs=x)
    assert report.changed[0].site.how == "function"
    assert report.difference < 1e-6


def test_fine_tuning_starts_from_there():
    model, x = network(nn.GELU()), example()
    _, report = sk.swap(model, "rational", like="original", example_inputs=x, per_channel=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(sk.parameter_groups(model, weight_decay=0.0), lr=1e-3)
    model(x).square().mean().backward()
    optimizer.step()
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)]
    assert {change.path for change in report.changed} <= {name.rpartition(".")[0] for name in moved}


def test_each_trained_original_is_imitated_by_itself():
    model, x = network(nn.ReLU()), example()
    model[1], model[3] = nn.PReLU(init=0.1), nn.PReLU(init=0.4)
    _, report = sk.swap(model, "leaky_relu[trainable]", like="original", example_inputs=x)
    assert [model[index].negative_slope.item() for index in (1, 3)] == pytest.approx([0.1, 0.4])
    assert max(change.error for change in report.changed) < 1e-7


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("gelu", {}, "gelu has no trained parameters to fit"),
        (nn.PReLU, {}, "like needs a catalogued activation of single elements or a formula.* got PReLU"),
        ("swish", {"example_inputs": None}, "like needs the range of inputs at 1; give example_inputs"),
        ("swish", {"like": "reluu"}, "no activation named 'reluu'"),
    ],
)
def test_what_cannot_imitate_leaves_the_model_as_it_was(to, options, message):
    model = network(nn.ReLU())
    with pytest.raises(sk.UsageError, match=message):
        sk.swap(model, to, **{"like": "original", "example_inputs": example(), **options})
    assert isinstance(model[1], nn.ReLU)
    assert model[1] is model[3]


def test_what_is_no_function_of_single_elements_cannot_be_imitated():
    model = nn.Sequential(nn.Linear(6, 4), nn.PReLU(4), nn.Linear(4, 2))
    with pytest.raises(sk.UsageError, match="prelu at 1 is no function of single elements that could be imitated"):
        sk.swap(model, "swish", like="original", example_inputs=example())
