"""What can be said about a formula's text before anybody reads it as one."""

from __future__ import annotations

import unicodedata
from types import MappingProxyType

from softknee._errors import ExpressionError

LONGEST_TEXT = 2000
DEEPEST_TREE = 60
# Signs that look like ours, and what to write.
LOOKALIKES = MappingProxyType(
    {
        **dict.fromkeys("−–—", "-"),
        **dict.fromkeys("×·⋅∗", "*"),
        **dict.fromkeys("÷⁄∕", "/"),
        "²": "**2",
        "³": "**3",
        "√": "sqrt(...)",
        "π": "pi",
        "≤": "<=",
        "≥": ">=",
        "∞": "a large number",
    }
)


def screened(text: str) -> str:
    """Return the text on one line, for Python's parser.

    Args:
        text: Anything.

    Returns:
        Plain ASCII without comments, not too long, its brackets in pairs and not too deep.

    Raises:
        ExpressionError: It is not so.
    """
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {LONGEST_TEXT} are allowed")
    _check_characters(text)
    line = " ".join(text.split())
    if not line:
        raise ExpressionError("the expression is empty")
    _check_brackets(line)
    return line


def _check_characters(text: str) -> None:
    for place, character in enumerate(text):
        if character in "#\\" or not (character.isascii() and (character.isprintable() or character in "\t\n\r\f\v")):
            raise ExpressionError(_about(character), text, place)


def _about(character: str) -> str:
    name = unicodedata.name(character, f"character number {ord(character)}")
    if character in LOOKALIKES:
        return f"{character} ({name}) is not understood; write {LOOKALIKES[character]}"
    if character.isascii():
        return f"{name} has no meaning in a formula"
    return f"{name} is not understood; formulas are plain ASCII, and Greek letters are spelt out"


def _check_brackets(line: str) -> None:
    open_places: list[int] = []
    for place, character in enumerate(line):
        if character == "(":
            open_places.append(place)
        elif character == ")" and not open_places:
            raise ExpressionError("this is no formula: the bracket closes nothing", line, place)
        elif character == ")":
            open_places.pop()
        if len(open_places) > DEEPEST_TREE:
            raise ExpressionError(f"nested more than {DEEPEST_TREE} deep", line, place)
    if open_places:
        raise ExpressionError("this is no formula: the bracket is never closed", line, open_places[-1])
