from __future__ import annotations

import math

import pytest
import torch

from softknee._card.card import card
from softknee._card.kernel import kernel
from softknee._errors import UsageError

INPUTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def relu_pair(a, b, c):
    cosine = (c / (a * b).sqrt()).clamp(-1, 1)
    angle = cosine.acos()
    product = (a * b).sqrt() * (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
    return product, (math.pi - angle) / (2 * math.pi)


def erf_pair(a, b, c):
    product = 2 / math.pi * torch.asin(2 * c / ((1 + 2 * a) * (1 + 2 * b)).sqrt())
    return product, 4 / math.pi / ((1 + 2 * a) * (1 + 2 * b) - 4 * c * c).sqrt()


def sin_pair(a, b, c):
    decay = (-(a + b) / 2).exp()
    return decay * c.sinh(), decay * c.cosh()


def gelu_pair(a, b, c):
    """By Stein's lemma; Tsuchida et al. 2020 (arXiv 2002.08517)."""
    both = 1 / (2 * math.pi * ((1 + a) * (1 + b) - c * c).sqrt())
    gates = 0.25 + torch.asin(c / ((1 + a) * (1 + b)).sqrt()) / (2 * math.pi)
    return a * b * both + c * c * both * (1 / (1 + a) + 1 / (1 + b) - 1) + c * gates, None


CLOSED = {"relu": relu_pair, "erf(x)": erf_pair, "sin": sin_pair, "gelu": gelu_pair}


def by_closed_form(pair_of, inputs, depth, sigma_w2, sigma_b2):
    nngp = sigma_w2 * inputs @ inputs.T / inputs.shape[1] + sigma_b2
    ntk = nngp
    for _ in range(depth):
        a, b = (nngp.diag()[:, None].expand_as(nngp), nngp.diag()[None].expand_as(nngp))
        product, slopes = pair_of(a, b, nngp)
        nngp = sigma_w2 * product + sigma_b2
        ntk = None if slopes is None else nngp + sigma_w2 * slopes * ntk
    return nngp, ntk


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("sigma_b2", [0.0, 0.1])
def test_kernels_of_three_layers_agree_with_closed_forms(name, sigma_b2):
    expected = by_closed_form(CLOSED[name], INPUTS, 3, 1.4, sigma_b2)
    got = card(name).kernel(INPUTS, 3, 1.4, sigma_b2)
    for one, other in zip(got, expected, strict=True):
        if other is not None:
            # The closed form of ReLU loses half of its digits on the diagonal, where the angle is 0.
            assert torch.allclose(one, other, rtol=1e-7, atol=0)
            apart = ~torch.eye(len(INPUTS), dtype=torch.bool)
            assert torch.allclose(one[apart], other[apart], rtol=1e-12, atol=1e-14)


def test_t23_two_layers_of_relu():
    """`|x||y| (k1 + c k0) / d` with the arc-cosine kernels."""
    norms = INPUTS.norm(dim=1)
    cosine = (INPUTS @ INPUTS.T / norms[:, None] / norms).clamp(-1, 1)
    angle = cosine.acos().fill_diagonal_(0)
    k0 = (math.pi - angle) / (2 * math.pi)
    k1 = (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
    expected = norms[:, None] * norms * (k1 + cosine * k0) / INPUTS.shape[1]
    _, ntk = card("relu").kernel(INPUTS, 1, 1.0)
    assert torch.allclose(ntk, expected, rtol=1e-12, atol=1e-13)


def test_t23_a_linear_network():
    nngp, ntk = card("identity").kernel(INPUTS, 3, 1.0)
    expected = INPUTS @ INPUTS.T / INPUTS.shape[1]
    assert torch.allclose(nngp, expected, rtol=1e-13, atol=1e-15)
    assert torch.allclose(ntk, 4 * expected, rtol=1e-13, atol=1e-15)


def test_inputs_that_are_almost_the_same_or_opposite():
    """Where series would need thousands of terms."""
    close = torch.stack([INPUTS[0], INPUTS[0] + 1e-4 * INPUTS[1], -INPUTS[0] + 1e-4 * INPUTS[2]])
    expected = by_closed_form(relu_pair, close, 1, 2.0, 0.0)
    got = card("relu").kernel(close, 1, 2.0)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-8)
    assert torch.allclose(got[0], got[0].T)


def test_a_wide_random_network_has_the_covariance():
    generator = torch.Generator().manual_seed(2)
    width, draws = 512, 60
    x = INPUTS[:3]
    total = torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(draws):
        w1 = torch.randn(width, 4, generator=generator, dtype=torch.float64) * math.sqrt(1.5 / 4)
        w2 = torch.randn(width, width, generator=generator, dtype=torch.float64) * math.sqrt(1.5 / width)
        hidden = torch.nn.functional.hardtanh(w2 @ torch.nn.functional.hardtanh(w1 @ x.T))
        total += 1.5 * hidden.T @ hidden / width / draws
    assert torch.allclose(total, kernel("hardtanh", x, 2, 1.5)[0], atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((INPUTS, 0, 1.0), "depth must be at least 1, got 0"),
        ((INPUTS[0], 1, 1.0), "inputs must be of shape"),
        ((INPUTS, 1, 0.0), "sigma_w2 must be a positive number, got 0.0"),
        ((0 * INPUTS, 1, 1.0), "an input has the variance 0 in a layer"),
    ],
)
def test_bad_arguments_are_named(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        card("relu").kernel(*arguments)
