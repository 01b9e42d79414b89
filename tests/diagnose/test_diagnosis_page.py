"""The page of a diagnosis as text: what is in it, how large it is, and that names cannot break out of it."""

from __future__ import annotations

import copy
import json
import random
import re

import pytest
from fabricate_diagnosis import HOSTILE, diagnosis, distribution

from softknee._diagnose.page.page import page
from softknee._diagnose.page.place import place
from softknee._diagnose.page.sites import mini
from softknee._diagnose.page.verdict import verdict
from softknee._diagnose.page.words import rough
from softknee._diagnose.schema import SCHEMA, compact
from softknee._report.plain import plain

SECTIONS = ("findings", "sites", "signal", "gradients", "trainable", "curvature", "results", "trials", "method")


@pytest.fixture(scope="module")
def data():
    return diagnosis(5, hostile=True)


@pytest.fixture(scope="module")
def text(data):
    return page(data)


def test_the_sections_come_in_their_order(text):
    assert tuple(re.findall(r'<section id="([a-z]+)"', text)) == SECTIONS


def test_the_verdict_comes_first_and_no_script_is_needed_for_it(text, data):
    assert verdict(data).partition("Worst")[0] in text[: text.index("<main>")]


def test_the_embedded_data_are_the_diagnosis(text, data):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(found[1]) == data


def test_names_cannot_become_markup(text):
    assert HOSTILE not in text
    assert "<img" not in text
    assert "&lt;/script&gt;&lt;img" in text


def test_the_controls_are_always_named():
    assert "same activation, matched gain" in page({**diagnosis(2), "trials": []})
    assert "no change, new seed" in page({**diagnosis(2), "trials": []})


def test_trials_stand_beside_matched_gain_and_say_where_the_rate_was_at_the_edge(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text[text.index("<caption>Trials") :], re.DOTALL)
    silu = next(row for row in rows if "<code>silu</code>" in row)
    assert "a better one may lie beyond" in silu
    assert "−0.20 undecided" in silu
    gelu = next(row for row in rows if "<code>gelu</code>" in row)
    assert "a better one may lie beyond" not in gelu


def test_parts_that_were_not_measured_have_no_section():
    lean = diagnosis(2)
    parts = ("signal", "gradients", "trainable", "curvature", "landscape", "kernel", "rank", "lipschitz")
    lean |= dict.fromkeys((*parts, "classification", "history", "structure"))
    found = re.findall(r'<section id="([a-z]+)"', page(lean))
    assert found == ["findings", "sites", "trials", "method"]


def test_a_model_without_sites_has_a_page():
    assert "No site of an activation was seen." in page({**diagnosis(1), "sites": [], "findings": []})


def test_every_rule_found_says_why_what_to_do_and_how_to_check(text, data):
    rules = {(one["severity"], one["id"]) for one in data["findings"]}
    for words in ("Why it matters", "What to do", "How to check"):
        assert text.count(f"<dt>{words}</dt>") == len(rules)


def test_values_that_are_missing_become_dashes_and_no_none():
    data = copy.deepcopy(diagnosis(3))
    for site in data["sites"]:
        site["states"] = dict.fromkeys(site["states"])
        site |= dict.fromkeys(("hist", "curve", "precision", "gradient", "units"))
        site["moments"] = dict.fromkeys(site["moments"]) | {"z": {}, "h": {}}
    for layer in data["signal"]["layers"]:
        layer |= dict.fromkeys(key for key in layer if key not in {"layer", "note"})
    for row in data["trainable"]:
        row |= {"start": None, "optimised": None, "decayed": None, "gradient": None, "trajectory": None, "shapes": None}
    for one in data["gradients"]["layers"]:
        one |= {"gradient": None, "gradient_norm": None, "output": None}
    data["landscape"]["two"] = None
    data["curvature"] |= {"split": None, "split_note": "it has no second derivative"}
    body = page(data).partition('<script type="application/json"')[0]
    assert ">None<" not in body
    assert "nan" not in body.lower().replace("nan or infinite", "").replace("infinities or nan", "").replace(
        "all weights nan", ""
    )


def test_100_sites_fit_in_a_megabyte_and_a_half():
    assert len(page(diagnosis(100)).encode()) <= 1_500_000


def test_a_function_is_drawn_over_the_histogram_of_what_it_sees():
    site = diagnosis(1)["sites"][0]
    picture = mini(site)
    assert picture.count("<path") == 3
    assert "lie between -4 and 4" in picture
    assert mini({**site, "hist": None, "curve": None}) is None
    flat = {**site, "curve": {"x": [-1.0, 1.0], "y": [None, None]}}
    assert mini(flat).count("<path") == 2
    one_point = {"edges": [0.0, 1e-9], "counts": [0, 7, 0]}
    assert "nan" not in mini({**site, "hist": one_point})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000792, "8e−4"), (1.0, "1"), (123456.0, "1e5"), (0.5, "0.5"), (0.0, "0"), (-2e-9, "−2e−9"), (99.96, "100")],
)
def test_large_numbers_of_the_head_are_short(value, text):
    assert rough(value) == text


# The dictionary.


def test_numbers_are_short():
    found = compact({"a": 1 / 3, "c": [2 / 3, 2, None, True], "d": {"e": 1e-300 / 3}})
    assert found == {"a": 0.333333, "c": [0.666667, 2, None, True], "d": {"e": 3.33333e-301}}
    assert diagnosis(1)["schema"] == SCHEMA


@pytest.mark.parametrize(
    "counts", [[0, 0, 0, 5, 6, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 3], [0] * 8]
)
def test_a_histogram_without_empty_ends_says_the_same(counts):
    edges = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    short = compact({"edges": edges, "counts": counts})
    assert len(short["counts"]) == len(short["edges"]) + 1
    assert sum(short["counts"]) == sum(counts)
    # Values lie between the same edges as before; what is left out is empty.
    places = {edge: index for index, edge in enumerate(edges)}
    first = places[short["edges"][0]]
    assert short["counts"][1:-1] == counts[first + 1 : first + len(short["counts"]) - 1]
    assert short["counts"][0] == sum(counts[: first + 1])


def test_curves_are_shortened_and_losses_are_not():
    found = compact(plain(distribution(random.Random(0), scale=1 / 3)))
    assert found["scale"] == 0.333333
    assert all(edge == float(f"{edge:.4g}") for edge in found["edges"])
    assert compact({"loss": [2.30411, 2.30412]}) == {"loss": [2.30411, 2.30412]}
    assert compact({"low": 2.30411}) == {"low": 2.30411}


def test_the_worst_units_are_listed_of_each_site_as_far_as_there_is_room():
    for count in (3, 100):
        body = re.search(r"Single units</summary>(.*?)</details>", page(diagnosis(count)), re.DOTALL)[1]
        rows = body.count("<tr>") - 1
        assert rows <= 60
        # All sites but the first, which has no dead unit, as far as there is room.
        assert len(set(re.findall(r"<code>(layers\.\d+)</code>", body))) == min(count - 1, 60)


def test_places_are_named_with_what_they_are():
    data = diagnosis(2)
    assert place(data, "layers.1") == "layers.1 (relu)"
    assert place(data, "layers.0") == "layer layers.0"
    assert place(data, "layers.0.weight") == "layers.0.weight"
    shown = place(data, "first" + "." * 200 + "last")
    assert len(shown) == 64
    assert shown.startswith("first.")
    assert shown.endswith(".last")
    (worst, *_) = data["findings"]
    assert f"Worst at {place(data, worst['site'])}: " in verdict(data)


def test_residuals_below_rounding_are_not_shown_as_precision():
    data = diagnosis(2)
    ends = data["curvature"]["eigenvalues"]
    for residual, shown in ((1e-28, "λ_max = 9.5:"), (0.25, "λ_max = 9.5 ± 0.25:")):
        ends |= {"top": 9.5, "top_residual": residual}
        assert shown in page(data)
