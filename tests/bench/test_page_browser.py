"""The report in a real browser: quiet, self-contained, legible on any screen and without JavaScript."""

from __future__ import annotations

import base64
import json

import pytest
from fabricate import HOSTILE, Plan, fabricate

from softknee._bench.study import Study

pytestmark = pytest.mark.browser
SIZES = {"wide": {"width": 1100, "height": 900}, "narrow": {"width": 380, "height": 800}}


@pytest.fixture(scope="module", params=[1, 4], ids=["one condition", "four conditions"])
def report(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    study = Study.load(fabricate(folder / "study", Plan(cells=request.param, epochs=4, test_size=400)))
    path = folder / "report.html"
    study.to_html(path)
    return study, path


def test_it_is_quiet_and_loads_only_itself(open_page, report):
    _, path = report
    page, complaints, requests = open_page(path)
    assert complaints == []
    assert requests == [path.as_uri()]
    assert page.locator("img").count() == 0


def test_it_has_a_figure_for_everything_that_was_measured(open_page, report):
    study, path = report
    page, _, _ = open_page(path)
    cells, labels = len(study.files.cells), len(study.files.activations)
    assert page.locator("#learning svg.chart").count() == 2 * labels * cells
    assert page.locator("#errors svg.heatmap").count() == labels * cells
    assert page.locator("#differences svg.forest").count() == cells
    # Every curve; two scalar parameters, and a vector at four sites with a summarized one.
    assert page.locator("#shapes svg.chart").count() == (labels + 2 + 4 + 1) * cells
    assert page.locator("#evidence table").count() == cells
    assert page.locator("#evidence tbody tr").count() == labels * cells
    assert page.locator("#conditions svg.slopes").count() == (cells == 4)
    assert page.locator("#tuning svg.lines").count() == labels * (cells == 4)
    untitled = "document.querySelectorAll('svg.chart:not(:has(> title + desc))').length"
    assert page.evaluate(untitled) == 0


@pytest.mark.parametrize("size", SIZES)
def test_the_page_never_scrolls_sideways(open_page, report, size):
    _, path = report
    page, _, _ = open_page(path, viewport=SIZES[size])
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


def test_dark_and_light_differ_and_both_show_something(browser, open_page, report):
    _, path = report
    shots = {
        scheme: open_page(path, color_scheme=scheme, viewport=SIZES["wide"])[0].screenshot()
        for scheme in ("light", "dark")
    }
    brightness = {scheme: pixels(browser, shot) for scheme, shot in shots.items()}
    assert brightness["light"]["mean"] > 200
    assert brightness["dark"]["mean"] < 60
    assert min(found["deviation"] for found in brightness.values()) > 5


def pixels(browser, png):
    """Mean and deviation of a picture's brightness, computed by the browser itself."""
    page = browser.new_page()
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    program = """async source => {
        const image = new Image(); image.src = source; await image.decode();
        const canvas = document.createElement('canvas'); canvas.width = image.width; canvas.height = image.height;
        const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, image.width, image.height).data;
        let sum = 0, squares = 0; const count = data.length / 4;
        for (let i = 0; i < data.length; i += 4) { sum += data[i]; squares += data[i] * data[i]; }
        return {mean: sum / count, deviation: Math.sqrt(squares / count - (sum / count) ** 2)};
    }"""
    return page.evaluate(program, source)


def test_without_javascript_the_verdict_and_the_tables_are_there(open_page, report):
    study, path = report
    page, _, _ = open_page(path, java_script_enabled=False)
    finding = page.locator(".finding p").first
    assert finding.is_visible()
    assert finding.inner_text()[:20] in study.summary()
    table = page.locator("#ranking table").first
    assert table.is_visible()
    assert HOSTILE in table.inner_text()


def test_the_embedded_data_are_the_table(open_page, report):
    study, path = report
    page, _, _ = open_page(path)
    data = json.loads(page.locator("script#data").text_content())
    shown = [[row["activation"] for row in table["rows"]] for table in data["tables"]]
    assert shown == [table.order for table in study.table]


def test_print_shows_folded_parts(open_page, report):
    _, path = report
    page, _, _ = open_page(path)
    if page.locator("details").count():
        page.emulate_media(media="print")
        assert page.locator("#ranking details table").first.bounding_box()["height"] > 100
