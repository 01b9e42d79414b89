"""The atlas in a real browser: formulas, sliders, filters; quiet, and from files alone."""

from __future__ import annotations

import time

import pytest
import torch
from selected import NAMES

from softknee._atlas.render import script
from softknee._atlas.script import functions_script
from softknee._card.subject import Subject
from softknee._catalogue import CATALOGUE

pytestmark = pytest.mark.browser
SIZES = {"wide": {"width": 1200, "height": 900}, "narrow": {"width": 360, "height": 780}}
ELEMENTS = [Subject.of(spec) for spec in CATALOGUE if spec.kind != "vector"]
# Positions of no kink, at which formulas are compared.
X = torch.linspace(-5.987, 6.013, 121, dtype=torch.float64)
EVALUATE = """xs => Object.fromEntries(Object.entries(ATLAS).map(([name, entry]) => {
    const values = entry.start;
    const given = f => f.of.map(n => Array.isArray(n) ? values[n[1]].map(() => values[n[0]]) : values[n]);
    return [name, [entry.value, entry.slope, entry.bend].map(f => f && xs.map(x => f.at(x, ...given(f))))];
}))"""


@pytest.fixture(scope="module")
def evaluated(open_page, tmp_path_factory):
    """Every function and derivative, as the browser computes them."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions.js").write_text(functions_script(ELEMENTS), encoding="utf-8")
    (folder / "page.html").write_text("<meta charset=utf-8><script src=functions.js></script>", encoding="utf-8")
    page, complaints, _ = open_page(folder / "page.html")
    assert complaints == []
    return page.evaluate(EVALUATE, X.tolist())


def test_all_functions_are_there(evaluated):
    assert set(evaluated) == {subject.spec.name for subject in ELEMENTS}


@pytest.mark.parametrize("subject", ELEMENTS, ids=lambda subject: subject.spec.name)
def test_values_and_derivatives_are_those_of_torch(evaluated, subject):
    value, slope, bend = (torch.tensor(line or [], dtype=torch.float64) for line in evaluated[subject.spec.name])
    expected = subject.derivatives(X)
    assert torch.allclose(value, expected[0], rtol=1e-9, atol=1e-9)
    for derivative, tolerance, right in ((slope, 1e-8, expected[1]), (bend, 1e-6, expected[2])):
        if len(derivative):
            # Whoever evaluates a spline just beside a knot may be on its other side.
            close = torch.isclose(derivative, right, rtol=tolerance, atol=tolerance)
            assert close.sum() >= len(X) - 2 * bool(subject.knots)


@pytest.mark.parametrize("name", ["index", "characteristics", "names", *(f"activations/{name}" for name in NAMES)])
def test_pages_are_quiet_and_load_only_their_own(open_page, site, name):
    _, complaints, requests = open_page(site / f"{name}.html")
    assert complaints == []
    own = site.as_uri() + "/"
    assert all(url.startswith(own) for url in requests)
    assert len(requests) <= 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["index", "characteristics", "names", "activations/staf", "activations/linear_spline"])
def test_pages_never_scroll_sideways(open_page, site, name, size):
    page, _, _ = open_page(site / f"{name}.html", viewport=SIZES[size])
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


def curve(page, panel=0, line=-1):
    """Return the path of a line of a panel."""
    return page.locator(".canvas").nth(panel).locator("path.line").nth(line).get_attribute("d")


def test_a_slider_moves_the_curve_and_reset_brings_it_back(open_page, site):
    page, complaints, _ = open_page(site / "activations/swish.html")
    before, slope = curve(page), curve(page, 1)
    slider = page.locator("input[type=range][data-param=beta]")
    slider.focus()
    page.keyboard.press("End")
    assert page.locator("input[type=number][data-param=beta]").input_value() == slider.input_value() == "2.5"
    assert curve(page) != before
    assert curve(page, 1) != slope
    assert read_out(page)["f(x)"] == pytest.approx(1.5 * torch.sigmoid(torch.tensor(2.5 * 1.5)).item(), abs=1e-4)
    page.get_by_role("button", name="Reset").click()
    # The form resets its fields first, the curve follows.
    until(lambda: curve(page) == before)
    assert page.locator("input[type=number][data-param=beta]").input_value() == "1"
    assert complaints == []


def until(condition):
    """Wait for what a click brings about; the page allows no script of the driver's that waits inside it."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_out(page):
    texts = page.locator("output span").all_inner_texts()
    return {text.split()[0]: float(text.split()[1].replace("−", "-")) for text in texts}


def test_the_drawn_curve_is_right(open_page, site):
    """Its pixels, mapped back by the axes, are values of GELU."""
    page, _, _ = open_page(site / "activations/gelu.html")
    places = page.evaluate("""() => {
        const svg = document.querySelector('.canvas svg');
        const texts = [...svg.querySelectorAll(':scope > text')].map(node =>
            [node.getAttribute('text-anchor'), Number(node.textContent.replace('−', '-')), node]);
        const axis = (anchor, name) => texts.filter(text => text[0] === anchor && Number.isFinite(text[1]))
            .map(text => [text[1], Number(text[2].getAttribute(name))]);
        const path = svg.querySelector('path.line').getAttribute('d');
        const points = path.slice(1).split('L').map(pair => pair.split(' ').map(Number));
        return {x: axis('middle', 'x'), y: axis('end', 'y'), points};
    }""")

    def scale(marks, offset):
        (low, start), (high, end) = marks[0], marks[-1]
        return lambda pixel: low + (pixel - offset - start) / (end - start) * (high - low)

    x, y = scale(places["x"], 0.0), scale(places["y"], -3.5)
    for across, up in places["points"][::20]:
        at = torch.tensor(x(across), dtype=torch.float64)
        assert y(up) == pytest.approx(torch.nn.functional.gelu(at).item(), abs=0.03)


def test_numbers_entries_ranges_and_comparisons(open_page, site):
    page, complaints, _ = open_page(site / "activations/staf.html")
    before = curve(page)
    page.locator("input[type=number][data-param=phase][data-entry='2']").fill("0.5")
    changed = curve(page)
    assert changed != before
    page.locator("select[name=reach]").select_option("2")
    assert curve(page) != changed
    page.locator("select[name=compare]").select_option("gelu")
    assert page.locator(".canvas").first.locator("path.line").count() == 2
    assert page.locator("[data-compared]").inner_text() == "GELU"
    assert complaints == []


def test_noise_is_shown_at_the_values_it_was_drawn_at(open_page, site):
    page, _, _ = open_page(site / "activations/rrelu.html")
    band = page.locator(".canvas path.band")
    assert band.count() == 1
    page.locator("input[type=range][data-param=lower]").fill("0.2")
    assert band.count() == 0
    assert page.locator("[data-when-band]").is_hidden()


def test_inputs_are_labelled(open_page, site):
    for name in ("swish", "staf", "swiglu"):
        page, _, _ = open_page(site / f"activations/{name}.html")
        unnamed = "[...document.querySelectorAll('input, select')].filter(n => !n.ariaLabel && !n.labels.length).length"
        assert page.evaluate(unnamed) == 0


def test_filters_narrow_the_index_and_stay_in_the_address(open_page, site):
    page, complaints, _ = open_page(site / "index.html")

    def shown():
        return page.locator("#cards > li:not(.head):visible").evaluate_all(
            "cards => cards.map(card => card.dataset.name)"
        )

    assert len(shown()) == len(NAMES)
    page.locator("input[name=q]").fill("erf")
    assert shown() == ["gelu"]
    page.locator("input[name=q]").fill("")
    page.locator("select[name=family]").select_option("rectifier")
    assert set(shown()) == {"relu", "rrelu", "prelu"}
    page.get_by_text("trainable", exact=True).last.click()
    assert shown() == ["prelu"]
    assert page.locator("#count").inner_text() == f"1 of {len(NAMES)}"
    assert page.locator("#cards > li.head:visible").count() == 1
    address = page.url
    assert address.endswith("#family=rectifier&has=trainable")
    again, _, _ = open_page(address)
    assert again.locator("#cards > li:not(.head):visible").count() == 1
    assert again.locator("select[name=family]").input_value() == "rectifier"
    page.get_by_role("button", name="Clear").click()
    until(lambda: page.locator("#count").inner_text() == f"{len(NAMES)} of {len(NAMES)}")
    page.locator("select[name=sort]").select_option("name")
    assert shown() == sorted(NAMES)
    page.locator("input[name=q]").fill("no such thing")
    assert page.locator("#none").is_visible()
    assert complaints == []


def test_copying(open_page, site):
    page, complaints, _ = open_page(site / "activations/gelu.html")
    page.locator("button[data-copy=snippet]").click()
    until(lambda: page.locator("[data-copy=snippet]").inner_text() != "Copy")
    assert complaints == []


def test_without_javascript_curves_and_cards_are_there(open_page, site):
    page, _, _ = open_page(site / "activations/gelu.html", java_script_enabled=False)
    assert page.locator(".canvas > svg").count() == 2
    assert page.locator(".plot form").is_hidden()
    index, _, _ = open_page(site / "index.html", java_script_enabled=False)
    assert index.locator("#cards > li:not(.head):visible").count() == len(NAMES)


def test_the_script_stays_small():
    assert len(script()) < 25_000
