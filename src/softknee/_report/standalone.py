"""A single drawing as a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._report.page import TEMPLATES

if TYPE_CHECKING:
    from softknee._report.svg import Svg


def standalone_svg(picture: Svg) -> str:
    """Return the drawing as an SVG document with the style sheet of the pages inside.

    Args:
        picture: A drawing made for a page.

    Returns:
        Text for a file that any viewer shows.
    """
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    head, _, rest = picture.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'
