from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from softknee._card.card import card
from softknee._errors import UsageError

# Edge of chaos at unit variance, by independent quadrature to four digits.
EDGES = {
    "relu": (2.0, 0.0),
    "gelu": (2.1937, 0.0672),
    "silu": (2.6352, 0.0625),
    "mish": (2.0873, 0.0558),
    "elu": (1.4968, 0.0347),
    "selu": (0.9332, 0.0668),
    "tanh": (2.1533, 0.1510),
}


@pytest.mark.parametrize("q", [0.01, 1.0, 30.0])
def test_t1_relu_is_critical_at_he_initialisation_whatever_the_variance(q):
    relu = card("relu")
    assert relu.chi(2.0, q) == pytest.approx(1, abs=1e-14)
    assert relu.edge_of_chaos(q) == pytest.approx((2, 0), abs=1e-13)
    (point,) = relu.fixed_points(2.0)
    assert point.every
    assert relu.depth_scales(2.0).phase == "edge"


def test_t2_tanh_near_the_edge():
    tanh = card("tanh")
    (point,) = tanh.fixed_points(1.76, 0.05)
    assert point.q == pytest.approx(0.569463, abs=5e-7)
    assert point.stable
    assert tanh.chi(1.76, point.q) == pytest.approx(0.999796, abs=5e-7)


def test_t3_the_correlation_of_an_ordered_network_settles_at_chi():
    tanh = card("tanh")
    scales = tanh.depth_scales(1.0, 0.05)
    assert scales.phase == "ordered"
    assert scales.chi == pytest.approx(0.759032, abs=5e-7)
    assert scales.correlation == pytest.approx(-1 / math.log(0.759032), rel=1e-5)
    apart = tanh.correlations(0.0, 60, 1.0, 0.05, scales.q)
    assert apart[60] / apart[59] == pytest.approx(scales.chi, rel=1e-6)


def test_t4_the_variance_settles_by_the_slope_of_its_map():
    tanh = card("tanh")
    scales = tanh.depth_scales(1.0, 0.05)
    assert scales.slope == pytest.approx(0.564280, abs=5e-7)
    q, before = 0.5, 0.0
    for _ in range(25):
        before, q = q, tanh.variance_map(q, 1.0, 0.05)
    after = tanh.variance_map(q, 1.0, 0.05)
    assert (after - q) / (q - before) == pytest.approx(scales.slope, rel=1e-4)
    assert q == pytest.approx(scales.q, abs=1e-6)


@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.5, 0.95, 0.999, 1.0])
def test_t5_the_correlation_map_of_relu_is_the_arc_cosine_kernel(c):
    angle = math.acos(c)
    expected = (math.sin(angle) + (math.pi - angle) * c) / math.pi
    assert card("relu").correlation_map(c, 2.0) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("c", [-0.9, 0.3, 0.99])
def test_t6_the_correlation_map_of_erf_is_an_arc_sine(c):
    assert card("erf(x)").correlation_map(c, 1.7) == pytest.approx(math.asin(2 * c / 3) / math.asin(2 / 3), abs=1e-14)


def test_t7_relu_on_the_edge_becomes_alike_by_the_square_of_depth():
    relu = card("relu")
    rate = relu.edge_rate()
    assert rate.power == 2
    assert rate.coefficient == pytest.approx(4.5 * math.pi**2, rel=1e-12)
    apart = relu.correlations(0.0, 100_000, 2.0)
    # The same iteration from the closed form of the map, in 1 - c.
    exact = 1.0
    for _ in range(10_000):
        angle = 2 * math.asin(math.sqrt(exact / 2))
        series = angle**3 / 3 - angle**5 / 30 + angle**7 / 840
        exact -= (series if angle < 0.05 else math.sin(angle) - angle * math.cos(angle)) / math.pi
    assert apart[10_000] == pytest.approx(exact, rel=1e-9)
    assert apart[100_000] * 1e10 == pytest.approx(rate.coefficient, rel=1e-3)


def test_t8_tanh_on_the_edge_becomes_alike_by_depth():
    tanh = card("tanh")
    edge, rate = tanh.edge_of_chaos(0.5), tanh.edge_rate(0.5)
    assert rate.power == 1
    assert rate.coefficient == pytest.approx(7.3067, abs=5e-5)
    apart = tanh.correlations(0.0, 100_000, *edge, q=0.5)
    assert apart[-1] * 1e5 == pytest.approx(rate.coefficient, rel=1e-3)


def test_t9_selu_keeps_and_attracts_mean_0_and_variance_1():
    found = card("selu").self_normalising()
    assert (found.mean, found.variance) == pytest.approx((0, 1), abs=1e-14)
    assert found.mean_slope == pytest.approx(0.088834, abs=1e-6)
    assert found.variance_slope == pytest.approx(0.782648, abs=1e-6)
    assert found.attracting
    assert not card("elu").self_normalising().fixed


def test_t10_the_energy_of_a_narrow_relu_layer_spreads_by_5_over_its_width():
    spread = card("relu").finite_width()
    assert spread == pytest.approx(5, rel=1e-12)
    width, layers = 10, 40_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(width, generator=generator, dtype=torch.float64)
    weights = torch.randn(layers, width, width, generator=generator, dtype=torch.float64) * math.sqrt(2 / width)
    factor = torch.relu(weights @ x).square().sum(1) / x.square().sum()
    assert factor.mean().item() == pytest.approx(1, abs=0.015)
    assert factor.square().mean().item() == pytest.approx(1 + spread / width, abs=0.05)


def test_t16_a_straight_line_explains_73_percent_of_relu():
    variance = 0.5 - 1 / (2 * math.pi)
    assert card("relu").linear_r2() == pytest.approx(0.25 / variance, rel=1e-13)
    assert card("relu").linear_r2(7.0) == pytest.approx(0.73347, abs=5e-6)
    assert card("identity").linear_r2() == pytest.approx(1, abs=1e-14)
    assert card("abs").linear_r2() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("name", "expected"), EDGES.items(), ids=EDGES)
def test_edges_agree_with_independent_quadrature(name, expected):
    one = card(name)
    edge = one.edge_of_chaos()
    assert edge == pytest.approx(expected, abs=6e-5)
    assert one.no_edge() == ""
    assert one.chi(edge.sigma_w2) == pytest.approx(1, rel=1e-14)
    assert one.variance_map(1.0, *edge) == pytest.approx(1, rel=1e-14)


def test_sigmoid_has_an_edge_at_large_variances_only():
    sigmoid = card("sigmoid")
    assert sigmoid.edge_of_chaos() is None
    assert sigmoid.edge_of_chaos(45.5) is None
    assert sigmoid.edge_of_chaos(45.7) == pytest.approx((103.1, 0.05), rel=0.02, abs=0.05)
    assert "turn the variance 1 into more (6.543) before any bias is added" in sigmoid.no_edge()
    assert sigmoid.no_edge().endswith("There is one at variances from 45.6 up.")


def test_softplus_has_no_edge_at_all():
    softplus = card("softplus")
    assert all(softplus.edge_of_chaos(q) is None for q in (1e-4, 1e-2, 1.0, 5.0))
    assert "none at any variance" in softplus.no_edge()
    assert softplus.edge_rate() is None


def test_a_jump_leaves_no_edge():
    assert "jumps, so inputs that are almost alike are torn apart" in card("sign(x)").no_edge()


def test_chaotic_networks_settle_at_a_correlation_below_1():
    tanh = card("tanh")
    scales = tanh.depth_scales(2.5, 0.05)
    assert scales.phase == "chaotic"
    assert 0 < scales.c < 1
    assert tanh.correlation_map(scales.c, 2.5, 0.05, scales.q) == pytest.approx(scales.c, abs=1e-12)
    apart = tanh.correlations(0.9, 200, 2.5, 0.05, scales.q)
    assert 1 - apart[-1] == pytest.approx(scales.c, abs=1e-7)
    steps = [abs(1 - one - scales.c) for one in apart]
    assert steps[61] / steps[60] == pytest.approx(math.exp(-1 / scales.correlation), rel=1e-3)


def test_fixed_points_are_found_stable_or_not():
    tanh = card("tanh")
    zero, other = tanh.fixed_points(1.5)
    assert (zero.q, zero.stable) == (0, False)
    assert zero.slope == pytest.approx(1.5, rel=1e-6)
    assert other.stable
    assert tanh.variance_map(other.q, 1.5) == pytest.approx(other.q, rel=1e-12)
    stable, unstable = card("gelu").fixed_points(2.2, 0.06)
    assert stable.stable
    assert not unstable.stable
    assert card("gelu").depth_scales(3.0, 0.06) is None
    (relu,) = card("relu").fixed_points(1.0, 0.1)
    assert relu.q == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize("c", [0.9999, 0.999, 0.99])
def test_the_map_of_a_fast_wave_is_resolved(c):
    """`sin(30 x)`: the correlation behind it is `exp(-900 (1 - c))`."""
    assert card("sine").correlation_map(c, 1.0) == pytest.approx(math.exp(-900 * (1 - c)), abs=1e-12)


@pytest.mark.parametrize("name", ["gelu", "hardtanh", "selu"])
def test_correlation_maps_agree_with_simulated_pairs(name):
    one, generator = card(name), torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    c = 0.7
    u, v = a, c * a + math.sqrt(1 - c * c) * b
    product = (one(u) * one(v)).mean().item()
    expected = (1.3 * product + 0.1) / (1.3 * one.moments().square + 0.1)
    assert one.correlation_map(c, 1.3, 0.1) == pytest.approx(expected, abs=0.006)


def test_the_interpolated_iteration_takes_the_steps_of_the_map():
    for name in ("hardtanh", "sin(3 * x)"):
        one = card(name)
        apart = one.correlations(-0.4, 6, 1.5, 0.2)
        for before, after in pairwise(apart):
            assert 1 - one.correlation_map(1 - before, 1.5, 0.2) == pytest.approx(after, abs=1e-11)


def test_rates_of_kinks_add_up():
    """The correlation map of a kinked activation near 1 against the coefficient that its kinks give."""
    one = card("hardtanh")
    edge, rate = one.edge_of_chaos(0.8), one.edge_rate(0.8)
    apart = np.array(one.correlations(0.5, 20_000, *edge, q=0.8))
    # 1 / sqrt(1 - c) grows by 1 / sqrt(coefficient) a layer.
    growth = (apart[-1] ** -0.5 - apart[10_000] ** -0.5) / 10_000
    assert growth == pytest.approx(rate.coefficient**-0.5, rel=1e-3)


def test_a_kinked_function_that_bends_is_slow_at_first():
    """The slower law holds where it is less: hardswish's kinks lie so far out that they matter after 1e5 layers."""
    one = card("hardswish")
    edge, rate = one.edge_of_chaos(), one.edge_rate()
    assert rate.power == 2
    # phi'' is 1/3 between the kinks.
    between = math.erf(3 / math.sqrt(2))
    assert rate.early == pytest.approx(2 / (edge.sigma_w2 * between / 9), rel=1e-10)
    apart = one.correlations(0.3, 1000, *edge)
    assert apart[1000] * 1000 == pytest.approx(rate.early, rel=0.15)
    assert "falls like 6.471 / depth, and like 7.402e+05 / depth^2 from depth 100000 on" in one.facts["edge of chaos"]
    assert card("relu").edge_rate().early == card("gelu").edge_rate().early == math.inf


def test_a_jump_is_chaotic_and_contributes_to_the_slope_of_the_map():
    """The map of the sign is `2/pi asin(c)`, whose slope at its fixed point 0 is 2/pi and at 1 infinite."""
    scales = card("sign(x)").depth_scales(1.0)
    assert (scales.phase, scales.chi) == ("chaotic", 0.0)
    assert scales.c == pytest.approx(0, abs=1e-12)
    assert scales.correlation == pytest.approx(-1 / math.log(2 / math.pi), rel=1e-7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda one: one.chi(-1.0), "sigma_w2 must be a positive number, got -1.0"),
        (lambda one: one.variance_map(1.0, 1.0, -0.1), "sigma_b2 must be a number of at least 0, got -0.1"),
        (lambda one: one.correlation_map(1.2, 1.0), "c must be a correlation between -1 and 1, got 1.2"),
        (lambda one: one.correlations(0.0, -1, 1.0), "depth must be at least 0, got -1"),
        (lambda one: one.edge_of_chaos(0.0), "q must be a positive variance, got 0.0"),
    ],
)
def test_bad_arguments_are_named(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call(card("tanh"))
