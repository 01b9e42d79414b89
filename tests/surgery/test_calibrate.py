from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._bench.resnet import build_resnet20
from softknee._card.propagation import gain
from softknee._catalogue import create
from softknee._surgery.calibrate import calibrate
from softknee._surgery.swap import swap
from softknee.nn import SwiGLU

WIDTH, DEPTH = 1000, 10


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed))


def perceptron(make, *, width=64, depth=3, outputs=10):
    layers = [one for _ in range(depth) for one in (nn.Linear(width, width), make())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def outputs_of(model, x, kinds=(nn.Linear,)):
    """Standard deviations of the outputs of all layers, by plain hooks."""
    stds = []
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    hooks = [layer.register_forward_hook(lambda _, __, y: stds.append(y.std(correction=0).item())) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return stds


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def row(calibration, path):
    return next(layer for layer in calibration.layers if layer.path == path)


def reasons(calibration):
    return {one.path: one.reason for one in calibration.left}


# E[phi(z)^2] for normal z: He et al. 2015; Klambauer et al. 2017 make it 1; the others by independent quadrature.
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (nn.ReLU, math.sqrt(2)),
        (nn.Tanh, 1.592537),
        (nn.SELU, 1.0),
        (nn.GELU, 1.533530),
        (nn.SiLU, 1.676532),
        (lambda: create("swish", beta=1.0), 1.676532),
    ],
    ids=["relu", "tanh", "selu", "gelu", "silu", "swish"],
)
def test_the_signal_keeps_its_size_through_ten_layers(make, expected):
    model = perceptron(make, width=WIDTH, depth=DEPTH)
    x = normal(128, WIDTH)
    default = outputs_of(model, x)
    calibration = calibrate(model, x, generator=seeded())
    assert [layer.gain for layer in calibration.layers[1:]] == pytest.approx([expected] * DEPTH, abs=2e-6)
    stds = outputs_of(model, x)
    assert [layer.output_before for layer in calibration.layers] == pytest.approx(default, rel=1e-4)
    assert [layer.output_after for layer in calibration.layers] == pytest.approx(stds, rel=1e-4)
    assert default[DEPTH - 1] < 0.3
    # At width n the mean square of ReLU's signal does a random walk whose steps have variance 5 / n (Hanin 2018).
    for depth, std in enumerate(stds[:DEPTH]):
        assert abs(math.log(std)) < 3 * math.sqrt(5 * (depth + 1) / WIDTH) / 2 + 0.02


def test_weights_have_the_theoretical_variance_and_biases_are_zero():
    model = perceptron(nn.Tanh, width=400)
    x = 3 * normal(256, 400)
    calibration = calibrate(model, x, generator=seeded())
    first, *rest = calibration.layers
    assert first.fed_by == "input"
    assert first.gain == pytest.approx(1 / x.square().mean().sqrt().item(), rel=1e-5)
    for layer, module in zip(calibration.layers, model[::2], strict=True):
        assert layer.weight_after == pytest.approx(module.weight.std(correction=0).item(), rel=1e-5)
        assert layer.weight_after == pytest.approx(layer.gain / 20, rel=0.05)
        assert torch.equal(module.bias, torch.zeros_like(module.bias))
    assert {layer.fed_by for layer in rest} == {"tanh"}
    assert rest[0].gain == pytest.approx(gain(torch.tanh).forward)


class Functional(nn.Module):
    """Functions, in place too, an expression, weights of its own, an input of GPT-2's kind, a gated pair."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(512, 64))
        self.shift = nn.Parameter(torch.randn(512))
        self.second = nn.Parameter(torch.randn(512, 512))
        self.offset = nn.Parameter(torch.randn(512))
        self.third = nn.Parameter(torch.randn(512, 512))
        self.gate = nn.Linear(512, 512)
        self.up = nn.Linear(512, 512, bias=False)
        self.down = nn.Linear(512, 10)

    def forward(self, x):
        x = F.relu(F.linear(x, self.first, self.shift), inplace=True)
        x = torch.addmm(self.offset, x.view(-1, 512), self.second)
        x = (x * torch.sigmoid(x)) @ self.third
        x = x.unsqueeze(1).tanh().transpose(1, 2).squeeze(2)
        return self.down(F.silu(self.gate(x)) * self.up(x))


def test_functions_expressions_and_gated_pairs_are_followed():
    model = Functional()
    calibration = calibrate(model, normal(256, 64), generator=seeded())
    silu = gain(F.silu).forward
    assert [(layer.path, layer.fed_by) for layer in calibration.layers] == [
        ("first", "input"),
        ("second", "relu"),
        ("third", "silu"),
        ("gate", "tanh"),
        ("up", "tanh"),
        ("down", "silu * linear"),
    ]
    expected = [math.sqrt(2), silu, gain(torch.tanh).forward, gain(torch.tanh).forward, silu]
    assert [layer.gain for layer in calibration.layers[1:]] == pytest.approx(expected, rel=1e-5)
    assert all(abs(layer.output_after - 1) < 0.2 for layer in calibration.layers)
    assert not model.shift.any()
    assert not model.offset.any()


def test_slopes_per_channel_count_as_they_are():
    act = nn.PReLU(64)
    with torch.no_grad():
        act.weight.copy_(torch.linspace(-1, 1, 64))
    for make in (lambda: act, lambda: create("prelu", per_channel=64, slope=act.weight.tolist())):
        calibration = calibrate(perceptron(make, depth=1), normal(256, 64), generator=seeded())
        expected = ((1 + act.weight.square().mean()) / 2) ** -0.5
        assert calibration.layers[1].gain == pytest.approx(expected.item(), rel=5e-3)


@pytest.mark.parametrize("make", [lambda: SwiGLU(dim=-1), nn.GLU], ids=["swiglu", "glu"])
def test_pairs_in_one_tensor_have_the_product_of_both_moments(make):
    model = nn.Sequential(nn.Linear(64, 512), make(), nn.Linear(256, 10))
    expected = gain(torch.sigmoid if make is nn.GLU else F.silu).forward
    assert calibrate(model, normal(256, 64)).layers[1].gain == pytest.approx(expected, rel=1e-2)


def test_inputs_of_convolutions_are_counted_without_the_zeros_around():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        nn.Flatten(2),
        nn.Conv1d(8, 4, 1),
    )
    layers = calibrate(model, normal(4, 3, 8, 8), generator=seeded()).layers
    # Of 8 positions the two outer ones see two inputs; 6 positions times 4 make 14 of a transposed convolution.
    expected = [3 * (22 / 8) ** 2, 2 * 9, 16 * (24 / 14) ** 2, 8 * 9, 8]
    assert [layer.fan_in for layer in layers] == pytest.approx(expected, rel=1e-5)


def test_deep_convolutions_keep_the_signal():
    layers = [one for _ in range(5) for one in (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), *layers)
    x = normal(4, 3, 8, 8)
    default = outputs_of(model, x, (nn.Conv2d,))
    calibrate(model, x, generator=seeded())
    assert default[-1] < 0.1
    # Positions share weights: the random walk is that of 256 units.
    for depth, std in enumerate(outputs_of(model, x, (nn.Conv2d,))):
        assert abs(math.log(std)) < 2 * math.sqrt(5 * (depth + 1) / 256) / 2 + 0.05


def test_a_residual_network_keeps_the_signal_and_lsuv_makes_it_exact():
    model = build_resnet20(lambda _: nn.ReLU(), seed=0)
    x = normal(16, 3, 32, 32)
    theory = calibrate(model, x, generator=seeded())
    assert len(theory.layers) == 22
    # The last one reads averages over positions, which theory knows nothing of.
    assert all(0.8 < layer.output_after < 1.25 for layer in theory.layers[:-1])
    # Behind one branch: relu of relu(z) + z', whose moments are those of N(m, v) with m = E relu(z), v = 3/2 - m^2.
    mean, square = 1 / math.sqrt(2 * math.pi), 1.5
    spread = math.sqrt(square - mean**2)
    below = math.erfc(-mean / spread / math.sqrt(2)) / 2
    rest = mean * spread * math.exp(-((mean / spread) ** 2) / 2) / math.sqrt(2 * math.pi)
    expected = (square * below + rest) ** -0.5
    assert row(theory, "block_0_1.convolution_0").gain == pytest.approx(expected, rel=1e-6)
    exact = calibrate(model, x, lsuv=True, tolerance=0.005, generator=seeded())
    assert [layer.gain for layer in exact.layers] == pytest.approx([layer.gain for layer in theory.layers])
    assert outputs_of(model, x, (nn.Conv2d, nn.Linear)) == pytest.approx([1.0] * 22, abs=0.006)
    scaled = row(exact, "classifier")
    assert scaled.weight_after == pytest.approx(row(theory, "classifier").weight_after * scaled.factor, rel=1e-4)


class Stream(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.branches = nn.ModuleList(nn.Linear(256, 256) for _ in range(blocks))
        self.last = nn.Linear(256, 256)

    def forward(self, x):
        x = self.first(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.last(x)


def test_a_stream_is_divided_by_what_it_has_grown_to():
    calibration = calibrate(Stream(40), normal(64, 256), generator=seeded())
    gains = [layer.gain for layer in calibration.layers[1:]]
    assert gains == pytest.approx([(1 + blocks) ** -0.5 for blocks in range(41)])
    assert calibration.layers[-1].fed_by == "sum"
    assert 0.7 < calibration.layers[-1].output_after < 1.4


class Arithmetic(nn.Module):
    """Numbers, masks, other forms of operators, a norm written out, a concatenation."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(8))
        self.last = nn.Linear(512, 10)
        self.register_buffer("mask", torch.arange(256) % 4 == 0)

    def forward(self, x):
        first, second, third, fourth, fifth, sixth, seventh, eighth = self.layers
        x = second(3 * first(x) + 4)
        x = third(torch.add(x, other=x.tanh() / 2))
        x = fourth(1 - (-x.relu()))
        x = fifth(x * self.mask)
        x = sixth(5 * x * torch.rsqrt((5 * x).pow(2).mean(-1, keepdim=True) + 1e-6))
        x = seventh(x / torch.sqrt(x.var(-1, keepdim=True) + 1e-6))
        return self.last(torch.cat([eighth(x).relu(), 2 * x], dim=-1))


def test_arithmetic_is_followed():
    layers = calibrate(Arithmetic(), normal(256, 256), generator=seeded()).layers
    half = 1 / math.sqrt(2 * math.pi)
    squares = [
        9 + 16,
        1 + gain(torch.tanh).forward ** -2 / 4,
        1 + 2 * half + 1 / 2,
        1 / 4,
        1.0,
        1.0,
        1.0,
        (1 / 2 + 4) / 2,
    ]
    assert [layer.gain for layer in layers[1:]] == pytest.approx([square**-0.5 for square in squares], rel=1e-6)
    names = ["linear", "sum", "relu", "linear", "norm", "norm", "linear", "relu and linear"]
    assert [layer.fed_by for layer in layers[1:]] == names


def test_dropout_in_training_and_the_factors_of_norms_count():
    norm = nn.LayerNorm(64)
    nn.init.constant_(norm.weight, 3.0)
    nn.init.constant_(norm.bias, 4.0)
    model = nn.Sequential(nn.Linear(64, 64), norm, nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.75), nn.Linear(64, 10))
    x = normal(64, 64)
    training = [layer.gain for layer in calibrate(model, x).layers]
    assert training[1:] == pytest.approx([1 / 5, math.sqrt(2) / 2], rel=1e-6)
    resting = [layer.gain for layer in calibrate(model.eval(), x).layers]
    assert resting[1:] == pytest.approx([1 / 5, math.sqrt(2)], rel=1e-6)


def test_what_depends_on_no_drawn_layer_is_taken_as_measured():
    trunk, head = nn.Linear(64, 64).requires_grad_(False), nn.Linear(64, 10)
    x = normal(256, 64)
    calibration = calibrate(nn.Sequential(trunk, nn.ReLU(), head), x)
    measured = F.relu(trunk(x)).square().mean().sqrt().item()
    assert [(layer.path, layer.gain) for layer in calibration.layers] == [("2", pytest.approx(1 / measured, rel=1e-5))]
    assert reasons(calibration) == {"0": "it is frozen (requires_grad is False)"}


def test_a_shared_weight_is_drawn_once_for_all_that_feed_it():
    shared = nn.Linear(64, 64)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Tanh(), shared)
    (layer,) = calibrate(model, normal(256, 64)).layers
    mean = (normal(256, 64).square().mean().item() + 0.5 + gain(torch.tanh).forward ** -2) / 3
    assert layer.gain == pytest.approx(mean**-0.5, rel=1e-5)
    assert layer.fed_by == "input, relu, tanh"


def test_a_swapped_model_is_calibrated_for_its_new_activations():
    model = Functional()
    swap(model, "tanh", where="relu", example_inputs=normal(8, 64))
    calibration = calibrate(model, normal(256, 64))
    assert row(calibration, "second").fed_by == "tanh"
    assert row(calibration, "second").gain == pytest.approx(gain(torch.tanh).forward)


def test_language_models_are_followed_through_their_blocks():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config)
    calibration = calibrate(model, {"input_ids": torch.arange(48).view(2, 24)}, generator=seeded())
    last = row(calibration, "model.layers.1.mlp.down_proj")
    assert (last.fed_by, last.gain) == ("silu * linear", pytest.approx(gain(F.silu).forward, rel=1e-5))
    assert row(calibration, "model.layers.1.mlp.up_proj").gain == pytest.approx(1.0)
    assert all(abs(layer.output_after - 1) < 0.25 for layer in calibration.layers if "o_proj" not in layer.path)
