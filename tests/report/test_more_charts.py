"""Logarithmic axes, stacked bars, ridges, fields."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from softknee._report.bars import Bar, stacked_bars
from softknee._report.field import field
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.ridge import Ridge, ridges
from softknee._report.svg import Scale, padded_log, simplified

NOTES = {"title": "t", "description": "d."}


def tree(picture):
    root = ElementTree.fromstring(picture)
    assert [node.tag for node in root[:2]] == ["title", "desc"]
    return root


def classed(root, name):
    return [node for node in root.iter() if name in (node.get("class") or "").split()]


def test_a_logarithmic_scale_gives_every_decade_the_same_room():
    scale = Scale(1e-3, 1e3, 0.0, 60.0, "log")
    assert [scale(10.0**power) for power in range(-3, 4)] == pytest.approx(range(0, 70, 10))
    assert not scale.has(0.0)
    assert not scale.has(-1.0)
    assert not scale.has(math.nan)
    assert scale.ticks() == pytest.approx([1e-3, 1e-1, 1e1, 1e3])


def test_a_narrow_logarithmic_scale_still_has_ticks():
    assert Scale(2.0, 8.0, 0.0, 1.0, "log").ticks() == [2.0, 5.0]


def test_a_symlog_is_odd_and_linear_around_zero():
    scale = Scale(-1e3, 1e3, -100.0, 100.0, "symlog", 0.1)
    assert scale(0.0) == pytest.approx(0.0)
    assert scale(-7.0) == pytest.approx(-scale(7.0))
    assert scale(1e-4) == pytest.approx(2 * scale(5e-5), rel=1e-6)
    found = scale.ticks()
    assert found == pytest.approx([-value for value in reversed(found)])
    places = [scale(value) for value in found]
    assert all(after - before >= 26 for before, after in pairwise(places))


def test_a_range_of_logarithms_ignores_what_has_none():
    low, high = padded_log([0.0, -3.0, 1e-4, 1.0, math.inf])
    assert 1e-5 < low < 1e-4
    assert 1.0 < high < 10.0
    assert padded_log([]) == (0.1, 1.0)


def test_zeros_leave_a_gap_in_a_logarithmic_chart():
    picture = line_chart(
        [Series("a", [1, 2, 3, 4], [1.0, 0.0, 2.0, 3.0])], axes=Axes(y_kind="log", y_name="norm"), **NOTES
    )
    (line,) = classed(tree(picture), "line")
    assert line.get("d").count("M") == 2
    assert "norm" in [node.text for node in tree(picture).iter("text")]


def test_points_can_be_named():
    series = Series("layers", [1.0, 2.0], [0.0, 1.0], weight="dots", texts=("first", ""))
    texts = [node.text for node in tree(line_chart([series], axes=Axes(), **NOTES)).iter("text")]
    assert texts.count("first") == 1


def test_a_simplified_line_stays_within_its_slack():
    points = [(float(x), 50 * math.sin(x / 20)) for x in range(201)]
    kept = simplified([*points, None, *points[:3]], slack=0.1)
    gap = kept.index(None)
    first = kept[:gap]
    assert len(first) < 70
    assert first[0] == points[0]
    assert first[-1] == points[-1]
    for x, y in points:
        (a, b), (c, d) = next((p, q) for p, q in pairwise(first) if p[0] <= x <= q[0])
        assert abs(b + (d - b) * (x - a) / (c - a) - y) < 0.3
    assert kept[gap + 1 :] == [points[0], points[2]]


def test_simplifying_keeps_closed_loops_and_single_points():
    loop = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 0.0)]
    assert simplified(loop) == loop
    assert simplified([None, (1.0, 1.0), None]) == [None, (1.0, 1.0), None]
    assert simplified([]) == []


def test_bars_are_as_long_as_their_shares_and_say_so():
    bars = [Bar("a", [0.5, 0.01, None], "n = 9"), Bar("b<c", [0.0, 0.0, 1.0])]
    root = tree(stacked_bars(bars, ["dead", "linear", "saturated"], **NOTES))
    widths = [float(node.get("width")) for node in classed(root, "segment")]
    assert widths == pytest.approx([199.0, 3.0, 399.0])
    assert [node.text for node in classed(root, "inside")] == ["50", "100"]
    hints = [node.text for node in root.iter("title")][1:]
    assert hints == [
        "a: dead 50.0%, linear 1.0%, saturated not known",
        "b<c: dead 0.0%, linear 0.0%, saturated 100.0%",
    ]


def test_ridges_have_areas_in_proportion_to_their_counts():
    rows = [Ridge("a", [0.0, 1.0, 3.0], [3, 10, 10, 1]), Ridge("b", [0.0, 1.0, 3.0], [5, 5])]
    root = tree(ridges(rows, x="z", **NOTES))
    paths = [node.get("d") for node in classed(root, "ridge")]
    (base, *heights), other = ([float(y) for y in re.findall(r"(?:M[\d.]+ |V)([\d.]+)", path)] for path in paths)
    # The second bin is twice as wide, so it is half as high.
    assert [base - y for y in heights] == pytest.approx([28, 14, 0], abs=0.1)
    assert other[1] != other[2]
    assert [node.text for node in classed(root, "figure")] == ["◀ 12.5%", "▶ 4.2%"]


@pytest.mark.parametrize("kind", ["linear", "log", "symlog"])
def test_ridges_of_nothing_are_still_a_chart(kind):
    rows = [Ridge("a", [0.0, 1.0, 3.0], [0, 0]), Ridge("b", [], [])]
    assert "nan" not in ridges(rows, kind=kind, **NOTES)


def covered(root):
    """Return the cells of a field by place, with their colours."""
    cells = {}
    for path in classed(root, "cells")[0]:
        for x, y, long in re.findall(r"M(\d+) (\d+)\.5h(\d+)", path.get("d")):
            cells |= {(int(x) + i, int(y)): path.get("stroke") for i in range(int(long))}
    return cells


def test_a_field_colours_every_cell_once_and_leaves_gaps_empty():
    rows = [[0.0, 1.0, 2.0], [None, math.nan, 2.0]]
    cells = covered(tree(field(rows, x=(0.0, 2.0), y=(0.0, 1.0), **NOTES)))
    assert set(cells) == {(0, 0), (1, 0), (2, 0), (2, 1)}
    assert cells[2, 0] == cells[2, 1] != cells[0, 0]


def test_a_logarithmic_field_leaves_out_what_has_no_logarithm():
    cells = covered(tree(field([[0.0, 1e-3, 1.0]], x=(0.0, 2.0), y=(0.0, 0.0), log=True, **NOTES)))
    assert set(cells) == {(1, 0), (2, 0)}


def test_contours_of_a_plane_are_straight_and_in_place():
    """z = x: the contour at 1 is the line x = 1."""
    rows = [[0.0, 0.6, 1.2, 1.8]] * 3
    root = tree(field(rows, x=(0.0, 1.8), y=(0.0, 1.0), contours=2, **NOTES))
    lines = {node[0].text: node.get("d") for node in classed(root, "contour")}
    places = {float(x) for x in re.findall(r"[ML]([\d.]+) ", lines["1"])}
    # Cells are 0.6 wide, the axis goes from -0.3 to 2.1 over 294 pixels from 52.
    assert sorted(places) == pytest.approx([52 + 294 * 1.3 / 2.4], abs=0.06)


def test_a_field_marks_places_by_name():
    root = tree(field([[1.0, 2.0], [3.0, 4.0]], x=(0, 1), y=(0, 1), points=[(0.0, 0.0, "<here>")], **NOTES))
    circle, text = classed(root, "place")
    assert circle[0].text == text.text == "<here>"


def test_a_constant_field_is_no_error():
    assert "nan" not in field([[2.0, 2.0]], x=(0.0, 1.0), y=(0.0, 0.0), contours=3, **NOTES)
    assert "nan" not in field([], x=(0.0, 1.0), y=(0.0, 1.0), **NOTES)
