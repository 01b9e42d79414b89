from __future__ import annotations

import math

import pytest
import torch

from softknee._atlas.characteristics import CLASSIC, mean_of, row_of
from softknee._atlas.claims import claims_of, figure, kinks_text, range_of
from softknee._atlas.corrections import corrections
from softknee._atlas.facts import CHEAP, DEAR, adaptation, cost_class, entry_of
from softknee._atlas.usage import facts_text, snippet
from softknee._card.subject import Subject
from softknee._catalogue import CATALOGUE, get


def entry(name):
    return entry_of(get(name), None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("gelu", "fixed"), ("leaky_relu", "fixed"), ("swish", "parametric"), ("staf", "structural")),
        *(("rational", "structural"), ("dynamic_relu", "input-based"), ("rrelu", "stochastic"), ("gdn", "parametric")),
    ],
)
def test_adaptation(name, expected):
    assert adaptation(get(name)) == expected


def test_costs():
    assert [cost_class(price) for price in (0, CHEAP, CHEAP + 1, DEAR, DEAR + 1, None)] == [
        *("cheap", "cheap", "moderate", "moderate", "expensive", "not counted"),
    ]
    assert entry("relu").cost == "cheap"
    assert entry("staf").cost == "expensive"
    assert entry("softmax").cost == "not counted"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "gelu", "swish", "staf", "softmax", "identity", "pwlu"])
def test_the_engine_is_the_one_that_the_module_says(name):
    found = entry(name)
    assert found.engine == getattr(found.module, "engine", "eager")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("sigmoid", "(0, 1)"), ("tanh", "(−1, 1)"), ("relu", "[0, ∞)"), ("relu6", "[0, 6]"), ("elu", "(−1, ∞)")),
        *(("identity", "(−∞, ∞)"), ("hardtanh", "[−1, 1]"), ("gauss", "(0, 1]"), ("loglog", "(0, 1)")),
        *(("gelu", "[−0.17, ∞)"), ("sin", "[−1, 1]")),
    ],
)
def test_ranges_are_open_where_an_end_is_only_approached(name, expected):
    assert range_of(entry(name), 3) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("relu", "kink at 0"), ("hardswish", "kinks at −3, 3"), ("elu", "second derivative jumps at 0")),
        *(("gelu", "no kink"), ("linear_spline", "kink at 0"), ("softsign", "a higher derivative jumps")),
    ],
)
def test_kinks_are_told_from_smoother_joins(name, expected):
    assert kinks_text(entry(name)) == expected


def test_claims_stand_beside_what_is_seen():
    claims = {claim.title: (claim.promised, claim.seen) for claim in claims_of(entry("gelu"))}
    assert claims["Range"] == ("at least −0.17", "[−0.17, ∞)")
    assert claims["Never decreases"] == ("–", "no")
    assert claims["Steepest slope"] == ("at most 1.129", "1.129")
    assert claims_of(entry("softmax")) == []


# Means of an independent quadrature (96 panels of 24 nodes).
@pytest.mark.parametrize(
    ("name", "mean"),
    [
        *(("relu", 0.3989), ("leaky_relu", 0.3950), ("elu", 0.1605), ("selu", 0.0), ("gelu", 0.2821), ("silu", 0.2066)),
        *(("mish", 0.2404), ("telu", 0.2621), ("softplus", 0.8061), ("sigmoid", 0.5), ("hardswish", 0.1662)),
    ],
)
def test_means_for_standard_normal_inputs(name, mean):
    assert mean_of(Subject.of(get(name))) == pytest.approx(mean, abs=6e-5)


@pytest.mark.parametrize(
    ("name", "dead", "flat", "gradient"),
    [
        *(("relu", "off below 0", "left", "kept"), ("hardswish", "off below −3", "left", "kept")),
        *(("leaky_relu", "learning", "none", "kept"), ("tanh", "fading below −4.1", "both", "kept")),
        *(("sigmoid", "fading below −6.9", "both", "vanishes"), ("staf", "learning", "none", "grows")),
    ],
)
def test_characteristics(name, dead, flat, gradient):
    row = row_of(entry(name))
    assert (row.dead, row.flat, row.gradient) == (dead, flat, gradient)


def test_numbers_in_corrections():
    facts = {name: entry(name) for name in ("gelu", "sigmoid", "tanh", "elu", "selu", "hardswish", "relu")}
    told = {correction.claim: correction.fact for correction in corrections(facts)}
    text = " ".join(told.values())
    for number in ("−0.752", "−0.129", "1.129", "0.153", "1.18", "1.593", "0.161", "0.282", "0.487"):
        assert number in text
    assert "from 0 to −0.5 at −3 and from 1.5 to 1 at 3" in text
    assert all(set(correction.about) <= set(facts) for correction in corrections(facts))


def test_the_default_initialization_has_a_sixth_of_what_relu_needs():
    weight = torch.nn.Linear(4096, 256).weight
    assert weight.var().item() * 4096 == pytest.approx(1 / 3, rel=0.01)
    assert math.isclose(entry("relu").gain.forward ** 2, 2.0)


def test_classic_functions_are_in_the_catalogue():
    assert all(get(name).name == name for name in CLASSIC)


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_snippet_runs(spec):
    """What the page says to type, with an input in place of `x`."""
    lines = snippet(spec).replace("64", "8")
    x = torch.randn(2, 8)
    exec(lines, {"x": x, **{param.name: x for param in spec.parameters if param.given}})


def test_facts_in_words():
    facts = dict(facts_text(entry("prelu")))
    assert facts["Weight decay"].startswith("none for slope: softknee.parameter_groups(model, weight_decay)")
    assert facts["Parameters"] == "slope = 0.25 (trained)"
    assert facts["Cost"].startswith("cheap (9 vector instructions")
    assert "Weight decay" not in dict(facts_text(entry("gelu")))


@pytest.mark.parametrize(
    ("value", "text"), [(0.1285, "0.1285"), (-3.0, "−3"), (math.inf, "∞"), (-math.inf, "−∞"), (-1e-12, "0")]
)
def test_figures(value, text):
    assert figure(value) == text
