from __future__ import annotations

import pytest

from softknee._atlas.citations import citation, plain_text
from softknee._catalogue import bibliography

SOURCES = bibliography()


def test_a_paper_with_two_authors():
    found = citation(SOURCES["hendrycks2016gelu"])
    assert (
        found.sentence
        == "Dan Hendrycks and Kevin Gimpel (2016). Gaussian error linear units (GELUs). arXiv:1606.08415."
    )
    assert found.short == "Hendrycks and Gimpel 2016"
    assert found.link == "https://arxiv.org/abs/1606.08415"
    assert found.year == 2016


def test_many_authors_are_cut_short():
    found = citation(SOURCES["jin2016srelu"])
    assert found.sentence.startswith("Xiaojie Jin et al. (2016). Deep learning with S-shaped rectified")
    assert found.short == "Jin et al. 2016"


def test_a_source_without_authors():
    found = citation(SOURCES["folklore"])
    assert found.sentence == "Textbook knowledge. No single source."
    assert (found.short, found.year, found.link) == ("", None, "")


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"N{\o}kland", "Nøkland"),
        (r"Cl{\'e}ment", "Clément"),
        (r"M{\"u}ller", "Müller"),
        (r"Ko{\c{c}}", "Koç"),
        (r"Kl{\'e}ma, Ji{\v{r}}{\'i}", "Kléma, Jiří"),
        (r"Yero{\u{g}}lu", "Yeroğlu"),
        ("{ImageNet} 12--15", "ImageNet 12–15"),
        (r"Wang \& Sons", "Wang & Sons"),
    ],
)
def test_latex_letters(tex, text):
    assert plain_text(tex) == text


@pytest.mark.parametrize("key", SOURCES)
def test_every_source_is_a_clean_sentence(key):
    found = citation(SOURCES[key])
    assert found.sentence.endswith((".", "?"))
    assert not set(found.sentence.replace("$l_2$", "")) & set("{}\\$~")
    assert ".." not in found.sentence
    assert found.bibtex == SOURCES[key]
