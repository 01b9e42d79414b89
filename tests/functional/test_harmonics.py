from __future__ import annotations

import math

import pytest
import torch

from softknee import nn
from softknee._catalogue import get
from softknee.functional import enn, even_wave, fourier, odd_wave, sinc, snake, snake_beta, spder, wire
from softknee.testing import check_accuracy, check_derivatives, check_finite, check_values

X = torch.linspace(-4, 4, 401, dtype=torch.float64)
PERIOD = 2 * math.pi * torch.arange(1000, dtype=torch.float64) / 1000


def drawn(count, seed=1):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("terms", [1, 2, 6, 20])
@pytest.mark.parametrize(("wave", "shape"), [(odd_wave, torch.sin), (even_wave, torch.cos)])
def test_waves_have_unit_energy_whatever_their_amplitudes(wave, shape, terms):
    amplitude = drawn(terms)
    y = wave(PERIOD / 3, amplitude, 3.0)
    assert y.square().mean().item() == pytest.approx(1)
    assert y.abs().max() <= math.sqrt(2 * terms)
    harmonics = shape(torch.arange(1, terms + 1) * PERIOD[:, None])
    assert torch.allclose(y, math.sqrt(2) * harmonics @ amplitude / amplitude.norm(), atol=1e-12)
    assert torch.allclose(wave(PERIOD, 7 * amplitude), wave(PERIOD, amplitude), atol=1e-12)


@pytest.mark.parametrize("wave", [odd_wave, even_wave])
def test_waves_without_amplitudes_are_finite(wave):
    amplitude = torch.zeros(3, requires_grad=True)
    y = wave(torch.linspace(-1, 1, 5), amplitude)
    assert torch.equal(y, torch.zeros(5))
    assert torch.autograd.grad(y.sum(), amplitude)[0].isfinite().all()


def test_the_balanced_fourier_series_has_unit_energy_in_value_and_derivative():
    x = PERIOD.clone().requires_grad_()
    y = fourier(x, **get("fourier").initializations["balanced"](6, None))
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert [part.detach().square().mean().item() for part in (y, slope)] == pytest.approx([1, 1], abs=3e-6)


def test_the_published_fourier_series_has_the_authors_numbers():
    start = get("fourier").initializations["published"](3, None)
    assert start["amplitude"].tolist() == pytest.approx([0.66232645879 / k for k in (1, 2, 6)])
    assert start["frequency"].tolist() == [1, 2, 3]
    assert nn.Fourier().offset.item() == pytest.approx(0.66232645879)


@pytest.mark.parametrize("terms", [1, 3, 12])
def test_enn_is_a_series_of_odd_cosines(terms):
    coefficients = drawn(terms)
    odd = 2 * torch.arange(terms, dtype=torch.float64) + 1
    angle = math.pi * odd * (2 * (X + 1) / 2 * 512 - 1)[:, None] / (2 * 512)
    assert torch.allclose(enn(X, coefficients), torch.cos(angle) @ coefficients, atol=1e-12)


def test_enn_starts_close_to_the_authors_line():
    published = [-207.6068, -23.1526, -8.3292, -4.2629, -2.5883, -1.5147]
    assert nn.ENN().coefficients.tolist() == pytest.approx([2 / 512 * number for number in published], abs=1e-3)
    x = torch.linspace(-0.8, 0.8, 101)
    assert (nn.ENN()(x) - x).abs().max() < 0.05


def test_rowdy_starts_as_tanh_and_learns_to_oscillate():
    module = nn.Rowdy(n=2.0)
    assert torch.equal(module(X), torch.tanh(X))
    module(X.float()).square().sum().backward()
    with torch.no_grad():
        module.amplitude.copy_(torch.tensor([0.0, 0.5, 0.0, 0.0]))
    assert torch.allclose(module(X), torch.tanh(X) + torch.sin(4 * X), atol=1e-12)


def test_sinc_and_its_derivative_keep_their_digits_around_zero():
    """A quotient's derivative has none left at 1e-6."""
    x = torch.tensor([0.0, 1e-8, 1e-6, 1e-3, 0.999999, 1.000001], requires_grad=True, dtype=torch.float64)
    y = sinc(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, torch.sinc(x / math.pi), rtol=1e-15)
    near = x.detach()[:4]
    assert torch.allclose(slope[:4], -near / 3 + near**3 / 30, rtol=1e-12, atol=0)
    assert slope[4].item() == pytest.approx(slope[5].item(), rel=1e-5)


def test_spder_is_flat_at_zero():
    x = torch.tensor([-1e-12, 0.0, 1e-12], requires_grad=True, dtype=torch.float64)
    y = spder(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.tolist() == pytest.approx([1.5e-6, 0, 1.5e-6])


def test_snake_beta_starts_as_snake():
    assert torch.allclose(snake_beta(X), snake(X), atol=1e-8)
    assert torch.allclose(snake_beta(X, math.log(3), math.log(3)), snake(X, 3.0), atol=1e-8)


def test_wire_is_the_real_part_of_the_papers_wavelet():
    wavelet = torch.exp(20j * X - (10 * X).abs().square())
    assert torch.allclose(wire(X), wavelet.real, atol=1e-14)


@pytest.mark.parametrize("check", [check_values, check_derivatives, check_finite, check_accuracy])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("odd_wave", {"amplitude": (0.3, -0.7)}),
        ("even_wave", {"amplitude": (-0.2,)}),
        ("enn", {"coefficients": (0.3, -0.7, 0.1)}),
        ("rowdy", {"amplitude": (0.1, -0.2), "frequency": (1.0, 1.5)}),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_series_of_any_length_are_what_their_formula_says(name, values, check):
    check(name, **values)
