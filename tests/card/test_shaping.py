from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from softknee._card.card import card
from softknee._card.shaping import leaky_correlation, tat_leaky_relu
from softknee._errors import UsageError

# Gauss-Hermite, which is exact enough for shaped smooth activations, and independent of our rules.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / math.sqrt(2 * math.pi)
DEPTH = 20


def network_map(phi, c, depth):
    """The correlation behind a chain, by coefficients from another rule."""
    values, before, now = phi(NODES), np.zeros_like(NODES), np.ones_like(NODES)
    powers = []
    for k in range(60):
        powers.append(float((WEIGHTS * values * now).sum() ** 2))
        before, now = now, (NODES * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    for _ in range(depth):
        c = sum(power * c**k for k, power in enumerate(powers))
    return c


def shaped(function, found):
    def phi(z):
        return found.apply(function, torch.from_numpy(np.asarray(z, dtype=np.float64))).numpy()

    return phi


def q_map(phi, q):
    return float((WEIGHTS * phi(math.sqrt(q) * NODES) ** 2).sum())


@pytest.mark.parametrize(("name", "function"), [("tanh", torch.tanh), ("silu", F.silu), ("softplus", F.softplus)])
def test_dks_meets_its_equations(name, function):
    phi = shaped(function, card(name).dks(DEPTH, zeta=1.5))
    h = 1e-4
    assert q_map(phi, 1.0) == pytest.approx(1, abs=1e-9)
    assert (q_map(phi, 1 + h) - q_map(phi, 1 - h)) / (2 * h) == pytest.approx(1, abs=1e-6)
    assert network_map(phi, 0.0, DEPTH) == pytest.approx(0, abs=1e-9)
    assert (1 - network_map(phi, 1 - 1e-6, DEPTH)) / 1e-6 == pytest.approx(1.5, rel=1e-4)


@pytest.mark.parametrize(("name", "function"), [("tanh", torch.tanh), ("silu", F.silu), ("gelu", F.gelu)])
def test_tat_meets_its_equations(name, function):
    phi = shaped(function, card(name).tat(DEPTH, tau=0.3))
    h = 1e-4
    assert q_map(phi, 1.0) == pytest.approx(1, abs=1e-9)
    assert (q_map(phi, 1 + h) - q_map(phi, 1 - h)) / (2 * h) == pytest.approx(1, abs=1e-6)
    ends = [network_map(phi, 1 - step, DEPTH) for step in (0, 1e-3, 2e-3)]
    assert (ends[0] - ends[1]) / 1e-3 == pytest.approx(1, abs=1e-3)
    assert (ends[0] - 2 * ends[1] + ends[2]) / 1e-6 == pytest.approx(0.3, rel=0.01)


def test_tat_of_leaky_relu_meets_its_equation():
    slope, scale = tat_leaky_relu(50, eta=0.9)
    assert 0 < slope < 1
    assert leaky_correlation(slope, 50, 0.0) == pytest.approx(0.9, abs=1e-12)
    # Its own map, from moments, keeps the variance.
    one = card("leaky_relu", negative_slope=slope)
    assert scale**2 * one.moments().square == pytest.approx(1, rel=1e-12)
    assert one.correlation_map(0.3, scale**2) == pytest.approx(leaky_correlation(slope, 1, 0.3), abs=1e-13)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: card("relu").dks(10), "relu cannot be shaped by DKS to depth 10, zeta 1.5: no scale and shift"),
        (lambda: card("relu").tat(10), "TAT needs a slope without jumps, which relu has not"),
        (lambda: card("tanh").dks(0), "depth must be at least 1, got 0"),
        (lambda: card("tanh").dks(5, zeta=1.0), "zeta must be above 1, got 1.0"),
        (lambda: card("tanh").tat(5, tau=0.0), "tau must be positive, got 0.0"),
        (lambda: tat_leaky_relu(1, eta=0.9), "at depth 1 even ReLU has C_f"),
    ],
)
def test_what_cannot_be_done_is_said(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
