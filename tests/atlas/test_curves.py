from __future__ import annotations

import math

import pytest
import torch

from softknee._atlas.examples import noise_of, vector_example
from softknee._atlas.facts import entry_of
from softknee._atlas.likeness import alike
from softknee._atlas.sliders import sliders_of
from softknee._card.curves import REACHES, USUAL, curves_of, reach_of
from softknee._card.subject import Subject
from softknee._catalogue import CATALOGUE, get

ELEMENTS = [spec for spec in CATALOGUE if spec.kind != "vector"]


def curves(name):
    return curves_of(Subject.of(get(name)))


def near(found, x):
    """Return the place in a curve that is closest to a position."""
    return min(range(len(found.x)), key=lambda i: abs(found.x[i] - x))


@pytest.mark.parametrize("name", ["relu", "gelu", "sigmoid", "elu", "prelu", "squared_relu", "identity"])
def test_ordinary_functions_are_shown_on_the_usual_range(name):
    assert reach_of(Subject.of(get(name))) == USUAL


@pytest.mark.parametrize(("name", "reach"), [("relu6", 10), ("softcap", 100), ("sine", 0.5), ("wire", 1), ("sin", 10)])
def test_others_on_one_that_shows_what_they_do(name, reach):
    assert reach_of(Subject.of(get(name))) == reach


def test_curves_are_those_of_torch():
    found = curves("gelu")
    x = torch.tensor(found.x, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    share = (1 + torch.erf(x / math.sqrt(2))) / 2
    for line, expected in (
        (found.value, x * share),
        (found.slope, share + x * density),
        (found.bend, (2 - x**2) * density),
    ):
        assert torch.allclose(torch.tensor(line, dtype=torch.float64), expected, atol=1e-12)


def test_derivatives_break_at_kinks_and_values_do_not():
    found = curves("leaky_relu")
    assert None not in found.value
    assert found.slope.count(None) == 1
    before, behind = near(found, -0.1), near(found, 0.1)
    assert (found.slope[before], found.slope[behind]) == (0.01, 1.0)


def test_values_break_at_jumps():
    found = curves("thresholded_relu")
    gap = found.value.index(None)
    assert found.x[gap] == pytest.approx(1.0, abs=0.03)


def test_a_single_stray_point_is_put_into_line():
    """The sine over x is 0 / 0 in one place of its derivative."""
    found = curves("sinc")
    assert None not in found.slope
    assert abs(found.slope[near(found, 0.0)]) < 1e-2


def test_what_the_backward_pass_differentiates_is_there_for_surrogates_only():
    assert curves("relu").backward is None
    found = curves("sign_ste")
    assert found.backward[near(found, 0.5)] == pytest.approx(0.5)


def test_second_derivatives_that_would_dwarf_the_first_are_divided():
    assert curves("gelu").divisor == 1
    found = curves("sine")
    assert found.divisor == 20
    assert max(found.slope) <= found.slopes[1]


@pytest.mark.parametrize("spec", ELEMENTS, ids=lambda spec: spec.name)
def test_every_function_has_a_range_and_sliders_that_hold_its_defaults(spec):
    subject = Subject.of(spec)
    found = curves_of(subject, points=101)
    assert found.reach in REACHES
    for low, high in (found.values, found.slopes):
        assert math.isfinite(low)
        assert low < high
    assert sum(value is None for value in found.value) < 10
    sliders = sliders_of(subject)
    assert len({slider.key for slider in sliders}) == len(sliders)
    for slider in sliders:
        assert slider.low <= slider.start <= slider.high
        assert slider.low < slider.high
        param = next((param for param in spec.parameters if param.name == slider.name), None)
        if param is not None and param.low is not None:
            assert slider.low > param.low or (slider.low == param.low and not param.open_low)


def test_sliders_come_in_the_order_in_which_they_are_looked_for():
    keys = [slider.key for slider in sliders_of(Subject.of(get("swiglu_oai")))]
    assert keys == ["value", "limit", "alpha"]
    assert [slider.symbol for slider in sliders_of(Subject.of(get("swish")))] == [r"\beta"]
    staf = sliders_of(Subject.of(get("staf")))
    assert {slider.name for slider in staf} == {"amplitude", "frequency", "phase"}
    assert [slider.entry for slider in staf if slider.name == "phase"] == [0, 1, 2, 3, 4]


def test_noise_is_drawn_as_a_band():
    noise = noise_of(Subject.of(get("rrelu")), 5.0)
    assert noise.changed == {}
    left = noise.band.low[0], noise.band.high[0]
    # Slopes are uniform between 1/8 and 1/3.
    assert left == pytest.approx((-5 * (1 / 8 + 0.95 * 5 / 24), -5 * (1 / 8 + 0.05 * 5 / 24)), rel=0.03)
    assert noise.band.low[-1] == noise.band.high[-1] == 5.0
    assert noise_of(Subject.of(get("prob_act")), 5.0).changed == {"sigma": 0.5}
    assert noise_of(Subject.of(get("relu")), 5.0) is None


def test_vectors_have_an_example():
    entry = entry_of(get("maxmin"), None)
    example = vector_example(entry.module)
    assert example.outputs == pytest.approx([1.2, -0.4, 2.1, 0.3, 0.8, -1.5, 1.7, -0.2])
    assert len(vector_example(entry_of(get("fta"), None).module).outputs) == 40


def test_functions_alike_are_found():
    entries = [entry_of(get(name), None) for name in ("gelu", "gelu_tanh", "relu", "sigmoid")]
    found = alike(entries)
    assert [other.name for other in found["gelu"]][:2] == ["gelu_tanh", "relu"]
    assert found["gelu"][0].distance < 5e-4
    assert alike(entries[:1]) == {}
