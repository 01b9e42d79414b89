"""Formulas for browsers: the part of LaTeX that docstrings and printed expressions use, as MathML."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from softknee._report.signs import (
    BRACKETS,
    CLOSING,
    FONTS,
    FUNCTIONS,
    LETTERS,
    OPENING,
    OPERATORS,
    SPACES,
    UPRIGHT,
)
from softknee._report.svg import element

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BIG = re.compile(r"[bB]ig{1,2}[lrm]?")
THIN = '<mspace width="0.1667em"/>'
_SIGN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)


class Markup(str):
    """Finished markup; templates insert it as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself, the convention by which template engines know markup."""
        return str(self)


def prose(text: str) -> Markup:
    """Return a sentence of a docstring as HTML: formulas between dollar signs as MathML, code between backticks.

    Args:
        text: Plain text with `$...$` and backticks.

    Returns:
        Escaped markup.
    """
    parts: list[str] = []
    for index, part in enumerate(" ".join(text.split()).split("$")):
        if index % 2:
            parts.append(mathml(part))
        else:
            parts.append(re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(part, quote=False)))
    return Markup("".join(parts))


def mathml(latex: str, *, display: bool = False) -> Markup:
    """Return a formula as a MathML element.

    Args:
        latex: Symbols, `^`, `_`, fractions, roots, sums, functions, brackets, cases; an unknown command stays visible
            by its name.
        display: Whether it stands on a line of its own.

    Returns:
        The element.
    """
    rendered = _Reader(latex).row()
    return Markup(element("math", rendered, display="block" if display else "inline"))


class _Reader:
    """Reads LaTeX from left to right."""

    def __init__(self, latex: str) -> None:
        # Spaces mean something in words only.
        words = re.sub(r"(?<=\\text\{)[^{}]*", lambda word: word[0].replace(" ", "\u00a0"), latex)
        self.signs = [sign for sign in _SIGN.findall(words) if sign == "\u00a0" or not sign.isspace()]
        self.place = 0

    def row(self, *ends: str) -> str:
        """Return what comes before one of the ends, in one row."""
        row = _Row()
        while self.place < len(self.signs) and self._next not in ends:
            self._item(row)
        return row.markup

    @property
    def _next(self) -> str:
        return self.signs[self.place] if self.place < len(self.signs) else ""

    def _take(self) -> str:
        sign = self._next
        self.place += 1
        return sign

    def _item(self, row: _Row) -> None:
        """Read one item with its sub- and superscript into a row."""
        kind, base = self._atom(row)
        scripts: dict[str, str] = {}
        while self._next in {"^", "_"}:
            mark = self._take()
            scripts[mark] = self._argument()
        row.add(kind, _with_scripts(base, scripts, above=kind == "sum"))

    def _argument(self) -> str:
        """Read the group or the single sign that a command or a script takes."""
        if self._next == "{":
            self._take()
            inside = self.row("}")
            self._take()
            return element("mrow", inside)
        if self._next.isdigit():
            return element("mn", self._take())
        row = _Row()
        row.add(*self._atom(row))
        return element("mrow", row.markup)

    def _atom(self, row: _Row) -> tuple[str, str]:
        sign = self._take()
        if sign.startswith("\\"):
            return self._command(sign[1:], row)
        if sign == "{":
            inside = self.row("}")
            self._take()
            return "ordinary", element("mrow", inside)
        if sign.isdigit():
            return "ordinary", element("mn", sign + self._rest_of_number())
        if sign == "'":
            return "ordinary", element("mo", "′")
        if sign.isalpha():
            return "ordinary", element("mi", sign)
        if sign == "|":
            return "closing" if row.bars % 2 else "opening", _bracket("|")
        if sign in OPENING:
            return "opening", _bracket(sign)
        if sign in CLOSING:
            return "closing", _bracket(sign)
        return _sign(sign, row)

    def _rest_of_number(self) -> str:
        rest = ""
        while self._next.isdigit() or (self._next == "." and self._after.isdigit()):
            rest += self._take()
        return rest

    @property
    def _after(self) -> str:
        return self.signs[self.place + 1] if self.place + 1 < len(self.signs) else ""

    def _command(self, name: str, row: _Row) -> tuple[str, str]:
        tables: tuple[tuple[Mapping[str, str], Callable[[str], tuple[str, str]]], ...] = (
            (
                LETTERS,
                lambda sign: ("ordinary", element("mi", sign, mathvariant="normal" if sign in UPRIGHT else None)),
            ),
            (OPERATORS, lambda sign: ("operator", element("mo", escape(sign)))),
            (BRACKETS, lambda sign: (_side(name, row), _bracket(sign))),
        )
        for table, make in tables:
            if name in table:
                return make(table[name])
        if name in SPACES:
            return "space", f'<mspace width="{SPACES[name]}em"/>'
        if name in FUNCTIONS:
            return "function", element("mi", name)
        if name in FONTS:
            return self._font(name)
        if BIG.fullmatch(name):
            sign = self._take().lstrip("\\")
            kind = _sign("/", row)[0] if sign == "/" else _side(sign, row)
            return kind, _bracket(BRACKETS.get(sign, sign), size="1.4em")
        return self._structure(name)

    def _structure(self, name: str) -> tuple[str, str]:
        if name in {"frac", "tfrac", "dfrac"}:
            fraction = element("mfrac", self._argument(), self._argument())
            styles = {"tfrac": "false", "dfrac": "true"}
            return "ordinary", (element("mstyle", fraction, displaystyle=styles[name]) if name in styles else fraction)
        if name == "sqrt":
            if self._next == "[":
                self._take()
                index = element("mrow", self.row("]"))
                self._take()
                return "ordinary", element("mroot", self._argument(), index)
            return "ordinary", element("msqrt", self._argument())
        if name == "left":
            return "ordinary", self._fenced()
        if name in {"sum", "prod"}:
            return "sum", element("mo", {"sum": "∑", "prod": "∏"}[name])
        if name == "begin":
            return "ordinary", self._cases()
        return "ordinary", element("mi", escape(name))

    def _font(self, name: str) -> tuple[str, str]:
        """Read text in a font of its own: a word, or the name of a function."""
        depth, letters = 0, []
        text = name.startswith("text")
        self.place += 1
        while depth or self._next != "}":
            sign = self._take()
            depth += {"{": 1, "}": -1}.get(sign, 0)
            letters.append(sign.removeprefix("\\") if len(sign) == 2 else sign)
        self._take()
        word = escape("".join(letters))
        if text:
            return "word", element("mtext", word)
        variant = "normal" if len(word) == 1 else None
        return ("function" if name != "mathbf" else "ordinary"), element("mi", word, mathvariant=variant)

    def _fenced(self) -> str:
        opening = self._take().lstrip("\\")
        inside = self.row("\\right")
        self._take()
        closing = self._take().lstrip("\\")
        ends = [_bracket(BRACKETS.get(sign, sign), stretchy=True) if sign != "." else "" for sign in (opening, closing)]
        return element("mrow", ends[0], inside, ends[1])

    def _cases(self) -> str:
        kind = "".join(self.signs[self.place + 1 : self.signs.index("}", self.place)])
        self.place += len(kind) + 2
        rows: list[str] = []
        cells: list[str] = []
        while self.place < len(self.signs) and self._next != "\\end":
            cells.append(element("mtd", element("mrow", self.row("&", "\\\\", "\\end")), class_="case"))
            if self._next == "&":
                self._take()
                continue
            rows.append(element("mtr", *cells))
            cells = []
            if self._next == "\\\\":
                self._take()
        self.place += len(kind) + 3
        table = element("mtable", *rows)
        return element("mrow", _bracket("{", stretchy=True) if kind == "cases" else "", table)


class _Row:
    """Items side by side, with the space that belongs between them."""

    def __init__(self) -> None:
        self.markup = ""
        self.last = ""
        self.bars = 0

    def add(self, kind: str, markup: str) -> None:
        """Add an item.

        Args:
            kind: `"ordinary"`, `"word"`, `"function"`, `"operator"`, `"opening"`, `"closing"`, `"sum"` or `"space"`.
            markup: The item.
        """
        bar = ">|<" in markup and kind in {"opening", "closing"}
        self.bars += bar
        apart = (
            (self.last in {"ordinary", "closing"} and kind in {"function", "sum", "word"})
            or (self.last == "function" and (kind in {"ordinary", "function", "sum", "word"} or bar))
            or (self.last == "word" and kind in {"ordinary", "function", "sum", "word", "opening"})
        )
        spaced = self.markup.endswith("\u00a0</mtext>") or markup.startswith("<mtext>\u00a0")
        self.markup += (THIN if apart and not spaced else "") + markup
        self.last = kind


def _with_scripts(base: str, scripts: Mapping[str, str], *, above: bool) -> str:
    lower, upper = scripts.get("_"), scripts.get("^")
    if lower is None and upper is None:
        return base
    names = ("munder", "mover", "munderover") if above else ("msub", "msup", "msubsup")
    if upper is None:
        return element(names[0], base, lower or "")
    if lower is None:
        return element(names[1], base, upper)
    return element(names[2], base, lower, upper)


def _sign(sign: str, row: _Row) -> tuple[str, str]:
    """Return an operator; at the start, or behind another one, it is a sign."""
    if sign == "/":
        return "operator", element("mo", "/", lspace="0", rspace="0")
    if sign in {",", ";", "."}:
        return "operator", element("mo", sign, separator="true")
    shown = {"-": "−", "*": "⋅", "<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(sign, sign)
    prefix = row.last in {"", "operator", "opening"} and sign in "+-±"
    return "operator", element("mo", shown, form="prefix" if prefix else None)


def _side(name: str, row: _Row) -> str:
    if name in {"|", "vert"}:
        return "closing" if row.bars % 2 else "opening"
    return "closing" if BRACKETS.get(name, name) in CLOSING or name == "rvert" else "opening"


def _bracket(sign: str, *, stretchy: bool = False, size: str | None = None) -> str:
    stretch = "true" if stretchy or size else "false"
    return element("mo", sign, stretchy=stretch, minsize=size, maxsize=size, lspace="0", rspace="0")
