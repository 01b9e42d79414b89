"""The leaderboard in a real browser: sorted, filtered, and every number a way to its runs."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from fabricate import HOSTILE, Plan, fabricate

from softknee._bench.leaderboard import read_leaderboard
from softknee._bench.leaderboard_files import write_leaderboard

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Two protocols, one of them under four conditions, in folders whose names need care in a link."""
    folder = tmp_path_factory.mktemp("leaderboard")
    options = {"epochs": 3, "test_size": 400, "specification": (("kernels", "AVX512"),)}
    studies = [
        fabricate(folder / "results" / "50 % #1", Plan(**options)),
        fabricate(folder / "results" / "fair", Plan(cells=4, mark="f", activations=("relu", "gelu"), **options)),
    ]
    write_leaderboard(read_leaderboard(studies), folder / "site")
    return folder / "site" / "index.html"


def names(page, anchor="board-0"):
    return page.locator(f"#{anchor} > .scroll > table > tbody > tr:not(.runs) code:first-child").all_inner_texts()


def test_it_is_quiet_and_loads_only_itself(open_page, board):
    page, complaints, requests = open_page(board)
    assert complaints == []
    assert requests == [board.as_uri()]
    assert page.locator("section").count() == 5
    assert page.locator("img").count() == 0


def test_every_number_opens_its_runs_and_each_leads_to_its_result(open_page, board):
    page, complaints, _ = open_page(board)
    row = page.locator("#board-0 > .scroll > table > tbody > tr", has_text="◆ reference")
    numbers = row.locator("td:not(.name) a")
    assert numbers.count() == row.locator("td").count() - 1
    for place in range(numbers.count()):
        numbers.nth(place).click()
        assert page.locator("tr.runs tbody tr").count() == 3
        numbers.nth(place).click()
        assert page.locator("tr.runs").count() == 0
    numbers.nth(3).click()
    links = page.locator("tr.runs a").evaluate_all("all => all.map(link => link.href)")
    results = [json.loads(Path(unquote(urlparse(link).path)).read_text()) for link in links]
    assert [(one["activation"], one["seed"]) for one in results] == [("relu", seed) for seed in range(3)]
    shown = page.locator("tr.runs tbody td:nth-child(2)").all_inner_texts()
    assert shown == [f"{one['test_accuracy'][-1]:.2f}" for one in results]
    assert complaints == []


def test_runs_that_did_not_count_are_in_the_list(open_page, board):
    page, _, _ = open_page(board)
    for name, outcome in (("gelu", "diverged"), ("mish", "failed"), ("silu", "missing"), ("rrelu", "lost")):
        page.locator("#board-0").get_by_role("button", name=name, exact=True).click()
        line = page.locator("tr.runs tbody tr", has_text=outcome)
        assert line.count() == 1
        assert line.locator("a").count() == (outcome != "missing")
        page.locator("#board-0").get_by_role("button", name=name, exact=True).click()


def test_the_keyboard_opens_a_row_and_the_address_keeps_it(open_page, board):
    page, _, _ = open_page(board)
    button = page.locator("#board-0 td button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    held = page.locator(f"#{button.get_attribute('aria-controls')}")
    assert held.is_visible()
    again, _, _ = open_page(page.url)
    assert again.locator("tr.runs").count() == 1
    page.keyboard.press("Enter")
    assert page.locator("tr.runs").count() == 0


def test_every_column_sorts_and_open_rows_do_not_get_lost(open_page, board):
    page, complaints, _ = open_page(board)
    heads = page.locator("#board-0 > .scroll > table > thead th")
    whole = sorted(names(page))
    for place in range(heads.count()):
        page.locator("#board-0 td button").first.click()
        heads.nth(place).get_by_role("button").click()
        assert heads.nth(place).get_attribute("aria-sort") in {"ascending", "descending"}
        assert sorted(names(page)) == whole
    heads.get_by_text("Missing").click()
    assert names(page)[0] == "silu"
    assert complaints == []


def test_words_and_protocols_choose_rows(open_page, board):
    page, _, _ = open_page(board)
    words, count = page.get_by_role("searchbox"), page.locator("output")
    assert count.inner_text() == "23 of 23 rows"
    words.fill("RELU avx512")  # prelu, rrelu and leaky_relu too; that a board compares with relu says nothing
    assert count.inner_text() == "8 of 23 rows"
    assert page.locator("section:visible").count() == page.locator("nav a:visible").count() == 5
    words.fill("rrelu")
    assert count.inner_text() == "1 of 23 rows"
    assert page.locator("section:visible").count() == page.locator("nav a:visible").count() == 1
    words.fill("")
    page.get_by_role("combobox").select_option("fashion-mlp")
    assert count.inner_text() == "15 of 23 rows"
    assert page.locator("section:visible").count() == 1


@pytest.mark.parametrize("width", [380, 1100])
def test_it_never_scrolls_sideways(open_page, board, width):
    page, _, _ = open_page(board, viewport={"width": width, "height": 800})
    page.locator("#board-0 td button").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_javascript_the_tables_are_there(open_page, board):
    page, _, _ = open_page(board, java_script_enabled=False)
    table = page.locator("#board-0 table")
    assert table.is_visible()
    assert HOSTILE in table.inner_text()
