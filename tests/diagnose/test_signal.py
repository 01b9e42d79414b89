"""The signal of a model, layer by layer: what was measured against theory, and theory against closed forms."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._diagnose.flow.signal import signal
from softknee._surgery.find import sites

ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU, "hardtanh": nn.Hardtanh}


def draw(layer, sw2, sb2=0.0):
    """Draw weights such that a layer's outputs have variance `sw2 q + sb2`."""
    nn.init.normal_(layer.weight, std=(sw2 / layer.weight[0].numel()) ** 0.5)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=sb2**0.5)
    return layer


def mlp(activation, *, width=200, depth=5, sw2=2.0, sb2=0.0, inputs=100, outputs=50):
    layers = []
    for place in range(depth):
        layers += [draw(nn.Linear(inputs if place == 0 else width, width), sw2, sb2), activation()]
    return nn.Sequential(*layers, draw(nn.Linear(width, outputs), sw2, sb2))


def samples(count=100, features=100, *, seed=1, cosine=0.0):
    generator = torch.Generator().manual_seed(seed)
    own, common = torch.randn(count, features, generator=generator), torch.randn(features, generator=generator)
    return (1 - cosine) ** 0.5 * own + cosine**0.5 * common


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("sw2", [1.2, 2.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_t11_measured_gradient_ratio_is_chi(name, sw2):
    found = signal(mlp(ACTIVATIONS[name], sw2=sw2, width=400, depth=4), [samples()])
    ratios = [(one.backward, one.chi) for one in found.layers[1:]]
    assert all(measured == pytest.approx(chi, rel=0.15) for measured, chi in ratios)
    together = math.prod(measured for measured, _ in ratios)
    assert together == pytest.approx(found.chi_product, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("sw2", [1.2, 2.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_t11_measured_gradient_ratio_is_chi_at_width_1000(name, sw2):
    found = signal(mlp(ACTIVATIONS[name], sw2=sw2, width=1000, depth=11, outputs=1000), [samples(300)])
    assert all(one.backward == pytest.approx(one.chi, rel=0.09) for one in found.layers[1:])


@pytest.mark.parametrize(("name", "sb2"), [("tanh", 0.0), ("gelu", 0.1), ("relu", 0.0), ("hardtanh", 0.1)])
def test_theory_predicts_mean_squares_and_cosines_from_the_first_layer(name, sb2):
    found = signal(mlp(ACTIVATIONS[name], sw2=1.5, sb2=sb2, width=600), [samples(cosine=0.3)])
    # Finite width moves q by sqrt(5 l / n) after l layers of width n in ReLU networks, alike for all samples.
    for one in found.layers[1:-1]:
        assert one.q == pytest.approx(one.q_theory, rel=0.3)
        assert one.cosine == pytest.approx(one.cosine_theory, abs=0.08)
    assert found.layers[0].q_theory == found.layers[0].q
    assert found.layers[0].note == "theory starts here"
    assert not any(one.note for one in found.layers[1:])


def test_cosines_of_a_signal_that_vanishes_are_those_of_one_that_stays():
    # ReLU is homogeneous: the scale of the weights changes no cosine, and all mean squares by its powers.
    kept, vanishing = (mlp(nn.ReLU, width=60, depth=24, sw2=1.0) for _ in range(2))
    with torch.no_grad():
        for one, other in zip(kept.parameters(), vanishing.parameters(), strict=True):
            other.copy_(one * (0.4 if one.dim() > 1 else 1))
    found, small = (signal(model, [samples(20)]).layers for model in (kept, vanishing))
    assert small[-1].q < 1e-26
    for place, (one, other) in enumerate(zip(found, small, strict=True), start=1):
        assert other.cosine == pytest.approx(one.cosine, rel=1e-4, abs=1e-6)
        assert other.cosine_theory == pytest.approx(one.cosine_theory, rel=1e-4, abs=1e-6)
        assert other.q_theory == pytest.approx(one.q_theory * 0.16**place, rel=1e-4)


def test_outputs_that_are_all_zero_have_no_cosine():
    layers = [nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False)]
    with torch.no_grad():
        layers[0].weight.copy_(-torch.eye(4))
    assert math.isnan(signal(nn.Sequential(*layers), [torch.rand(6, 4) + 0.1]).layers[-1].cosine)


def test_correlations_of_relu_follow_the_arc_cosine_kernel():
    """T5 in a model: the closed form of Cho & Saul, in the exact weights that the layer has."""
    found = signal(mlp(nn.ReLU, depth=1), [samples(cosine=0.5)])
    c = found.layers[0].cosine
    kernel = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi
    assert found.layers[1].cosine_theory == pytest.approx(kernel, rel=1e-9)
    assert found.layers[1].q_theory == pytest.approx(found.layers[1].sw2 * found.layers[0].q / 2, rel=1e-9)


def test_t12_default_initialisation_of_relu_is_ordered():
    width, depth = 256, 16
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    model, x = nn.Sequential(*layers), samples(100, width)
    found = signal(model, [x])
    assert all(one.chi == pytest.approx(1 / 6, rel=0.02) for one in found.layers[1:])
    assert all(one.sw2 == pytest.approx(1 / 3, rel=0.02) for one in found.layers)
    assert found.layers[-1].q_theory == pytest.approx(0.4 / width, rel=0.1)
    assert found.layers[-1].q == pytest.approx(0.4 / width, rel=0.3)
    assert found.cosine_last > 0.999
    off = []
    for place, part in enumerate(model):
        x = part(x)
        if isinstance(part, nn.ReLU) and place >= 16:
            off.append(float((x == 0).all(0).float().mean()))
    assert 0.45 < sum(off) / len(off) < 0.55


def test_he_initialisation_of_relu_keeps_gradients():
    """T1: chi is 1 at any mean square."""
    found = signal(mlp(nn.ReLU, width=400), [10 * samples()])
    assert all(one.chi == pytest.approx(1, rel=0.03) for one in found.layers[1:])
    assert all(one.ratio == pytest.approx(1, rel=0.02) for one in found.layers[1:])
    assert found.layers[-1].matched == pytest.approx(math.sqrt(2))


def test_tanh_on_the_edge_of_chaos_keeps_mean_square_and_gradients():
    found = signal(mlp(nn.Tanh, sw2=2.1533, sb2=0.1510, width=600), [samples() * ((1 - 0.151) / 2.1533) ** 0.5])
    assert all(one.q_theory == pytest.approx(1, abs=0.04) for one in found.layers)
    assert all(one.chi == pytest.approx(1, abs=0.04) for one in found.layers[1:])


def test_a_gain_that_does_not_fit_the_activation_shows():
    model = mlp(nn.GELU, sw2=1.533530**2)
    with torch.no_grad():
        model[4].weight *= 2
    ratios = [one.ratio for one in signal(model, [samples()]).layers]
    assert ratios[0] is None
    assert ratios[2] == pytest.approx(2, rel=0.03)
    assert all(one == pytest.approx(1, rel=0.03) for one in (ratios[1], *ratios[3:]))


def test_chi_product_ranks_activations_by_what_default_initialisation_leaves_of_gradients():
    """The one number of the chapter's table before training: four hidden layers, default initialisation."""

    def product(activation):
        torch.manual_seed(0)
        widths = [100, 256, 192, 128, 64]
        layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), activation())]
        return signal(nn.Sequential(*layers, nn.Linear(64, 10)), [samples()]).chi_product

    tanh, relu, gelu, sigmoid = map(product, (nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid))
    assert tanh > relu > gelu > sigmoid
    assert relu == pytest.approx(6**-4, rel=0.1)


def test_convolutions_count_the_inputs_that_padding_leaves():
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=2, groups=1, bias=False))
    first, second = signal(model, [torch.randn(8, 3, 8, 8)]).layers
    # Of 8 positions a side, two have two neighbours instead of three.
    inputs = 3 * (22 / 8) ** 2
    assert first.sw2 == pytest.approx(inputs * model[0].weight.square().mean().item(), rel=1e-6)
    assert second.sw2 == pytest.approx(model[2].weight.square().sum().item() / 7, rel=1e-6)
    assert first.sb2 == pytest.approx(model[0].bias.square().mean().item(), rel=1e-6)
    assert second.sb2 == 0
    assert (first.site, second.site) == ("1", None)


def test_a_convolutional_network_follows_theory():
    model = nn.Sequential(
        *(draw(nn.Conv2d(3, 48, 3, padding=1), 2.0), nn.ReLU(inplace=True)),
        *(draw(nn.Conv2d(48, 64, 3, stride=2, padding=1), 2.0), nn.ReLU(inplace=True)),
        *(draw(nn.Conv2d(64, 64, 3, padding=1), 2.0), nn.MaxPool2d(2), nn.Flatten(), draw(nn.Linear(1024, 10), 2.0)),
    )
    found = signal(model, [torch.randn(32, 3, 16, 16)])
    for one in found.layers[1:3]:
        assert one.q == pytest.approx(one.q_theory, rel=0.15)
        assert one.cosine == pytest.approx(one.cosine_theory, abs=0.06)
        assert one.backward == pytest.approx(one.chi, rel=0.15)
    assert found.layers[3].note == "theory starts here (max_pool2d before it)"
    assert found.layers[3].q_theory == found.layers[3].q
    assert found.layers[3].backward is None


class Residual(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.norm = norm(width)
        self.first, self.second = draw(nn.Linear(width, width), 2.0), draw(nn.Linear(width, width), 2.0)

    def forward(self, x):
        return x + self.second(F.relu(self.first(self.norm(x))))


@pytest.mark.parametrize("norm", [nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d])
def test_branches_add_up_and_norms_reset(norm):
    width = 600
    model = nn.Sequential(draw(nn.Linear(100, width), 1.0), *(Residual(width, norm) for _ in range(3)), nn.ReLU())
    found = signal(nn.Sequential(model, draw(nn.Linear(width, width), 2.0)), [samples(cosine=0.2)])
    assert found.residual
    assert found.chi_product is None
    assert found.normed == (norm is not nn.Identity)
    for one in found.layers[1:]:
        assert one.q == pytest.approx(one.q_theory, rel=0.2), one.layer
        assert one.cosine == pytest.approx(one.cosine_theory, abs=0.08), one.layer
        assert not one.note
    if norm is nn.Identity:
        # Each block doubles the mean square of the stream: so does what its first layer gets.
        assert found.layers[5].q_theory / found.layers[1].q_theory == pytest.approx(9, rel=0.2)
    else:
        assert found.layers[5].q_theory == pytest.approx(2, rel=0.05)
        assert found.layers[5].matched is None


def test_factors_and_shifts_of_norms_count():
    norm = nn.LayerNorm(200)
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(1)
    model = nn.Sequential(draw(nn.Linear(100, 200), 1.0), norm, draw(nn.Linear(200, 50), 1.0))
    assert signal(model, [samples()]).layers[1].q_theory == pytest.approx(10, rel=0.03)


def test_batch_norm_uses_the_batch_and_stays_as_it_is():
    model = nn.Sequential(draw(nn.Linear(100, 200), 9.0), nn.BatchNorm1d(200), nn.ReLU(), draw(nn.Linear(200, 50), 2.0))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = signal(model, [samples(), samples(seed=2)])
    assert found.layers[1].q == pytest.approx(1, rel=0.15)
    assert not model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = draw(nn.Linear(width, 4 * width), 2.0), draw(nn.Linear(4 * width, width), 2.0)

    def forward(self, x):
        h = self.before(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.between(x))))


def test_a_transformer_is_followed_but_through_attention():
    model = nn.Sequential(nn.Embedding(50, 64), Block(64), Block(64), draw(nn.Linear(64, 50), 1.0))
    found = signal(model, [torch.randint(0, 50, (64, 12))])
    assert [one.layer for one in found.layers] == ["1.up", "1.down", "2.up", "2.down", "3"]
    assert [one.site for one in found.layers] == ["1#0", None, "2#0", None, None]
    assert found.refused is None
    for one in found.layers[1:]:
        assert one.q == pytest.approx(one.q_theory, rel=0.2)
    assert "multi_head_attention_forward" in found.layers[2].note
    assert found.layers[1].backward == pytest.approx(found.layers[1].chi, rel=0.1)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = draw(nn.Linear(100, 200), 1.0)
        self.gate, self.up, self.down = (draw(nn.Linear(200, 200), 2.0) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


def test_a_gated_pair_multiplies():
    found = signal(Gated(), [samples(cosine=0.3)]).layers[-1]
    assert found.q == pytest.approx(found.q_theory, rel=0.2)
    assert found.cosine == pytest.approx(found.cosine_theory, abs=0.08)
    assert (found.matched, found.chi, found.backward) == (None, None, None)


class Called(nn.Module):
    """The same network, its activation called in several ways."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.layers = nn.ModuleList(draw(nn.Linear(60, 60), 2.0) for _ in range(3))
        self.act = nn.ReLU(inplace=how == "in place")

    def forward(self, x):
        acts = {"function": F.relu, "method": torch.Tensor.relu, "torch": torch.relu, "overwriting": torch.relu_}
        for layer in self.layers:
            x = acts.get(self.how, self.act)(layer(x))
        return x


@pytest.mark.parametrize("how", ["function", "method", "torch", "overwriting", "in place"])
def test_the_same_numbers_however_the_activation_is_called(how):
    model, other = Called("module"), Called(how)
    other.load_state_dict(model.state_dict())
    expected, found = (signal(one, [samples(50, 60)]).layers for one in (model, other))
    for one, same in zip(expected, found, strict=True):
        for name in ("q", "q_theory", "cosine", "cosine_theory", "chi", "ratio", "backward"):
            value, other_value = getattr(one, name), getattr(same, name)
            assert value == other_value or other_value == pytest.approx(value, rel=1e-5), name
    assert {one.site for one in found} <= {site.name for site in sites(other, samples(2, 60))}
    assert None not in {one.site for one in found}


def test_a_layer_that_runs_twice_has_two_rows():
    layer = draw(nn.Linear(60, 60), 2.0)
    found = signal(nn.Sequential(layer, nn.ReLU(), layer), [samples(50, 60)]).layers
    assert [one.layer for one in found] == ["0", "0"]
    assert found[1].note == "call 2 of this layer"
    assert found[1].chi == pytest.approx(1, rel=0.1)


def test_batches_are_summed_up():
    model = mlp(nn.Tanh, width=50)
    whole, parts = (signal(model, [*samples(90).split(size)]).layers for size in (90, 30))
    for one, same in zip(whole, parts, strict=True):
        assert same.q == pytest.approx(one.q, rel=1e-6)
        assert same.cosine == pytest.approx(one.cosine, rel=1e-5, abs=1e-7)
    model, x = nn.Linear(10, 5), samples(20, 10)
    z = F.normalize(model(x), dim=1)
    cosines = (z @ z.T)[~torch.eye(20, dtype=torch.bool)]
    assert signal(model, [x]).layers[0].cosine == pytest.approx(cosines.mean().item(), abs=1e-6)


def test_gradients_of_a_loss_come_back_through_frozen_layers():
    model = mlp(nn.ReLU, width=400).requires_grad_(requires_grad=False)
    found = signal(model, [(samples(), torch.randint(0, 50, (100,)))], "cross_entropy")
    assert all(one.backward == pytest.approx(1, rel=0.2) for one in found.layers[1:])
    assert not any(one.requires_grad or one.grad is not None for one in model.parameters())


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp(nn.ReLU, width=20)

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


def test_without_gradients_there_is_no_backward_ratio():
    found = signal(Detached(), [samples()])
    assert all(one.backward is None for one in found.layers)
    assert found.chi_product is not None


def test_layers_without_a_row_are_listed():
    model = nn.Sequential(nn.Embedding(50, 64), Block(64), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 8)))
    model.idle = nn.Linear(2, 2)
    found = signal(Skipping(model), [torch.randint(0, 50, (6, 12))])
    assert found.left == (
        ("inner.1.attention", "its weights are inside one function"),
        ("inner.1.attention.out_proj", "it did not run by itself"),
        ("inner.2", "its weights are computed from others, such as by spectral norm"),
        ("inner.idle", "it did not run by itself"),
    )


class Skipping(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner[2](self.inner[1](self.inner[0](x)))


def test_a_norm_that_is_written_out_is_a_norm():
    class Written(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    model = nn.Sequential(draw(nn.Linear(100, 300), 9.0), Written(), draw(nn.Linear(300, 300), 2.0))
    found = signal(model, [samples(cosine=0.3)])
    last = found.layers[-1]
    assert found.normed
    assert (last.q_theory, last.cosine_theory) == pytest.approx((2, found.layers[0].cosine), rel=0.05)
    assert not last.note


def test_no_layer_no_theory():
    found = signal(nn.ReLU(), [samples()])
    assert found.layers == ()
    assert found.refused == "no linear layer or convolution with weights of the model ran"
    assert found.to_dict()["cosine_last"] is None


def test_numbers_that_are_not_finite_do_no_harm():
    model = mlp(nn.ReLU, width=20)
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    found = signal(model, [samples()]).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["layers"][0]["q"] is not None
    assert found["layers"][1]["q"] is None


def test_the_same_seed_gives_the_same_numbers():
    model = mlp(nn.ReLU, width=30)
    first, second, other = (signal(model, [samples()], seed=seed).to_dict() for seed in (0, 0, 1))
    assert first == second
    assert first["layers"][1]["backward"] != other["layers"][1]["backward"]


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(100, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        torch.rand(3)
        raise RuntimeError(f"broken at {tuple(self.layer(x).shape)}")


def test_everything_is_as_before_after_an_error():
    """T30 for this measurement."""
    model = Failing().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        signal(model, [samples()])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()
    assert all(one.requires_grad for one in model.parameters())


def test_a_single_output_has_no_direction_that_samples_could_share():
    model = mlp(nn.GELU, depth=2, outputs=1)
    found = signal(model, [torch.randn(64, 100, generator=torch.Generator().manual_seed(0))])
    assert math.isnan(found.layers[-1].cosine)
    assert found.to_dict()["layers"][-1]["cosine"] is None
    assert found.cosine_last == found.layers[-2].cosine
