"""Templates to pages."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from softknee._extras import require
from softknee._report.mathml import Markup, prose
from softknee._report.page import TEMPLATES as REPORT_TEMPLATES
from softknee._version import __version__

TEMPLATES = Path(__file__).parent / "templates"
# Everything comes from the folder itself, which a browser that reads files calls `file:`.
POLICY = "default-src 'none'; script-src 'self' file:; style-src 'self' file:; base-uri 'none'; form-action 'none'"


def render(template: str, **context: Any) -> str:
    """Return a page.

    Args:
        template: Name of its template.
        **context: What the template shows.

    Returns:
        The document.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    return str(_environment().get_template(template).render(policy=POLICY, version=__version__, **context))


def style() -> str:
    """Return the style sheet: that of the reports, and what the atlas adds."""
    sheets = (REPORT_TEMPLATES / "page.css", TEMPLATES / "atlas.css")
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def script() -> str:
    """Return the script that all pages share."""
    return (TEMPLATES / "atlas.js").read_text(encoding="utf-8")


def breakable(title: str) -> Markup:
    """Return the name of a class, to be broken between its words where it must be."""
    return Markup(re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "<wbr>", escape(title)))


@lru_cache(maxsize=1)
def _environment() -> Any:
    jinja2 = require("jinja2", extra="bench")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    environment.filters["breakable"] = breakable
    return environment
