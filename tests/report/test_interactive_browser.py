"""Surfaces and sortable tables in a real browser."""

from __future__ import annotations

import math
import time

import pytest

from softknee._report.page import Figure, Fold, Gallery, Page, Section, render_page
from softknee._report.surface import Surface
from softknee._report.table import Cell, Column, Table

pytestmark = pytest.mark.browser
LINE = [math.tanh(0.2 * index - 4) for index in range(41)]
GRID = [math.sin(a / 5) * b for b in range(-9, 10) for a in range(31)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    figures = [
        Figure(Surface("tanh", "A surface.", LINE)),
        Figure(Surface("tanh", "A map.", LINE, "norm", flat=True)),
        Figure(Surface("grid", "A grid.", [*GRID[:-1], None], "grid", columns=31, palette="sign")),
    ]
    numbers = [("a", "1,200"), ("b", "−3.5"), ("c", "–"), ("d", "+0.25"), ("e10", "7"), ("e9", "8")]
    rows = [[Cell(name, "name"), Cell(text)] for name, text in numbers]
    table = Table(
        "t", [Column("name", numeric=False), Column("number")], rows, [[Cell("all"), Cell("9")]], sortable=True
    )
    blocks = [Gallery(figures), table, Fold("more", [Gallery(figures[:1])])]
    path = tmp_path_factory.mktemp("interactive") / "page.html"
    path.write_text(
        render_page(Page("k", "t", ["The verdict."], [Section("a", "b", "c", blocks)], {})), encoding="utf-8"
    )
    return path


def shown(canvas):
    return canvas.evaluate("canvas => canvas.toDataURL()")


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def colours(canvas):
    """How many different colours a canvas shows."""
    return canvas.evaluate(
        """canvas => new Set(new Uint32Array(
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""
    )


def test_surfaces_are_drawn_quietly(open_page, path):
    page, complaints, requests = open_page(path)
    canvases = page.locator("canvas")
    assert canvases.count() == 4
    for index in range(3):
        until(lambda index=index: colours(canvases.nth(index)) > 40)
    assert complaints == []
    assert requests == [path.as_uri()]


def test_drag_and_arrow_keys_turn_a_surface(open_page, path):
    page, complaints, _ = open_page(path)
    canvas = page.locator("canvas").first
    until(lambda: colours(canvas) > 40)
    start = shown(canvas)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 90, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 110, steps=3)
    page.mouse.up()
    dragged = shown(canvas)
    assert dragged != start
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    assert shown(canvas) == dragged
    seen = {start, dragged}
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        seen.add(shown(canvas))
    assert len(seen) >= 5
    canvas.dblclick()
    assert shown(canvas) == start
    assert complaints == []


def test_a_finger_turns_it_across_and_scrolls_the_page_down(open_page, path):
    page, _, _ = open_page(path, has_touch=True, viewport={"width": 380, "height": 700})
    canvas = page.locator("canvas").first
    until(lambda: colours(canvas) > 40)
    assert canvas.evaluate("canvas => getComputedStyle(canvas).touchAction") == "pan-y"
    start = shown(canvas)
    box = canvas.bounding_box()
    session = page.context.new_cdp_session(page)
    for kind, across in (("touchStart", 100), ("touchMove", 130), ("touchMove", 180), ("touchEnd", None)):
        points = [] if across is None else [{"x": box["x"] + across, "y": box["y"] + 90}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    until(lambda: shown(canvas) != start)


def test_maps_stay_as_they_are(open_page, path):
    page, _, _ = open_page(path)
    assert page.locator("canvas").nth(1).get_attribute("tabindex") is None
    assert page.locator("canvas").nth(0).get_attribute("tabindex") == "0"


def test_a_map_is_dark_where_it_is_small(open_page, path):
    """sqrt(tanh(x)^2 + tanh(y)^2) is 0 in the middle and largest in the corners."""
    page, _, _ = open_page(path)
    canvas = page.locator("canvas").nth(1)
    until(lambda: colours(canvas) > 40)
    middle, corner = canvas.evaluate(
        """canvas => [[0.44, 0.45], [0.18, 0.06]].map(([x, y]) =>
            [...canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data])"""
    )
    assert (middle[:3], corner[:3]) == ([68, 1, 84], [252, 231, 37])


def test_a_folded_surface_is_drawn_once_it_is_opened(open_page, path):
    page, _, _ = open_page(path)
    canvas = page.locator("details canvas")
    assert colours(canvas) <= 1
    page.locator("summary").click()
    until(lambda: colours(canvas) > 40)


def test_dark_pages_have_light_letters(open_page, path):
    page, _, _ = open_page(path, color_scheme="light")
    canvas = page.locator("canvas").first
    until(lambda: colours(canvas) > 40)
    light = shown(canvas)
    page.emulate_media(color_scheme="dark")
    until(lambda: shown(canvas) != light)


def test_surfaces_say_what_they_are(open_page, path):
    page, _, _ = open_page(path)
    label = page.locator("canvas").first.evaluate("canvas => canvas.ariaLabel")
    assert label == "tanh. A surface. From −2 to 2. Drag it or use the arrow keys to turn it."


def names(page):
    return page.locator("tbody tr td:first-child").all_inner_texts()


def test_headings_sort_and_what_is_missing_stays_last(open_page, path):
    page, complaints, _ = open_page(path)
    page.get_by_role("button", name="number").click()
    assert names(page) == ["a", "e9", "e10", "d", "b", "c"]
    assert page.locator("th").nth(1).get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="number").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["b", "d", "e10", "e9", "a", "c"]
    page.get_by_role("button", name="name").click()
    assert names(page) == ["a", "b", "c", "d", "e9", "e10"]
    assert page.locator("th[aria-sort]").count() == 1
    assert page.locator("tfoot tr").count() == 1
    assert complaints == []


def test_without_javascript_the_words_and_numbers_are_there(open_page, path):
    page, complaints, _ = open_page(path, java_script_enabled=False)
    assert page.locator("canvas").count() == 0
    assert page.get_by_text("The verdict.").is_visible()
    assert page.get_by_text("It takes JavaScript to be drawn.").first.is_visible()
    assert names(page) == ["a", "b", "c", "d", "e10", "e9"]
    assert complaints == []
