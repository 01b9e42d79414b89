from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softknee._report.svg import (
    HUES,
    Scale,
    drawing,
    element,
    focus,
    hue_class,
    label,
    padded,
    shorten,
    tick_text,
    ticks,
)

FINITE = st.floats(-1e6, 1e6)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))


@given(TEXT)
def test_any_text_survives_as_attribute_title_and_label(text):
    picture = drawing(10, 10, [label(0, 0, text, longest=10_000)], title=text, description=text, class_="x")
    root = ElementTree.fromstring(picture)
    assert [child.text or "" for child in root] == [text, text, text]
    assert ElementTree.fromstring(element("path", d=text)).get("d").split() == text.split()


def test_a_drawing_names_and_describes_itself():
    root = ElementTree.fromstring(drawing(10, 20, [], title="a", description="b", class_="x"))
    assert [(child.tag, child.text) for child in root] == [("title", "a"), ("desc", "b")]
    assert root.get("role") == "img"
    assert root.get("viewBox") == "0 0 10 20"


@given(FINITE, FINITE, st.integers(2, 10))
def test_ticks_are_few_even_and_inside(low, high, about):
    low, high = min(low, high), max(low, high)
    if high - low < 1e-3:
        return
    found = ticks(low, high, about=about)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert all(low - slack <= value <= high + slack for value in found)
    assert 1 <= len(found) <= 2 * about + 2
    steps = [after - before for before, after in pairwise(found)]
    assert steps == pytest.approx(steps[:1] * len(steps), rel=1e-6, abs=slack)


def test_a_scale_maps_its_ends_and_stops_far_outside():
    scale = Scale(0, 10, 100, 0)
    assert [scale(0), scale(5), scale(10)] == [100, 50, 0]
    assert math.isfinite(scale(1e300))
    assert (scale.edge(-5), scale.edge(50)) == (100, 0)
    assert (scale.holds(10), scale.holds(11)) == (True, False)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, min_value=None), max_size=8))
def test_a_padded_range_is_never_empty(values):
    values = [value for value in values if not math.isfinite(value) or abs(value) < 1e100]
    low, high = padded(values)
    assert low < high
    assert all(low <= value <= high for value in values if math.isfinite(value))


def test_focus_leaves_out_the_one_that_would_flatten_the_rest():
    assert focus([10.0, 77.0, 80.0, 81.0, 82.0, 82.5, 83.0, 87.0]) == (77.0, 87.0)
    assert focus([1.0, 2.0, 3.0]) == (1.0, 3.0)
    assert focus([]) == (0.0, 1.0)


def test_fourteen_series_look_different():
    assert len({hue_class(index) for index in range(HUES)}) == HUES == 14


def test_long_labels_are_cut_in_the_middle_and_whole_in_the_tooltip():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghijk", 10) == "abcde…hijk"
    assert len(shorten("x" * 99, 10)) == 10
    assert "<title>abcdefghijk</title>" in label(0, 0, "abcdefghijk", longest=10)


def test_ticks_are_written_short_with_a_true_minus():
    assert [tick_text(value) for value in (0.0, -2.5, 1e-5, 1500, 0.1 + 0.2)] == ["0", "−2.5", "1e−5", "1500", "0.3"]
