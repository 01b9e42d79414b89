"""The pages as files: what stands on them, and that they need nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from selected import NAMES

from softknee._atlas.equivalences import EQUIVALENCES
from softknee._atlas.render import breakable
from softknee._atlas.site import build
from softknee._catalogue import get
from softknee._collisions import COLLISIONS
from softknee._errors import UnknownActivation

VOID = {"meta", "link", "input", "br", "wbr"}


class Outline(HTMLParser):
    """Checks that elements close in order, and gathers ids, links and texts."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.text = [], [], [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.sources += [found[name] for name in ("src", "href") if tag in {"script", "link", "img"} and name in found]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(site, name):
    return Outline((site / f"{name}.html").read_text(encoding="utf-8"))


PAGES = ("index", "characteristics", "names", *(f"activations/{name}" for name in NAMES))


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_well_formed_and_their_links_lead_somewhere(site, name):
    found = page(site, name)
    assert len(set(found.ids)) == len(found.ids)
    here = (site / f"{name}.html").parent
    for link in found.links:
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = here / path if path else site / f"{name}.html"
            assert target.is_file(), link
            assert not anchor or "=" in anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8")
    assert all((here / source).is_file() for source in found.sources)


def test_a_page_says_what_is_known(site):
    found = page(site, "activations/gelu")
    for text in (
        *("Gaussian error linear unit", "BERT", "Dan Hendrycks and Kevin Gimpel (2016)", "@misc{hendrycks2016gelu"),
        *(
            'sk.create("gelu")',
            "class GELU(nn.Module)",
            "at least −0.17",
            "no kink",
            "moderate (58 vector instructions",
        ),
        *("forward 1.534, backward 1.481, χ 1.072", "eager: torch has it as one operation", "fixed: nothing in it"),
    ):
        assert text in found.text
    assert "https://arxiv.org/abs/1606.08415" in found.links


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("swish", "swish[beta=2]"),
        ("staf", "Entries of frequency"),
        ("rrelu", "90 % of the values in training"),
        ("step_ste", "what the backward pass differentiates"),
        ("swiglu", "Given with x"),
        ("dynamic_relu", "drelu means different things"),
        ("maxmin", "8 entries out"),
        ("linear_spline", "The whole formula"),
    ],
)
def test_each_kind_of_page_has_its_own(site, name, text):
    assert text in " ".join(page(site, f"activations/{name}").text.split())


def test_vectors_have_no_plot_and_others_a_drawn_one(site):
    for name in NAMES:
        text = (site / f"activations/{name}.html").read_text(encoding="utf-8")
        drawn = re.findall(r'<svg[^>]*class="chart lines[^"]*"', text)
        assert len(drawn) == (0 if get(name).kind == "vector" else 2)
        assert text.count("<math") >= 1


def test_the_index_counts_what_is_there(site):
    found = page(site, "index")
    assert f"{len(NAMES)} functions" in " ".join(found.text.split())
    assert {f"activations/{name}.html" for name in NAMES} <= set(found.links)


def test_names_has_all_collisions_and_equivalences(site):
    found = page(site, "names")
    text = " ".join(found.text.split())
    assert all(name in found.ids for name in COLLISIONS)
    assert all(equal.left in text and equal.why in text for equal in EQUIVALENCES)


def test_a_policy_keeps_everything_else_out(site):
    for name in PAGES:
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert policy.startswith("default-src &#39;none&#39;; script-src &#39;self&#39; file:;")
        assert "style=" not in text
        assert "http://" not in text


def test_names_must_be_known(tmp_path):
    with pytest.raises(UnknownActivation, match="no activation named 'gleu'"):
        build(tmp_path / "site", ["gleu"])
    assert not (tmp_path / "site").exists()


def test_building_again_gives_the_same(site, tmp_path):
    again = tmp_path / "again"
    build(again, ["relu", "staf", "rrelu"])
    first = {path.name: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    build(again, ["rrelu", "staf", "relu", "relu"])
    second = {path.name: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert first == second


def test_long_names_break_between_their_words():
    assert breakable("SmoothLeakyReLU") == "Smooth<wbr>Leaky<wbr>ReLU"
    assert breakable("GELUTanh") == "GELUTanh"
