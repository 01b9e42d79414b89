"""The page on theory shows what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softknee._card.card import card
from softknee._card.function import function_of
from softknee._card.quadrature import integrate

PAGE = Path(__file__).parents[2].joinpath("docs", "theory.md").read_text("utf-8")
GOLDEN = json.loads(Path(__file__).with_name("golden_moments.json").read_text())


def test_the_numbers_on_the_page_are_true():
    gelu, plain = card("gelu"), " ".join(PAGE.replace("\n# ", " ").split())
    assert f"{gelu.gain:.4f}, {gelu.backward_gain:.4f}" in PAGE
    edge = gelu.edge_of_chaos()
    assert f"Edge(sigma_w2={edge.sigma_w2:.4f}, sigma_b2={edge.sigma_b2:.4f})" in PAGE
    assert f"{gelu.lipschitz:.6f}, {gelu.lipschitz_at:.4f}" in PAGE
    assert f"no gradient from {gelu.thresholds['float16'].low:.2f} down" in PAGE
    assert card("sigmoid").no_edge() in plain
    sigmoid = card("sigmoid")
    assert f"forward gain is {sigmoid.gain:.4f}, its backward gain {sigmoid.backward_gain:.4f}" in plain
    assert f"1.6667 for tanh ({card('tanh').gain:.4f})" in plain
    assert card("selu").gain == pytest.approx(1, abs=1e-14)


def test_the_largest_difference_from_mpmath_is_the_one_on_the_page():
    rule, expected = integrate(function_of("finer"), 9.0), float(GOLDEN["finer"]["9"]["slope_square"])
    assert "the largest difference is 4e-13" in " ".join(PAGE.split())
    assert abs(rule.slope_square / expected - 1) < 5e-13


def test_every_name_on_the_page_is_one():
    one = card("tanh")
    for name in ("gain", "backward_gain", "chi", "variance_map", "fixed_points", "correlation_map", "correlations"):
        assert f"`{name}" in PAGE
        assert hasattr(one, name)
    for name in ("depth_scales", "edge_of_chaos", "edge_rate", "self_normalising", "finite_width", "linear_r2"):
        assert f"`{name}(" in PAGE
        assert hasattr(one, name)
    for name in ("kernel", "dks", "tat", "lipschitz", "kinks", "pieces", "extrema", "asymptotes", "thresholds"):
        assert f"`{name}" in PAGE
        assert hasattr(one, name)
