"""The interval of a Lipschitz constant: exact where it is known, and honest where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._card.function import function_of
from softknee._diagnose.flow.bounds import spectral_norm, steepest
from softknee._diagnose.flow.lipschitz import lipschitz
from softknee._errors import UsageError


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def norm(matrix):
    return torch.linalg.matrix_norm(matrix.detach().double(), 2).item()


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
def test_t25_one_linear_layer(shape):
    layer = nn.Linear(*shape)
    found = lipschitz(layer, [torch.randn(6, shape[0])], steps=100)
    assert found.high == pytest.approx(norm(layer.weight), rel=1e-6)
    assert found.low == pytest.approx(found.high, rel=1e-4)
    assert found.low <= found.high
    assert found.layers[0].norm == found.high


def test_t25_diagonal_layers():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
    with torch.no_grad():
        first.weight.copy_(torch.diag(torch.tensor([3.0, 1.0, -2.0, 0.5])))
        second.weight.copy_(torch.diag(torch.tensor([-2.0, 1.0, 1.0, 0.5])))
    found = lipschitz(nn.Sequential(first, second), [torch.randn(6, 4)])
    assert (found.low, found.high) == pytest.approx((6, 6), rel=1e-5)


def test_t25_a_linear_network_lies_within():
    model = nn.Sequential(*(nn.Linear(10, 10) for _ in range(4)))
    exact = norm(torch.linalg.multi_dot([layer.weight for layer in reversed(model)]))
    found = lipschitz(model, [torch.randn(6, 10)], steps=100)
    assert found.low == pytest.approx(exact, rel=1e-4)
    assert found.high == pytest.approx(math.prod(norm(layer.weight) for layer in model), rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (nn.ReLU(), 1.0),
        (nn.GELU(), 1.128904),
        (nn.SiLU(), 1.099839),
        (nn.Mish(), 1.088498),
        (nn.SELU(), 1.758099),
        (nn.Hardswish(), 1.5),
        (nn.Sigmoid(), 0.25),
        (nn.Softsign(), 1.0),
        (nn.ELU(inplace=True), 1.0),
        (nn.PReLU(4, init=1.5), 1.5),
    ],
)
def test_the_largest_slope_of_an_activation_is_its_bound(activation, slope):
    layer = nn.Linear(4, 4)
    found = lipschitz(nn.Sequential(layer, activation), [torch.randn(6, 4)])
    assert found.high / norm(layer.weight) == pytest.approx(slope, abs=1e-6)
    assert found.low <= found.high


def test_the_steepest_channel_counts():
    module = nn.PReLU(5)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, -2.5, 0.3, 1.0, 0.0]))
    assert steepest(function_of(module, channels=5)) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (2, 6, 6)),
        (nn.Conv2d(2, 4, 3, stride=2, groups=2), (2, 7, 7)),
        (nn.ConvTranspose1d(2, 3, 4, stride=2), (2, 5)),
        (nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 6)),
        (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
        (nn.Upsample(scale_factor=2), (2, 3, 3)),
        (nn.ZeroPad2d(1), (2, 3, 3)),
    ],
)
def test_linear_maps_are_bounded_as_the_maps_they_are(module, shape):
    x = torch.zeros(shape)
    jacobian = torch.autograd.functional.jacobian(lambda one: module(one[None]).flatten(), x)
    found = lipschitz(module, [torch.randn(3, *shape)], steps=200)
    exact = norm(jacobian.reshape(-1, x.numel()))
    assert found.high == pytest.approx(exact, rel=1e-3)
    assert found.high >= exact * (1 - 1e-6)
    assert found.low == pytest.approx(exact, rel=1e-2)


def test_the_spectral_norm_of_a_large_operator_is_resolved():
    matrix = torch.randn(300, 200, dtype=torch.float64)
    found = spectral_norm(lambda x: x @ matrix.T + 3, torch.zeros(1, 200, dtype=torch.float64), torch.Generator())
    assert found == pytest.approx(norm(matrix), rel=1e-3)
    assert found >= norm(matrix) * (1 - 1e-9)


def test_norms_in_eval_mode_are_factors():
    module = nn.BatchNorm1d(3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, -4.0, 2.0]))
        module.running_var.copy_(torch.tensor([1.0, 4.0, 0.25]))
    found = lipschitz(module, [torch.randn(6, 3)], steps=60)
    assert (found.low, found.high) == pytest.approx((4, 4), rel=1e-4)


def test_a_layer_norm_is_bounded_by_its_eps():
    module = nn.LayerNorm(6, eps=0.25)
    found = lipschitz(module, [1e-3 * torch.randn(6, 6)], steps=60)
    assert found.high == pytest.approx(2)
    assert found.low == pytest.approx(2, rel=1e-3)
    assert found.note == "layer_norm is only bounded by its eps"


class Residual(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.layer, self.join = nn.Linear(5, 5), join

    def forward(self, x):
        return self.join(x, self.layer(x))


@pytest.mark.parametrize(
    ("join", "bound"),
    [
        (lambda x, y: x + y, lambda s: 1 + s),
        (lambda x, y: 3 * x - 0.5 * y, lambda s: 3 + 0.5 * s),
        (lambda x, y: torch.add(x, y, alpha=5), lambda s: 5 * (1 + s)),
        (lambda x, y: torch.cat([x, y / 2], 1), lambda s: math.hypot(1, s / 2)),
        (lambda x, y: y.unsqueeze(1).expand(-1, 4, -1).flatten(1), lambda s: 2 * s),
        (lambda x, y: F.max_pool1d(y, 3, stride=1), lambda s: math.sqrt(3) * s),
        (lambda x, y: torch.softmax(y, 1), lambda s: s / 2),
        (lambda x, y: y.mean(1, keepdim=True), lambda s: s / math.sqrt(5)),
    ],
)
def test_branches_and_other_functions(join, bound):
    model = Residual(join)
    found = lipschitz(model, [torch.randn(6, 5)])
    assert found.high == pytest.approx(bound(norm(model.layer.weight)), rel=1e-5)
    assert 0 < found.low <= found.high


@pytest.mark.parametrize(("options", "windows"), [({}, 1), ({"stride": 1}, 3), ({"stride": 2, "dilation": 2}, 3)])
def test_a_maximum_counts_as_often_as_windows_have_it(options, windows):
    x = torch.zeros(1, 1, 21)
    x[..., 10] = 9.0
    found = lipschitz(nn.Sequential(nn.MaxPool1d(3, **options), nn.Flatten()), [x])
    assert found.high == pytest.approx(math.sqrt(windows))
    assert found.low >= math.sqrt(windows) * (1 - 1e-4)


class Attention(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.query, self.how = nn.Linear(4, 4), how

    def forward(self, x):
        if self.how == "fused":
            return F.scaled_dot_product_attention(self.query(x), x, x)
        return torch.softmax(self.query(x) @ x.transpose(1, 2), -1) @ x


@pytest.mark.parametrize("how", ["fused", "written out"])
def test_attention_has_no_bound(how):
    found = lipschitz(Attention(how), [torch.randn(3, 5, 4)])
    assert found.high is None
    assert found.note == "dot-product attention is not Lipschitz (Kim et al. 2021)"
    assert found.low > 0


@pytest.mark.parametrize(
    ("join", "note"),
    [
        (lambda x, y: x * y, "a product of two streams is not Lipschitz"),
        (lambda x, y: torch.cumsum(y, 1), "no bound is known for cumsum"),
        (lambda x, y: y[:, [0, 0, 0, 0]], "a list of places may take elements several times"),
        (lambda x, y: F.relu(y).square(), "is not Lipschitz"),
    ],
)
def test_says_why_there_is_no_bound(join, note):
    found = lipschitz(Residual(join), [torch.randn(3, 5)])
    assert found.high is None
    assert note in found.note
    assert found.to_dict()["high"] is None


@pytest.mark.parametrize(
    ("join", "high"),
    [
        (lambda x, y: x + torch.arange(5.0), 1.0),
        (lambda x, y: x * torch.zeros_like(x).add(3.0), 3.0),
        (lambda x, y: (x - x.new_ones(5)) / torch.tensor(0.5), 2.0),
    ],
)
def test_constants_count_as_such(join, high):
    found = lipschitz(Residual(join), [torch.randn(3, 5)])
    assert found.high == pytest.approx(high)
    assert not found.note


def test_what_was_not_seen_has_no_bound():
    model = Residual(lambda x, y: x + torch.from_numpy(2 * y.detach().numpy()))
    found = lipschitz(model, [torch.randn(3, 5)])
    assert (found.high, found.note) == (None, "a tensor comes from a function that was not seen")


class Masked(nn.Module):
    def forward(self, x, mask):
        return x * mask.float()


def test_masks_are_not_varied():
    found = lipschitz(Masked(), [((torch.randn(3, 5), torch.tensor([[True] * 5] * 3)),)])
    assert (found.high, found.note) == (None, "a factor comes from an input that is not varied")
    assert found.low == pytest.approx(1, rel=1e-4)


def test_activations_written_out_are_activations():
    model = Residual(lambda x, y: y * torch.sigmoid(y))
    found = lipschitz(model, [torch.randn(6, 5)])
    assert found.high == pytest.approx(1.099839 * norm(model.layer.weight), rel=1e-6)
    assert not found.note


def test_the_lower_end_is_the_jacobian_of_the_worst_sample():
    model, x = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 5)), torch.randn(6, 5)
    exact = max(norm(torch.autograd.functional.jacobian(model, one)) for one in x)
    found = lipschitz(model, [x[:2], x[2:]], steps=100)
    assert found.low == pytest.approx(exact, rel=1e-4)
    assert found.samples == 6


def test_tokens_cannot_be_varied():
    found = lipschitz(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4)), [torch.randint(0, 9, (3, 5))])
    assert (found.low, found.high, found.samples) == (None, None, 0)
    assert found.note.startswith("inputs are whole numbers")


def test_the_same_seed_gives_the_same_numbers_and_leaves_no_trace():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3))
    model.train()
    x, state = torch.randn(4, 1, 6, 6), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (lipschitz(model, [x], seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_refuses_no_steps():
    with pytest.raises(UsageError, match="steps must be a whole number of at least 1, got 0"):
        lipschitz(nn.Linear(2, 2), [torch.randn(2, 2)], steps=0)
