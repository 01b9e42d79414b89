"""Self-contained HTML pages: sections of tables and figures under a headline.

A page loads nothing and runs no script but, where it has surfaces or sortable tables, its own; its content security
policy says so. Names in it are untrusted text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._extras import require
from softknee._report.colours import PALETTES
from softknee._report.mathml import Markup, mathml
from softknee._report.surface import Surface
from softknee._report.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from softknee._report.svg import Svg

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A drawing with a caption.

    Attributes:
        picture: The drawing, or a surface to turn.
        caption: Stands above it; empty for none.
        name: Whether the caption is a name, set like code.
    """

    picture: Svg | Surface
    caption: str = ""
    name: bool = True


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        text: Explains it.
        sample: Class of its sample line, for example `"main hue-1"`.
    """

    text: str
    sample: str


@dataclass(frozen=True)
class Gallery:
    """Figures side by side, as many as fit.

    Attributes:
        figures: The figures.
        legend: Explains their lines.
        wide: Whether each takes the full width, scrolling in its own box where there is too little.
        pairs: Whether each two belong together and stand side by side where there is room for two.
    """

    figures: Sequence[Figure]
    legend: Sequence[Key] = ()
    wide: bool = False
    pairs: bool = False


@dataclass(frozen=True)
class Note:
    """A paragraph.

    Attributes:
        text: Plain.
        link: File that all of it leads to, seen from the page; empty for none.
    """

    text: str
    link: str = ""


@dataclass(frozen=True)
class Code:
    """Text to copy: a click selects all of it.

    Attributes:
        title: Names it.
        text: Shown as it is.
    """

    title: str
    text: str


@dataclass(frozen=True)
class Formula:
    """A formula on a line of its own.

    Attributes:
        latex: As `mathml` reads it.
        name: What it is the formula of, before it; empty for nothing.
    """

    latex: str
    name: str = ""

    @property
    def markup(self) -> Markup:
        """The formula for browsers."""
        return mathml(self.latex, display=True)


@dataclass(frozen=True)
class Facts:
    """Terms with their explanations.

    Attributes:
        entries: Pairs of term and explanation.
    """

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Fold:
    """Blocks that can be folded away.

    Attributes:
        title: Always visible.
        blocks: Folded.
        opened: Whether they start visible.
    """

    title: str
    blocks: Sequence[Block]
    opened: bool = False


Block = Table | Gallery | Note | Code | Formula | Facts | Fold


@dataclass(frozen=True)
class Section:
    """A chapter of a page.

    Attributes:
        anchor: Its id, for links.
        title: Its heading.
        lead: A sentence or two on what it shows.
        blocks: Its content.
    """

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Group:
    """Names that share a verdict, for the top of the page.

    Attributes:
        kind: Class: the verdict, spaces as hyphens.
        title: The verdict in words.
        names: What it holds for.
    """

    kind: str
    title: str
    names: Sequence[str]


@dataclass(frozen=True)
class Measure:
    """A large number for the top of the page.

    Attributes:
        value: Shown large.
        unit: Beside it.
        caption: Below it.
    """

    value: str
    unit: str
    caption: str


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        kicker: A few words above the title.
        title: Of the page.
        finding: What came out; the first sentence stands large.
        groups: Who shares which verdict.
        measures: Large numbers.
        warnings: What limits the finding, such as missing runs.
        scripts: Names, among the templates, of scripts it runs besides those of its blocks.
        sections: The chapters.
        data: Plain data behind the page, embedded as JSON.
    """

    kicker: str
    title: str
    finding: Sequence[str]
    sections: Sequence[Section]
    data: Any
    groups: Sequence[Group] = ()
    measures: Sequence[Measure] = ()
    warnings: Sequence[str] = ()
    scripts: Sequence[str] = ()


def render_page(page: Page) -> str:
    """Return the page as one HTML document.

    Args:
        page: What it says.

    Returns:
        The document.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    scripts = _scripts(page)
    allowed = f"; script-src {' '.join(map(_digest, scripts))}" if scripts else ""
    policy = f"default-src 'none'; style-src {_digest(style)}{allowed}; base-uri 'none'; form-action 'none'"
    data = embedded_json(page.data)
    return _render("page.html.j2", page=page, style=style, policy=policy, scripts=scripts, data=data)


def render_fragment(finding: Sequence[str], tables: Sequence[Table]) -> str:
    """Return sentences and tables as bare HTML for a notebook, which brings its own style.

    Args:
        finding: Sentences.
        tables: Tables.

    Returns:
        Markup without document or style.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    return _render("fragment.html.j2", finding=finding, tables=tables)


def embedded_json(data: Any) -> str:
    """Return JSON that may stand inside a script element: no character in it can end the element or open another.

    Args:
        data: Plain data, finite numbers only.

    Returns:
        JSON text that parses to `data`.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _scripts(page: Page) -> list[str]:
    """Return the scripts that the page has a use for."""
    blocks = [block for section in page.sections for block in _unfolded(section.blocks)]
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    scripts = []
    if any(isinstance(figure.picture, Surface) for gallery in galleries for figure in gallery.figures):
        palettes = json.dumps({name: list(stops) for name, stops in PALETTES.items()}, separators=(",", ":"))
        scripts.append(_script("surface.js").replace("PALETTES", palettes))
    if any(isinstance(block, Table) and block.sortable for block in blocks):
        scripts.append(_script("sort.js"))
    return [*scripts, *map(_script, page.scripts)]


def _unfolded(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from _unfolded(block.blocks)


def _script(name: str) -> str:
    """Return a script of the templates without its indents."""
    lines = (TEMPLATES / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip() for line in lines)


def _digest(text: str) -> str:
    """Return the source by which a policy allows exactly `text`."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _render(template: str, **context: Any) -> str:
    jinja2 = require("jinja2", extra="bench")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return str(environment.get_template(template).render(**context))
