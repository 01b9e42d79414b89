"""The page of a search: all that was measured stands in it, from plain data alone, quiet and legible everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import accumulate, pairwise

import pytest
from fabricate_result import HOSTILE, TRIED, WINNER, result

from softknee._search.page import result_page
from softknee._search.page_cost import best_so_far
from softknee._search.page_words import brief, digits_for, estimate, kind_of, loss_digits

SIZES = {"wide": {"width": 1100, "height": 900}, "narrow": {"width": 380, "height": 800}}


class Cells(HTMLParser):
    """Texts of all cells of tables, row by row, under the id of their section."""

    def __init__(self, page):
        super().__init__()
        self.section, self.rows, self.inside = "", {}, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self.section = dict(attributes)["id"]
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in {"td", "th"}:
            self.rows[self.section][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[self.section][-1][-1] += data


def tables(page):
    shown = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    found = {name: [[cell.strip() for cell in row] for row in rows] for name, rows in Cells(shown).rows.items()}
    return {name: [row for row in rows if any(row)] for name, rows in found.items()}


def test_stored_results_are_shown_without_torch(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(result(), allow_nan=False))
    code = (
        "import json, pathlib, sys; sys.modules['torch'] = None; from softknee._search.page import result_page; "
        f"folder = pathlib.Path({str(tmp_path)!r}); "
        "folder.joinpath('page.html').write_text(result_page(json.loads(folder.joinpath('result.json').read_text())))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "page.html").read_text() == result_page(result())


def test_everything_that_was_tried_is_in_the_table_the_failed_ones_too():
    data = result(many=60)
    rows = tables(result_page(data))["tried"]
    ranked = [row for row in rows if row[0].isdigit()]
    assert [row[1] for row in ranked] == [brief(row["name"]) for row in data["table"]]
    assert {*map(brief, TRIED), "gelu", "swish"} < {row[1] for row in ranked}
    (failed,) = [row for row in ranked if row[-1] == "! failed"]
    assert failed[1:5] == ["x**3", "halving", "1/4", "failed"]
    (reason,) = [row for row in rows if "not finite" in row[-1]]
    assert reason == ["x**3", "halving", "0", "1/4", "the loss was not finite at step 41 of 600"]
    assert [row[1] for row in ranked if "returned" in row[-1]] == [WINNER]


def test_what_went_straight_to_the_finals_has_no_loss_of_before():
    data = result()
    (row,) = [row for row in data["table"] if row["name"] == WINNER]
    row["scores"] = [score for score in row["scores"] if score["run"]]
    shown = tables(result_page(data))["tried"]
    assert [cells[3:5] for cells in shown if cells[1] == WINNER] == [["", ""]]


def test_what_was_trained_side_by_side_is_not_claimed_to_be_in_the_table():
    data = result()
    assert "side by side, it has the best" not in result_page(data)
    data["cost"]["phases"].append({"name": "enumerate", "runs": 2.0, "seconds": 6.0})
    assert "side by side, it has the best" in result_page(data)


def test_trainings_that_chose_the_finalists_are_told_apart():
    data = result()
    (row,) = [row for row in data["table"] if row["name"] == WINNER]
    after = {**row["scores"][0], "phase": "select", "run": 2000}
    row["scores"] += [{**after, "loss": 0.31}, {**after, "run": 2001, "loss": 0.33}]
    data["cost"]["phases"].append({"name": "select", "runs": 2.0, "seconds": 6.0})
    page = result_page(data)
    shown = tables(page)["tried"]
    assert shown[0][5].startswith("Selection")
    assert [cells[5] for cells in shown if cells[1] in {WINNER, "gelu"}] == ["0.3200", ""]
    assert "seeds used for nothing else" in page
    assert "seeds used for nothing else" not in result_page(result())
    assert "selection, from other seeds" in page


def test_the_verdict_stands_first_and_its_numbers_below():
    data = result()
    page = result_page(data)
    assert page.index(f"{data['verdict']}.</p>") < page.index("<nav")
    shown = tables(page)["verdict"]
    for one in data["differences"]:
        text = f"+{one['gain']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
        name = next(row["name"] for row in data["table"] if row["key"] == one["baseline"])
        assert [name, "▲ better", text, "0.004", "3"] in shown
        assert page.count(text) >= 2
    finals = [row for row in data["table"] if row["final"]]
    assert len([row for row in shown if row[-1] == "3 of 3"]) == len(finals)


def test_a_baseline_that_wins_is_what_the_page_is_about():
    data = result(wins=False, tested=False, trajectory=False)
    page = unescape(result_page(data))
    assert "Nothing beat GELU within the noise; use GELU." in page
    assert "Returned: gelu, a baseline." in page
    assert "This is GELU." in page
    assert "The best candidate, which did not beat it" in page
    assert "which the search has seen" in page
    assert "Test loss" not in page
    assert 'id="trajectory"' not in page
    assert all(row[1] == "○ undecided" for row in tables(page)["verdict"][1:3])


def test_a_page_with_nothing_to_compare_says_so():
    data = result(wins=False)
    page = result_page({**data, "candidate": None, "differences": [], "found": []})
    assert "there is nothing to compare" in page
    assert "forest" not in page.split("<header>")[1].split("<script")[0]


def test_functions_that_look_at_more_than_one_element_have_no_curves():
    data = result(wins=False)
    bare = dict.fromkeys(("curves", "relatives", "facts", "audit", "cost"))
    page = result_page(
        {**data, "functions": [{**data["functions"][0], **bare, "latex": "", "source": ""}], "found": []}
    )
    assert not any(f'id="{name}"' in page for name in ("audit", "price", "source"))


def test_each_group_has_its_function_and_its_source():
    page = result_page(result(groups=("conv", "head")))
    assert all(f"{group}: {WINNER}" in page for group in ("conv", "head"))
    assert page.count('role="region" aria-label="class Found') == 2


def test_names_are_text():
    page = result_page(result(hostile=True))
    assert "<b onclick" not in page
    assert HOSTILE in [cell for row in tables(page)["tried"] for cell in row]


def test_the_best_so_far_is_that_of_the_full_runs_in_the_order_of_time():
    losses = [0.5, 0.7, 0.4, 0.45, 0.1]
    full = [({}, {"charged": float(index + 1), "loss": loss}) for index, loss in enumerate(losses)]
    corners = best_so_far(full, 7.0)
    for index, least in enumerate(accumulate(losses, min)):
        assert [y for x, y in corners if x <= index + 1][-1] == least
    assert corners[0] == (1.0, 0.5)
    assert corners[-1] == (7.0, 0.1)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))


def test_the_trajectory_is_drawn_slot_by_slot():
    data = result()
    section = result_page(data).split('id="trajectory"')[1].split("</section>")[0]
    assert section.count('class="chart field"') == len(data["trajectory"]["slots"]) == 6
    assert "From 110 to 6 over the search, 104 drops in all" in section
    for name, *operations in data["trajectory"]["slots"]:
        weights = data["trajectory"]["ticks"][-1]["weights"][["U0", "U1", "B0", "U2", "U3", "B1"].index(name)]
        (left,) = [one for one, weight in zip(operations, weights, strict=True) if weight is not None]
        assert f"{name} → {left}" in section
        assert all(f">{operation}</text>" in section for operation in operations)


def test_numbers_have_the_digits_that_their_intervals_bear_out():
    assert digits_for(0.012, 0.3) == 3
    assert digits_for(None, 25.0) == 2
    assert estimate(0.01234, 0.0041, 0.0205, 3, sign=True) == "+0.012 (0.004 to 0.021)"
    assert estimate(None, None, None, 3) == "–"
    assert loss_digits([0.3, None, 0.4, 900.0]) == 4
    assert loss_digits([123.0]) == 1
    assert brief("min(max(x, -3.1622776601683795), 3.16)**2 + 0.1 * x_12345678") == (
        "min(max(x, -3.1623), 3.16)**2 + 0.1 * x_12345678"
    )


@pytest.mark.parametrize(
    ("gain", "p", "kind"),
    [
        (0.1, 0.01, "better"),
        (0.1, 0.06, "undecided"),
        (-0.1, 0.01, "worse"),
        (-0.1, 0.3, "undecided"),
        (None, None, "too-few-seeds"),
    ],
)
def test_a_difference_is_what_its_sign_and_its_p_value_say(gain, p, kind):
    assert kind_of({"gain": gain, "p": p}) == kind


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data = result(hostile=True, groups=("conv", "head"))
    path = tmp_path_factory.mktemp("search") / "report.html"
    path.write_text(result_page(data))
    return data, path


@pytest.mark.browser
def test_it_is_quiet_and_loads_only_itself(open_page, report):
    _, path = report
    page, complaints, requests = open_page(path)
    assert complaints == []
    assert requests == [path.as_uri()]
    assert page.locator("img").count() == 0


@pytest.mark.browser
def test_it_has_a_figure_for_everything_that_was_measured(open_page, report):
    data, path = report
    page, _, _ = open_page(path)
    assert page.locator("#verdict svg.forest").count() == 1
    assert page.locator("#function svg.lines").count() == 2 * len(data["functions"])
    assert page.locator("#function math").count() == len(data["functions"])
    assert page.locator("#cost svg.bars").count() == page.locator("#cost svg.lines").count() == 1
    assert page.locator("#trajectory svg.field").count() == 6
    assert page.locator("#trajectory svg.lines").count() == 2
    sketched = sum(row["curve"] is not None for row in data["table"])
    assert page.locator("#tried tbody svg.spark").count() >= sketched
    assert page.evaluate("document.querySelectorAll('svg.chart:not(:has(> title + desc))').length") == 0


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
def test_the_page_never_scrolls_sideways(open_page, report, size):
    _, path = report
    page, _, _ = open_page(path, viewport=SIZES[size])
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]


@pytest.mark.browser
def test_without_scripts_the_verdict_and_the_ranking_are_there(open_page, report):
    data, path = report
    page, _, _ = open_page(path, java_script_enabled=False)
    finding = page.locator(".finding p").first
    assert finding.is_visible()
    assert finding.inner_text() == f"{data['verdict']}."
    assert HOSTILE in page.locator("#tried table").first.inner_text()


@pytest.mark.browser
def test_the_ranking_can_be_sorted(open_page, report):
    _, path = report
    page, complaints, _ = open_page(path)
    head = page.locator("#tried thead button", has_text="Function").first
    head.click()
    names = [
        row.locator("td").nth(1).inner_text() for row in page.locator("#tried table").first.locator("tbody tr").all()
    ]
    assert names in (sorted(names, key=str.lower), sorted(names, key=str.lower, reverse=True))
    assert complaints == []


@pytest.mark.browser
def test_a_click_selects_the_whole_source(open_page, report):
    data, path = report
    page, _, _ = open_page(path)
    page.locator("#source pre").first.click()
    # The browser's selection leaves out blanks at the end.
    assert page.evaluate("getSelection().toString()").strip() == data["functions"][0]["source"].strip()


@pytest.mark.browser
def test_the_embedded_data_are_the_result(open_page, report):
    data, path = report
    page, _, _ = open_page(path)
    assert json.loads(page.locator("script#data").text_content()) == json.loads(json.dumps(data))


@pytest.mark.browser
def test_dark_pages_are_dark(open_page, report):
    _, path = report
    colours = {
        scheme: open_page(path, color_scheme=scheme)[0].evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    brightness = {scheme: int(colour.split("(")[1].split(",")[0]) for scheme, colour in colours.items()}
    assert brightness["light"] > 200
    assert brightness["dark"] < 60


@pytest.mark.browser
def test_folded_parts_are_printed_and_the_source_is_whole(open_page, report):
    _, path = report
    page, _, _ = open_page(path)
    page.emulate_media(media="print")
    assert page.locator("#tried details table").first.bounding_box()["height"] > 30
    code = page.locator("#source pre").first
    assert code.evaluate("one => one.scrollHeight - one.clientHeight") <= 1
