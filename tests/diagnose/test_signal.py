"""The signal of a plain network, layer by layer: measured against theory, and theory against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from signal_networks import mlp, samples
from torch import nn

from softknee._diagnose.flow.signal import signal

pytestmark = pytest.mark.usefixtures("_seeded")

ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU, "hardtanh": nn.Hardtanh}


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


def test_a_single_output_has_no_direction_that_samples_could_share():
    model = mlp(nn.GELU, depth=2, outputs=1)
    found = signal(model, [torch.randn(64, 100, generator=torch.Generator().manual_seed(0))])
    assert math.isnan(found.layers[-1].cosine)
    assert found.to_dict()["layers"][-1]["cosine"] is None
    assert found.cosine_last == found.layers[-2].cosine
