"""The page of cards: its numbers, its size, and how it behaves in a real browser."""

from __future__ import annotations

import json
import math
import re
import time
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from torch import nn

from softknee._bench.protocols import expand_groups
from softknee._card.card import card
from softknee._card.card_figures import (
    SIZE,
    correlation_figure,
    curves,
    phase_figure,
    surface_figures,
    variance_figure,
)
from softknee._card.card_page import card_page, cards_data, comparison, gain_table, limit_table
from softknee._cli import run
from softknee._errors import UsageError
from softknee._report.lines import BOTTOM, LEFT, RIGHT, TOP

SIZES = {"wide": {"width": 1100, "height": 900}, "narrow": {"width": 380, "height": 800}}
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chapter():
    return [card(name) for name in expand_groups(["chapter"])]


@pytest.fixture(scope="module")
def pages(chapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    for name, cards in {"one": chapter[3:4], "chapter": chapter}.items():
        (folder / f"{name}.html").write_text(card_page(cards), encoding="utf-8")
    return folder


def points(figure, name, x=(0.0, 1.0), y=(0.0, 1.03)):
    """Return the points of a line, mapped back from pixels."""
    root = ElementTree.fromstring(figure.picture)
    (path,) = (node for node in root.iter("path") if len(node) and node[0].text == name)
    width, height = SIZE
    start, end = height - BOTTOM, TOP + 14
    for a, b in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d")):
        across = (float(a) - LEFT) / (width - RIGHT - LEFT)
        up = (float(b) - start) / (end - start)
        yield x[0] + across * (x[1] - x[0]), y[0] + up * (y[1] - y[0])


def test_the_drawn_correlation_map_of_relu_is_the_arc_cosine_kernel():
    found = list(points(correlation_figure(card("relu")), "matched gain"))
    assert len(found) > 10
    for c, after in found:
        angle = math.acos(min(c, 1.0))
        expected = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
        assert after == pytest.approx(expected, abs=4e-3)


def test_the_dashed_line_has_the_slope_chi():
    gelu = card("gelu")
    figure = correlation_figure(gelu)
    chi = gelu.chi(gelu.gain**2)
    (_, low), (_, high) = points(figure, f"slope chi = {chi:.4f} at c = 1")
    assert high - low == pytest.approx(chi, abs=6e-3)


def test_the_cobweb_touches_map_and_diagonal_in_turn():
    stairs = list(points(correlation_figure(card("sigmoid")), "12 layers from 0.2"))
    assert stairs[0] == pytest.approx((0.2, 0.0), abs=5e-3)
    assert stairs[1][0] == pytest.approx(0.2, abs=5e-3)
    assert stairs[2][0] == pytest.approx(stairs[2][1], abs=1e-2)


def test_the_drawn_variance_map_of_relu_keeps_every_variance():
    found = points(variance_figure(card("relu")), "matched gain", (-2.0, 2.0), (-3.0, 3.0))
    assert all(after == pytest.approx(before, abs=0.04) for before, after in found)


def test_the_drawn_edge_of_gelu_goes_through_its_point_at_unit_variance():
    gelu = card("gelu")
    edge = gelu.edge_of_chaos(1.0)
    assert (edge.sigma_w2, edge.sigma_b2) == pytest.approx((2.1937, 0.0672), abs=1e-4)
    most_w, most_b = 1.6 * gelu.gain**2, max(0.2, 3 * edge.sigma_b2)
    air = 0.06 * most_b
    line = list(points(phase_figure(gelu), "the edge of chaos", (0.0, most_w), (-air, most_b + air)))
    # Segments are straight: the point lies close to one of them.
    distances = [
        abs(b + (d - b) * (edge.sigma_w2 - a) / (c - a) - edge.sigma_b2)
        for (a, b), (c, d) in pairwise(line)
        if min(a, c) <= edge.sigma_w2 <= max(a, c)
    ]
    assert min(distances) < 3e-3


def test_without_an_edge_there_is_no_phase_diagram_but_a_reason():
    sigmoid = card("sigmoid")
    assert phase_figure(sigmoid) is None
    assert sigmoid.no_edge(1.0)
    assert sigmoid.no_edge(1.0).split(";")[0][:40] in card_page([sigmoid]).replace("&#39;", "'")


def test_the_surface_of_relu_has_three_steepnesses():
    """The gradient of relu(x) + relu(y) is 0, 1 or sqrt(2) long, and nothing else."""
    height, steepness = (figure.picture for figure in surface_figures(card("relu"), 5.0, points=41))
    assert set(steepness.values) == {0.0, 1.0}
    assert steepness.range == pytest.approx((0.0, math.sqrt(2)))
    assert height.range == (0.0, 10.0)


def test_gains_of_relu_do_not_depend_on_the_variance():
    for row in gain_table(card("relu")).rows:
        assert [cell.text for cell in row[1:]] == ["1.4142", "1.4142", "1.0000", "0.7335"]


def test_limits_are_those_of_the_card():
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in limit_table(card("tanh")).rows}
    assert set(rows) == {"float32", "bfloat16", "float16"}
    assert float(rows["bfloat16"][1]) == pytest.approx(3.47, abs=0.02)
    assert {cell.text for row in limit_table(card("leaky_relu")).rows for cell in row[1:]} == {"never"}


def test_the_comparison_sorts_by_numbers(chapter):
    table = comparison(chapter)
    assert table.sortable
    gains = {row[0].text: row[1].value for row in table.rows}
    assert gains["gelu"] == pytest.approx(1.533530, abs=1e-6)
    assert len(table.rows) == 13


def test_curves_reach_as_far_as_there_is_something_to_see():
    assert curves(card("relu")).reach == 5.0
    assert curves(card("relu6")).reach == 10.0


def test_no_card_is_no_page():
    with pytest.raises(UsageError, match="at least one card"):
        card_page([])


@pytest.mark.parametrize("activation", ["0*x", "exp(x)", "sign(x)", "prelu[per_channel=3]", nn.Hardtanh()])
def test_odd_functions_have_a_page(activation):
    page = card_page([card(activation)])
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL).lower()


def test_a_card_writes_its_own_page(tmp_path):
    gelu = card("gelu")
    assert gelu.to_html(tmp_path / "gelu.html") == card_page([gelu]) == (tmp_path / "gelu.html").read_text("utf-8")


def test_a_surrogate_is_drawn_beside_the_step_it_stands_for():
    assert curves(card("relu")).backward is None
    found = curves(card("step_ste"))
    assert set(found.value) - {None} == {0.0, 1.0}
    assert len(set(found.backward)) > 20


@pytest.mark.slow
def test_a_page_of_all_is_possible(tmp_path):
    out = tmp_path / "all.html"
    assert run(["card", "all", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert len(embedded(page)["cards"]) > 180
    assert len(page) < 3_000_000


def test_names_are_only_ever_text():
    hostile = card(type(HOSTILE, (nn.ReLU,), {})())
    for cards in ([hostile], [hostile, card("relu")]):
        page = card_page(cards)
        assert "<img" not in page
        assert page.count("<script") == page.count("</script") == 1 + len(cards)


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_the_numbers(chapter, pages):
    assert embedded((pages / "chapter.html").read_text(encoding="utf-8")) == json.loads(json.dumps(cards_data(chapter)))


def test_thirteen_cards_are_a_small_page(pages):
    assert (pages / "chapter.html").stat().st_size < 400_000
    assert (pages / "one.html").stat().st_size < 60_000


def test_the_command_prints_and_writes(capsys, tmp_path):
    out, numbers = tmp_path / "sub" / "card.html", tmp_path / "card.json"
    assert run(["card", "gelu", "--out", str(out), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    assert "1.5335" in printed
    assert "⠁" in printed or "⣀" in printed
    assert str(out) in printed
    assert json.loads(numbers.read_text()) == embedded(out.read_text(encoding="utf-8"))


def test_the_command_compares_several(capsys):
    assert run(["card", "relu", "x*tanh(exp(x))", "relu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("relu") for line in lines) == 1
    assert any("1.3748" in line for line in lines if line.startswith(("x *", "x*")))


@pytest.mark.parametrize("name", ["swiglu", "softmax", "no_such", "x+"])
def test_what_has_no_card_is_refused_in_one_line(capsys, tmp_path, name):
    assert run(["card", "relu", name, "--out", str(tmp_path / "card.html")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", ["one", "chapter"])
def test_pages_are_quiet_and_load_only_themselves(open_page, pages, name):
    path = pages / f"{name}.html"
    page, complaints, requests = open_page(path)
    assert page.locator("canvas").count() == {"one": 2, "chapter": 26}[name]
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    assert complaints == []
    assert requests == [path.as_uri()]
    untitled = "document.querySelectorAll('svg.chart:not(:has(> title + desc))').length"
    assert page.evaluate(untitled) == 0


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["one", "chapter"])
def test_pages_of_cards_never_scroll_sideways(open_page, pages, name, size):
    page, _, _ = open_page(pages / f"{name}.html", viewport=SIZES[size])
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


@pytest.mark.browser
def test_thirteen_surfaces_are_drawn_within_a_second(open_page, pages):
    page, _, _ = open_page(pages / "chapter.html", viewport=SIZES["wide"])
    empty = """[...document.querySelectorAll('canvas')].filter(canvas => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return !data.some(value => value); }).length"""
    deadline = time.monotonic() + 20
    while page.evaluate(empty):
        assert time.monotonic() < deadline
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 1_000


@pytest.mark.browser
def test_without_javascript_the_facts_are_there(open_page, pages):
    page, complaints, _ = open_page(pages / "one.html", java_script_enabled=False)
    assert page.locator("canvas").count() == 0
    assert page.locator("#facts dt").count() >= 5
    assert page.get_by_text("1.5335").first.is_visible()
    assert complaints == []
