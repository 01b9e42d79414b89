from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from softknee._card.propagation import gain, moments
from softknee._catalogue import create
from softknee._errors import UsageError

# Independent quadrature to six digits: forward gain, backward gain, chi.
GAINS = {
    "relu": (1.414214, 1.414214, 1.0000),
    "elu": (1.245198, 1.223429, 1.0359),
    "selu": (1.000000, 0.966026, 1.0716),
    "gelu": (1.533530, 1.481114, 1.0720),
    "silu": (1.676532, 1.623320, 1.0666),
    "mish": (1.486848, 1.444755, 1.0591),
    "hardswish": (1.736657, 1.670076, 1.0813),
    "tanh": (1.592537, 1.467414, 1.1778),
    "sigmoid": (1.846229, 4.722646, 0.1528),
    "softplus": (1.041867, 1.846229, 0.3185),
    "erf(x)": (1.467167, 1.325218, 1.2257),
    "hardtanh": (1.392036, 1.210287, 1.3229),
    "telu": (1.374782, 1.334911, 1.0606),
}


def phi(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def cdf(x):
    return math.erfc(-x / math.sqrt(2)) / 2


@pytest.mark.parametrize(("name", "expected"), GAINS.items(), ids=GAINS.keys())
def test_gains_agree_with_independent_quadrature(name, expected):
    got = gain(create(name))
    assert (got.forward, got.backward) == pytest.approx(expected[:2], abs=6e-7)
    assert got.chi == pytest.approx(expected[2], abs=6e-5)
    assert got.chi == pytest.approx((got.forward / got.backward) ** 2)
    assert got.valid == (0.5 <= expected[2] <= 2)


@pytest.mark.parametrize("q", [0.01, 1.0, 7.5])
@pytest.mark.parametrize(
    ("function", "square", "slope_square"),
    [
        (lambda x: x, lambda q: q, lambda q: 1.0),
        (torch.relu, lambda q: q / 2, lambda q: 0.5),
        (torch.sin, lambda q: (1 - math.exp(-2 * q)) / 2, lambda q: (1 + math.exp(-2 * q)) / 2),
        (
            torch.erf,
            lambda q: 2 / math.pi * math.asin(2 * q / (1 + 2 * q)),
            lambda q: 4 / math.pi / math.sqrt(1 + 4 * q),
        ),
        (torch.exp, lambda q: math.exp(2 * q), lambda q: math.exp(2 * q)),
        (torch.square, lambda q: 3 * q * q, lambda q: 4 * q),
        (torch.sign, lambda q: 1.0, lambda q: 0.0),
    ],
    ids=["identity", "relu", "sin", "erf", "exp", "square", "sign"],
)
def test_moments_agree_with_closed_forms(function, square, slope_square, q):
    got = moments(function, q=q)
    assert got.square == pytest.approx(square(q), rel=1e-12)
    assert got.slope_square == pytest.approx(slope_square(q), rel=1e-12)


def test_relu_keeps_the_variance_of_the_gradient():
    assert gain(create("relu")).chi == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("a", [0.123456, 0.5 + 1e-9, 1.0 - 1e-7, 0.75, 2.000001])
def test_a_kink_need_not_be_declared(a):
    got = moments(create(f"max(x - {a}, 0)"))
    assert got.square == pytest.approx((1 + a * a) * cdf(-a) - a * phi(a), rel=1e-12)
    assert got.slope_square == pytest.approx(cdf(-a), rel=1e-12)


def test_a_jump_is_integrated():
    a = 0.654321
    got = moments(create(f"where(x > {a}, x, 2)"))
    assert got.square == pytest.approx(a * phi(a) + cdf(-a) + 4 * cdf(a), rel=1e-12)
    assert got.slope_square == pytest.approx(cdf(-a), rel=1e-12)


def test_fast_oscillation_is_resolved():
    c, w, p = [0.7, -1.1, 0.4], [29.3, 3.2, 17.9], [0.3, -2.0, 1.1]
    names = ("amplitude", "frequency", "phase")
    options = {name: torch.tensor(v, dtype=torch.float64) for name, v in zip(names, (c, w, p), strict=True)}
    module = create("staf", **options).double()
    for name, value in options.items():
        getattr(module, name).data = value.clone()
    square = slope_square = 0.0
    for ci, wi, pi in zip(c, w, p, strict=True):
        for cj, wj, pj in zip(c, w, p, strict=True):
            apart = math.cos(pi - pj) * math.exp(-((wi - wj) ** 2) / 2)
            together = math.cos(pi + pj) * math.exp(-((wi + wj) ** 2) / 2)
            square += ci * cj * (apart - together) / 2
            slope_square += ci * wi * cj * wj * (apart + together) / 2
    got = moments(module)
    assert got.square == pytest.approx(square, rel=1e-12)
    assert got.slope_square == pytest.approx(slope_square, rel=1e-12)


def test_channels_are_averaged():
    module = create("prelu", per_channel=2, slope=torch.tensor([0.0, 1.0]))
    assert moments(module, channels=2).square == pytest.approx((0.5 + 1.0) / 2, rel=1e-12)
    assert moments(create("brelu"), channels=2).slope_square == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.zeros_like, (math.inf, math.inf, math.inf)),
        (lambda x: 0 * x, (math.inf, math.inf, math.inf)),
        (torch.ones_like, (1.0, math.inf, 0.0)),
    ],
    ids=["zero", "zero with a gradient", "one"],
)
def test_constants_have_no_finite_gain(function, expected):
    got = gain(function)
    assert (got.forward, got.backward, got.chi) == pytest.approx(expected)
    assert not got.valid


def test_the_module_and_the_random_state_stay_as_they_are():
    module = nn.Sequential(create("rrelu"), create("prelu")).train()
    module(torch.randn(3)).sum().backward()
    slope, grad = module[1].slope.detach().clone(), module[1].slope.grad.clone()
    state = torch.get_rng_state()
    with torch.no_grad():
        gain(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module[1].slope, slope)
    assert torch.equal(module[1].slope.grad, grad)
    assert module[1].slope.dtype == torch.float32
    assert module.training
    assert module[0].training


@pytest.mark.parametrize("q", [0.0, -1.0, math.nan])
def test_the_variance_must_be_positive(q):
    with pytest.raises(UsageError, match=f"q must be a positive variance, got {q}"):
        moments(torch.relu, q=q)


def test_the_mean_and_a_text():
    q, mean = 2.0, -0.3
    got = moments("relu", q=q, mean=mean)
    at = mean / math.sqrt(q)
    assert got.mean == pytest.approx(mean * cdf(at) + math.sqrt(q) * phi(at), rel=1e-13)
    assert got.variance == pytest.approx(got.square - got.mean**2, rel=1e-15)
    assert gain("gelu") == gain(create("gelu"))


def test_what_has_no_single_elements_is_refused():
    with pytest.raises(UsageError, match="Softmax is no function of single elements"):
        moments(nn.Softmax(1))


@pytest.mark.parametrize("channels", [3, 50, 61])
def test_values_may_round_otherwise_at_the_end_of_a_tensor(channels):
    """Torch evaluates Mish in vectors, and what is left over one by one."""
    assert gain(nn.Mish(), channels=channels).forward == pytest.approx(gain("mish").forward, abs=1e-9)
