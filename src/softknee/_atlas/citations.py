"""BibTeX entries as sentences."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from types import MappingProxyType

from softknee._report.table import listed

MOST_AUTHORS = 4
_FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?\s*$")
_ACCENT = re.compile(r"\\([\"'`^~=.uvcHkbd])\s*\{?\\?([a-zA-Z])\}?")
# Signs that LaTeX puts above or below a letter, and as Unicode combines them.
_COMBINING = dict(
    zip(
        "\"'`^~=.uvcHkbd",
        "\u0308\u0301\u0300\u0302\u0303\u0304\u0307\u0306\u030c\u0327\u030b\u0328\u0331\u0323",
        strict=True,
    )
)
_LETTERS = MappingProxyType({r"\o": "ø", r"\O": "Ø", r"\l": "ł", r"\ss": "ß", r"\aa": "å", r"\ae": "æ", r"\i": "ı"})


@dataclass(frozen=True)
class Citation:
    """A source as a sentence.

    Attributes:
        key: In the bibliography.
        sentence: Authors, year, title, where it appeared.
        short: Family names and year, such as `"He et al. 2015"`; empty where there are none.
        year: Of publication, None where there is none.
        link: Where it can be read, empty where that is not known.
        bibtex: The entry.
    """

    key: str
    sentence: str
    short: str
    year: int | None
    link: str
    bibtex: str


def citation(entry: str) -> Citation:
    """Return a BibTeX entry as a sentence.

    Args:
        entry: With one field a line, each in braces.

    Returns:
        What it says.
    """
    key = entry.partition("{")[2].partition(",")[0]
    matches = (_FIELD.match(line) for line in entry.splitlines())
    fields = {match[1]: match[2] for match in matches if match}
    plain = {name: plain_text(value) for name, value in fields.items()}
    year = int(plain["year"]) if plain.get("year", "").isdigit() else None
    authors = [plain_text(name) for name in fields.get("author", "").split(" and ") if name]
    who = _authors(authors)
    head = f"{who} ({year})" if who and year else who
    parts = [head, plain.get("title", ""), _place(plain), plain.get("note", "")]
    sentence = " ".join(part if part.endswith("?") else f"{part}." for part in parts if part)
    return Citation(key, sentence, _short(authors, year), year, _link(plain), entry)


def plain_text(tex: str) -> str:
    """Return the text of a BibTeX field: accents composed, braces and commands gone."""

    def composed(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", match[2] + _COMBINING[match[1]])

    text = _ACCENT.sub(composed, tex)
    for command, letter in _LETTERS.items():
        text = re.sub(re.escape(command) + r"(?![a-zA-Z])\s?", letter, text)
    for written, meant in (
        ("--", "–"),
        ("~", "\u00a0"),
        (r"\&", "&"),
        (r"\%", "%"),
        (r"\_", "_"),
        ("{", ""),
        ("}", ""),
    ):
        text = text.replace(written, meant)
    return text


def _authors(authors: list[str]) -> str:
    names = [_given_first(name) for name in authors]
    return f"{names[0]} et al." if len(names) > MOST_AUTHORS or "others" in names else listed(names) if names else ""


def _short(authors: list[str], year: int | None) -> str:
    families = [name.partition(", ")[0] for name in authors]
    if len(families) > 2 or "others" in families:
        families = [f"{families[0]} et al."]
    return f"{listed(families)} {year or ''}".strip() if families else ""


def _given_first(name: str) -> str:
    family, comma, given = name.partition(", ")
    return f"{given} {family}" if comma else family


def _place(plain: dict[str, str]) -> str:
    kinds = ("journal", "booktitle", "school", "institution", "howpublished")
    where = next((plain[name] for name in kinds if name in plain), "")
    volume = plain.get("volume", "") + (f"({plain['number']})" if "number" in plain and "volume" in plain else "")
    pages = plain.get("pages", "")
    placed = " ".join(filter(None, [where, volume])) + (f", {pages}" if pages and where else "")
    return ", ".join(filter(None, [placed, f"arXiv:{plain['eprint']}" if "eprint" in plain else ""]))


def _link(plain: dict[str, str]) -> str:
    if "eprint" in plain:
        return f"https://arxiv.org/abs/{plain['eprint']}"
    if "doi" in plain:
        return f"https://doi.org/{plain['doi']}"
    return plain.get("url", "")
