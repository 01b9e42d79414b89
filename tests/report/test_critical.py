"""Critical-difference diagrams."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from softknee._report.critical import Ranked, critical_diagram

NOTES = {"title": "t", "description": "d"}


def tree(picture):
    root = ElementTree.fromstring(picture)
    assert [node.tag for node in root[:2]] == ["title", "desc"]
    return root


def many(count):
    """Ranks from 1 to `count`, half of them in close pairs, in no order."""
    return [Ranked(f"activation {i}", 1 + (i * 7 % count) // 2 * 2 + 0.1 * (i % 2)) for i in range(count)]


def leaders(root):
    found = (node for node in root.iter("g") if node.find("circle") is not None)
    pattern = r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)"
    return [tuple(map(float, re.fullmatch(pattern, node.find("path").get("d")).groups())) for node in found]


def bars(root):
    return [node for node in root.iter("rect") if "segment" in node.get("class")]


def test_marks_lie_where_the_ranks_say_and_the_ruler_has_the_scale_of_the_axis():
    root = tree(critical_diagram([Ranked("b", 3.0), Ranked("a", 1.5), Ranked("c", 2.0)], [], critical=0.5, **NOTES))
    places = [float(node.get("cx")) for node in root.iter("circle")]
    assert places == pytest.approx([325.0, 420.0, 610.0])
    (ruler,) = (node.get("d") for node in root.iter("path") if "v8" in node.get("d"))
    start, end = map(float, re.match(r"M([\d.]+) .*H([\d.]+)", ruler).groups())
    assert end - start == pytest.approx(0.5 * 190)


@pytest.mark.parametrize("count", [1, 2, 3, 13, 40])
def test_labels_do_not_overlap_and_stay_inside(count):
    root = tree(critical_diagram(many(count), [], critical=1.0, **NOTES))
    names = [node for node in root.iter("text") if node.get("class") == "strong"]
    assert len(names) == count
    for side in ("start", "end"):
        heights = [float(node.get("y")) for node in names if node.get("text-anchor") == side]
        assert all(after - before >= 16 for before, after in pairwise(sorted(heights)))
        assert max(heights, default=0) <= float(root.get("height"))


def test_leaders_do_not_cross():
    lines = leaders(tree(critical_diagram(many(40), [], critical=1.0, **NOTES)))
    assert len(lines) == 40
    for one, other in combinations(lines, 2):
        for (x, top, foot, _), (start, _, y, end) in ((one, other), (other, one)):
            assert not (top < y < foot and min(start, end) < x < max(start, end))


def test_groups_are_bars_from_best_to_worst_that_name_their_members():
    ranked = [Ranked("worst", 4.0), Ranked("a<b", 1.0), Ranked("c", 2.0), Ranked("d", 2.5)]
    root = tree(critical_diagram(ranked, [[1, 2], [2, 3], [3, 0]], critical=1.6, **NOTES))
    first, second, third = bars(root)
    assert first[0].text == "not told apart: a<b and c"
    assert third[0].text == "not told apart: d and worst"
    left, scale = 230.0, 380 / 3
    assert float(first.get("x")) == pytest.approx(left - 4, abs=0.1)
    assert float(first.get("width")) == pytest.approx(scale + 8, abs=0.1)
    # The first two share a member, so they lie on two levels; the third has room beside the first.
    assert float(second.get("y")) > float(first.get("y")) == float(third.get("y"))


def test_bars_lie_above_all_labels():
    ranked = many(40)
    groups = [[i for i, item in enumerate(ranked) if start <= item.rank < start + 9] for start in range(1, 31, 2)]
    root = tree(critical_diagram(ranked, groups, critical=9.0, **NOTES))
    lowest = max(float(node.get("y")) + float(node.get("height")) for node in bars(root))
    assert lowest < min(height for _, _, height, _ in leaders(root)) - 8
    on_one_level = {}
    for node in bars(root):
        on_one_level.setdefault(node.get("y"), []).append((float(node.get("x")), float(node.get("width"))))
    for spans in on_one_level.values():
        assert all(x + long < after for (x, long), (after, _) in pairwise(sorted(spans)))


def test_a_critical_difference_longer_than_the_axis_says_so():
    picture = critical_diagram([Ranked("a", 1.0), Ranked("b", 2.0)], [[0, 1]], critical=1.39, **NOTES)
    assert "critical difference 1.39, more than the axis is long" in picture
    assert "more than" not in critical_diagram([Ranked("a", 1.0), Ranked("b", 2.0)], [], critical=0.5, **NOTES)


def test_long_names_are_cut_but_keep_their_rank():
    name = "0.5*swish(x, b) + 0.5*gelu(x)"
    root = tree(critical_diagram([Ranked(name, 1.25), Ranked("relu", 1.75)], [], critical=0.5, **NOTES))
    shown = next(node.text for node in root.iter("text") if (node.text or "").endswith("1.25"))
    assert len(shown) * 8.3 < 230
    assert f"{name}: average rank 1.25" in [node.text for node in root.iter("title")]
