"""Formulas and text to copy on a page, and fields whose rows have names."""

from __future__ import annotations

from html import unescape

import pytest

from softknee._report.field import field
from softknee._report.mathml import mathml
from softknee._report.page import Code, Formula, Page, Section, render_page

SOURCE = "def f(x):\n    return x if x < 3 & 1 else '</pre>'\n"


def page(*blocks):
    return render_page(Page("", "Title", [], [Section("part", "Part", "", blocks)], {}))


def test_text_to_copy_stands_as_it_is():
    shown = page(Code("Source", SOURCE))
    inside = shown.split("<pre", 1)[1].split("<code>", 1)[1].split("</code>", 1)[0]
    assert unescape(inside) == SOURCE
    assert "</pre>'" not in inside
    assert 'aria-label="Source"' in shown


def test_a_formula_is_maths():
    shown = page(Formula(r"\frac{x}{2}", "half"))
    assert str(mathml(r"\frac{x}{2}", display=True)) in shown
    assert "<span>half</span>" in shown


def test_rows_of_a_field_have_names_from_the_lowest_on():
    rows = [[0.0, 1.0], [2.0, None], [3.0, 4.0]]
    options = {"title": "t", "description": "d", "x": (0.0, 1.0), "y": (0.0, 2.0)}
    plain, named = field(rows, **options), field(rows, **options, row_names=("low", "between", "a long name"))

    def height(text):
        return float(named.split(f">{text}</text>")[0].rsplit(' y="', 1)[1].split('"')[0])

    assert height("low") > height("between") > height("a long name")
    assert height("between") - height("a long name") == pytest.approx(height("low") - height("between"), abs=0.11)
    assert "between" not in plain
    # Long names make room for themselves.
    left = [float(one.split("translate(")[1].split()[0]) for one in (plain, named)]
    assert left[1] > left[0]
