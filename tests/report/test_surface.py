from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re

import pytest

from softknee._report.colours import PALETTES, colour, parts
from softknee._report.page import Figure, Fold, Gallery, Page, Section, render_page
from softknee._report.surface import Surface
from softknee._report.table import Cell, Column, Table

HOSTILE = "</script><img src=x onerror=alert(1)>'\""


def sent_text(surface):
    return html.unescape(re.search(r'data-surface="([^"]*)"', surface.__html__())[1])


def data(surface):
    return json.loads(sent_text(surface))


def test_a_separable_surface_is_sent_as_one_line():
    surface = Surface("t", "d.", [-1.0, 0.0, 3.0], "sum", (-2.0, 2.0))
    sent = data(surface)
    assert sent["v"] == [0, 250, 999]
    assert (sent["n"], sent["m"]) == (3, 3)
    assert surface.range == (-2.0, 6.0)
    assert sent["z"] == ["−2", "6"]


def test_a_norm_starts_at_zero_whatever_the_sign():
    surface = Surface("t", "d.", [-4.0, 1.0], "norm")
    assert data(surface)["v"] == [999, 250]
    assert surface.range == pytest.approx((0.0, 4 * math.sqrt(2)))


def test_a_grid_keeps_its_shape_and_its_gaps():
    sent = data(Surface("t", "d.", [0.0, None, 2.0, math.inf, 4.0, math.nan], "grid", columns=3))
    assert (sent["n"], sent["m"]) == (3, 2)
    assert sent["v"] == [0, None, 500, None, 999, None]


@pytest.mark.parametrize("values", [[], [None, None], [2.0, 2.0]])
def test_nothing_to_show_is_still_valid_markup(values):
    surface = Surface("t", "d.", values)
    assert all(math.isfinite(end) for end in surface.range)
    assert "NaN" not in surface.__html__()


def test_thirteen_surfaces_with_their_maps_are_small():
    line = [math.sin(0.3 * index) for index in range(41)]
    both = Surface("gelu", "", line).__html__() + Surface("gelu", "", line, "norm", flat=True).__html__()
    assert len(sent_text(Surface("gelu", "", line))) * 2 * 13 < 9_000
    assert len(both) * 13 < 20_000


def test_without_a_script_a_sentence_says_what_there_is():
    markup = Surface("Loss", "The loss around here.", [1.0, 4.0], "grid", columns=2).__html__()
    assert '<p class="note"><span>Loss. The loss around here. From 1 to 4.</span> It takes JavaScript' in markup


def test_a_signed_scale_has_zero_in_its_middle():
    assert parts("sign", -1.0, 3.0) == pytest.approx((0.5 - 1 / 6, 1.0))
    assert data(Surface("t", "", [-1.0, 3.0], "grid", columns=2, palette="sign"))["c"] == [0.333, 1.0]


@pytest.mark.parametrize("palette", PALETTES)
def test_colours_pass_through_their_stops(palette):
    stops = PALETTES[palette]
    assert [colour(palette, index / (len(stops) - 1)) for index in range(len(stops))] == [f"#{stop}" for stop in stops]


def test_sizes_grow_lighter_evenly():
    """Colours of a size can be told apart by their brightness alone."""
    steps = [
        int(stop[0:2], 16) * 0.2126 + int(stop[2:4], 16) * 0.7152 + int(stop[4:6], 16) * 0.0722
        for stop in PALETTES["size"]
    ]
    assert steps == sorted(steps)


def page(*blocks):
    return render_page(Page("k", "t", ["f"], [Section("a", "b", "c", blocks)], {}))


def surface_block(name="t"):
    return Gallery([Figure(Surface(name, name, [0.0, 1.0]))])


def test_scripts_are_allowed_by_their_digest_and_only_where_used():
    table = Table("t", [Column("a")], [[Cell("1", value=1.0)]], sortable=True)
    plain = page(Table("t", [Column("a")], [[Cell("1")]]))
    assert "script-src" not in plain
    assert "runs no script;" in plain
    for blocks, count in (((surface_block(),), 1), ((table,), 1), ((Fold("f", [surface_block(), table]),), 2)):
        text = page(*blocks)
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
        allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
        policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
        assert len(scripts) == count
        assert f"; script-src {allowed}; base-uri" in policy
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "runs only the script inside it;" in text
    assert 'data-value="1.0"' in page(table)


def test_names_in_surfaces_are_only_ever_text():
    text = page(surface_block(HOSTILE))
    assert "<img" not in text
    assert text.count("<script") == text.count("</script") == 2


def test_the_scripts_are_small():
    assert len("".join(re.findall(r"<script>(.*?)</script>", page(surface_block()), re.DOTALL))) < 4_000
