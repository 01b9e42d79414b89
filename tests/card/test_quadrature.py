from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from softknee._card.function import function_of
from softknee._card.hermite import Hermite
from softknee._card.pairs import pair
from softknee._card.quadrature import integrate
from softknee._catalogue import CATALOGUE
from softknee._errors import UsageError

# By make_golden_moments.py: mpmath from the formula texts, without torch.
GOLDEN = json.loads(Path(__file__).with_name("golden_moments.json").read_text())
EXACT = 1e-12


def cdf(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def test_every_activation_of_single_elements_that_a_formula_states_has_golden_moments():
    stated = {spec.name for spec in CATALOGUE if spec.kind == "elementwise" and spec.statement is None}
    assert set(GOLDEN) == stated
    assert max(one["doubt"] for moments in GOLDEN.values() for one in moments.values()) < 1e-16


@pytest.mark.parametrize("name", GOLDEN)
def test_moments_of_the_catalogue_agree_with_mpmath(name):
    function = function_of(name)
    for q, expected in GOLDEN[name].items():
        rule = integrate(function, float(q))
        got = (rule.first, rule.square, rule.slope_square)
        assert got == pytest.approx(
            [float(expected[key]) for key in ("mean", "square", "slope_square")], rel=EXACT, abs=EXACT
        )


@pytest.mark.parametrize("gap", [1e-1, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("start", [0.0, 0.3, -2.0])
def test_kinks_may_be_as_close_as_they_like(start, gap):
    end = start + gap
    rule = integrate(function_of(lambda x: (x - start).clamp_min(0) - (x - end).clamp_min(0)))
    # cdf(end) - cdf(start), without cancellation.
    between = math.exp(-start * start / 2) / math.sqrt(2 * math.pi) * (gap - start * gap**2 / 2) if gap < 1e-3 else None
    expected = between or cdf(end) - cdf(start)
    assert rule.slope_square == pytest.approx((end - start) / gap * expected, rel=2e-7 if between else 1e-12)


def test_a_mean_shifts_the_density():
    rule = integrate(function_of("relu"), 4.0, 0.7)
    a = 0.7 / 2
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    assert rule.first == pytest.approx(0.7 * cdf(a) + 2 * density, rel=EXACT)
    assert rule.square == pytest.approx((0.49 + 4) * cdf(a) + 0.7 * 2 * density, rel=EXACT)


@pytest.mark.parametrize("name", ["relu", "hardtanh", "gelu", "tanh", "selu", "magnitude_threshold", "step_ste"])
def test_growth_is_the_derivative_by_the_variance(name):
    """Kinks and jumps contribute to it, which no second derivative would show."""
    function, h = function_of(name), 1e-4
    ahead, behind = (integrate(function, 1 + sign * h).square for sign in (1, -1))
    assert integrate(function).growth == pytest.approx((ahead - behind) / (2 * h), abs=1e-8)


@pytest.mark.parametrize("c", [0.95, 0.5, 0.0, -0.3, -0.95])
def test_t5_series_of_relu_is_the_arc_cosine_kernel(c):
    series = Hermite.of(integrate(function_of("relu")))
    assert series.product(torch.tensor(c, dtype=torch.float64)).item() == pytest.approx(arc_cosine(c), abs=1e-14)


def test_the_bound_of_the_series_holds_and_is_not_far_off():
    series = Hermite.of(integrate(function_of("relu")))
    off = abs(series.product(torch.tensor(0.99, dtype=torch.float64)).item() - arc_cosine(0.99))
    assert 1e-8 < off <= series.bound(0.99) < 1e-7


def test_coefficients_of_polynomials_are_exact():
    found = Hermite.of(integrate(function_of("x ** 3"), 4.0), order=6).coefficients[:, 0]
    # 8 z^3 = 8 (sqrt(6) h_3 + 3 h_1)
    assert found.tolist() == pytest.approx([0, 24, 0, 8 * math.sqrt(6), 0, 0, 0], abs=1e-11)


@pytest.mark.parametrize("c", [1 - 1e-13, 0.999, 0.3, 0.0, -0.5, -0.99])
def test_t5_pairs_of_relu_are_the_arc_cosine_kernels(c):
    gap = 1 - c
    both = pair(function_of("relu"), [0.0], gap)
    angle = 2 * math.asin(math.sqrt(gap / 2))
    assert both.product == pytest.approx((math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi), abs=1e-13)
    assert both.slopes == pytest.approx((math.pi - angle) / (2 * math.pi), abs=1e-13)
    apart = gap / 2 - (math.sin(angle) - angle * math.cos(angle)) / (2 * math.pi)
    assert both.apart == pytest.approx(apart, rel=1e-9)


@pytest.mark.parametrize(("q", "other"), [(1.0, 1.0), (0.3, 4.0), (9.0, 9.0)])
@pytest.mark.parametrize("c", [0.999, 0.4, -0.7])
def test_t6_pairs_of_erf_have_a_closed_form(c, q, other):
    got = pair(function_of("erf(x)"), [], 1 - c, q, other).product
    norm = math.sqrt((1 + 2 * q) * (1 + 2 * other))
    assert got == pytest.approx(2 / math.pi * math.asin(2 * c * math.sqrt(q * other) / norm), abs=1e-13)


def test_no_variance_is_refused():
    with pytest.raises(UsageError, match="q must be a positive variance, got inf"):
        integrate(function_of("relu"), math.inf)
    with pytest.raises(UsageError, match="mean must be finite, got nan"):
        integrate(function_of("relu"), 1.0, math.nan)


def arc_cosine(c):
    angle = math.acos(c)
    return (math.sin(angle) + (math.pi - angle) * c) / (2 * math.pi)
