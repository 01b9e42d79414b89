from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from softknee._report.forest import Slope, Span, forest, slopes
from softknee._report.heatmap import heatmap
from softknee._report.lines import Axes, Band, Series, line_chart, spark

NOTES = {"title": "t", "description": "d"}


def paths(picture, class_):
    root = ElementTree.fromstring(picture)
    return [node for node in root.iter("path") if class_ in (node.get("class") or "").split()]


def test_a_line_breaks_at_gaps_and_what_is_not_finite():
    series = Series("a", [0, 1, 2, 3, 4], [1.0, 2.0, None, 3.0, float("nan")])
    (line,) = paths(line_chart([series], axes=Axes(), **NOTES), "line")
    assert line.get("d").count("M") == 2
    assert line.get("d").count("L") == 1


def test_thin_lines_lie_under_means_and_both_are_named():
    series = [Series("mean", [0, 1], [0, 1]), Series("seed 0", [0, 1], [0, 2], weight="thin")]
    lines = paths(line_chart(series, axes=Axes(x="epoch"), **NOTES), "line")
    assert [node[0].text for node in lines] == ["seed 0", "mean"]


def test_values_outside_a_given_range_are_cut_off_by_an_inner_window():
    picture = line_chart([Series("a", [0, 1], [0, 1e30])], axes=Axes(y=(0, 1)), **NOTES)
    (window,) = ElementTree.fromstring(picture).findall("svg")
    assert float(window.get("height")) < 158
    assert "e+" not in picture


@pytest.mark.parametrize("series", [[], [Series("a", [], [])], [Series("a", [1.0], [None])]])
def test_an_empty_chart_is_still_a_chart(series):
    assert ElementTree.fromstring(line_chart(series, axes=Axes(), **NOTES)).tag == "svg"


def test_bands_and_markers_are_drawn():
    picture = line_chart(
        [Series("a", [0, 1], [0, 1], weight="ring"), Series("b", [0], [0], weight="cross")],
        bands=[Band("middle half", [0, 1], [0, 0], [1, 1])],
        axes=Axes(zero=True),
        **NOTES,
    )
    assert paths(picture, "band")[0].get("d").endswith("Z")
    assert paths(picture, "ring")[0].get("d").count("Z") == 2
    assert len(paths(picture, "cross")) == 1


def test_whole_ticks_are_whole():
    picture = line_chart([Series("a", [1, 12], [0, 1])], axes=Axes(whole=True, y=(0, 1)), **NOTES)
    below = [node.text for node in ElementTree.fromstring(picture).iter("text") if node.get("text-anchor") == "middle"]
    assert below == ["5", "10"]


def test_a_sketch_leaves_out_what_lies_outside_it():
    (line,) = paths(spark([-9, -1, 0, 1, 9], [0, 0, 0, 1, 9], title="relu"), "line")
    assert line.get("d").count("L") == 2


def spans():
    return [
        Span("a", 1.0, 0.5, 1.5, "+1.00", "better"),
        Span("b", -1.0, -1.5, -0.5, "−1.00", "worse"),
        Span("c", 0.0, -0.2, 0.2, "0.00", "equivalent"),
        Span("d", 0.1, -1.0, 1.2, "+0.10", "undecided"),
        Span("e", None, None, None, "too few seeds", "too-few-seeds"),
        Span("f", -70.0, -71.0, -69.0, "−70.00", "worse"),
    ]


def test_forest_marks_differ_in_shape_and_lie_where_the_numbers_say():
    marks = paths(forest(spans(), margin=0.5, unit="points", **NOTES), "mark")
    places = [float(re.match(r"M([\d.]+) ", node.get("d"))[1]) for node in marks]
    assert places[1] < places[2] < places[3] < places[0]
    assert len({node.get("d").split(" ", 1)[1].split("m", 1)[-1].split("l", 1)[-1] for node in marks}) == 5


def test_a_far_outlier_becomes_an_arrow_at_the_edge_without_flattening_the_rest():
    picture = forest(spans(), margin=0.5, unit="points", **NOTES)
    marks = paths(picture, "mark")
    assert marks[-1].get("d").startswith("M150.0 ")
    assert len(paths(picture, "whisker")) == 4


def test_the_band_spans_the_margin():
    root = ElementTree.fromstring(forest(spans()[:1], margin=0.5, unit="points", **NOTES))
    (band,) = (node for node in root.iter("rect") if node.get("class") == "margin")
    (whisker,) = (node for node in root.iter("path") if node.get("class") == "whisker")
    start, end = map(float, re.match(r"M([\d.]+) [\d.]+H([\d.]+)", whisker.get("d")).groups())
    assert float(band.get("width")) == pytest.approx(end - start, abs=0.2)


def test_slopes_name_each_line_once_without_overlap():
    several = [Slope(f"s{i}", [80 + 0.01 * i, 85.0], hue=i) for i in range(14)]
    root = ElementTree.fromstring(slopes(["first", "second"], several, **NOTES))
    ends = [node for node in root.iter("text") if (node.get("class") or "").startswith("end")]
    heights = sorted(float(node.get("y")) for node in ends)
    assert len(ends) == 14
    assert min(after - before for before, after in pairwise(heights)) >= 15.9
    assert heights[-1] <= float(root.get("height"))


def test_slopes_break_where_a_value_is_missing_or_far_outside():
    others = [Slope(f"s{i}", [80.0 + i, 85.0 + i, 86.0 + i], hue=i) for i in range(6)]
    strays = [Slope("gap", [81.0, None, 86.0], hue=7), Slope("far", [10.0, 85.0, 86.0], hue=8)]
    picture = slopes(["a", "b", "c"], [*others, *strays], **NOTES)
    *_, gap, far = paths(picture, "line")
    assert gap.get("d").count("M") == 2
    assert far.get("d").count("L") == 1
    assert ">10.0</text>" in picture


def test_a_heatmap_writes_shares_in_percent_and_leaves_small_ones_out():
    root = ElementTree.fromstring(heatmap(["a", "b"], [[0.996, 0.004], [0.25, 0.75]], **NOTES))
    cells = [node for node in root.iter("g") if node.get("class")]
    assert [(node.get("class").split()[0], node[2].text) for node in cells] == [
        ("right", "100"),
        ("wrong", "25"),
        ("right", "75"),
    ]
    assert cells[1][0].text == "b taken for a: 25.0%"
