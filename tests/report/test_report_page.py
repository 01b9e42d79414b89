from __future__ import annotations

import base64
import hashlib
import html
import json
import re

import pytest

from softknee._report.page import (
    Facts,
    Fold,
    Gallery,
    Group,
    Key,
    Measure,
    Note,
    Page,
    Section,
    embedded_json,
    render_fragment,
    render_page,
)
from softknee._report.table import Cell, Column, Table

HOSTILE = "</script><img src=x onerror=alert(1)>"


def hostile_page():
    table = Table(HOSTILE, [Column(HOSTILE, hint=HOSTILE)], [[Cell(HOSTILE, "name", hint=HOSTILE)]], [[Cell(HOSTILE)]])
    blocks = [
        table,
        Note(HOSTILE),
        Facts([(HOSTILE, HOSTILE)]),
        Gallery([], [Key(HOSTILE, "")]),
        Fold(HOSTILE, [table]),
    ]
    return Page(
        kicker=HOSTILE,
        title=HOSTILE,
        finding=[HOSTILE],
        groups=[Group("better", HOSTILE, [HOSTILE])],
        measures=[Measure(HOSTILE, HOSTILE, HOSTILE)],
        warnings=[HOSTILE],
        sections=[Section("a", HOSTILE, HOSTILE, blocks)],
        data={HOSTILE: [HOSTILE, "\u2028&amp;"]},
    )


def test_hostile_text_is_only_ever_text():
    text = render_page(hostile_page())
    assert "<img" not in text
    assert text.count("<script") == text.count("</script") == 1
    assert text.count(html.escape(HOSTILE)) >= 20
    assert "<img" not in render_fragment([HOSTILE], [hostile_page().sections[0].blocks[0]])


def test_the_embedded_data_parse_back():
    text = render_page(hostile_page())
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(embedded) == hostile_page().data


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json([float("nan")])


def test_the_policy_allows_the_page_its_own_style_and_nothing_else():
    text = render_page(hostile_page())
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"\sstyle=|url\(|@import|https?:", text)
