"""Claims about activations that are often written, with a verdict and what shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, overload

from softknee._errors import UsageError, did_you_mean
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Numbers = Mapping[str, float]

WRONG, UNSUPPORTED, PARTLY = "wrong", "no source found", "true in part"
# Characters of a line in a terminal, and on the page.
WIDTH, PAGE_WIDTH = 100, 120


@dataclass(frozen=True)
class Claim:
    """A claim.

    Attributes:
        id: Names it.
        claim: What is often written.
        verdict: "wrong", "no source found" or "true in part".
        fact: What is right, as far as it is known.
        source: Where that is from, or what was looked for.
        shown: What `show` measures, each with the value that the verdict rests on and how far it may be off.
        measure: Measures it; None where no computation can decide.
        see: Where softknee says more.
    """

    id: str
    claim: str
    verdict: str
    fact: str
    source: str
    shown: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    measure: Callable[[], Numbers] | None = None
    see: str = ""

    @property
    def command(self) -> str:
        """The command that shows it."""
        return f"softknee claims {self.id}"

    def show(self) -> Numbers:
        """Measure, here and now, what the verdict rests on; nothing where no computation can decide."""
        return {} if self.measure is None else self.measure()

    def text(self) -> str:
        """Return the claim, its verdict and what was measured just now, as text."""
        measured = [f"{name}: {value:.6g}" for name, value in self.show().items()]
        facts = {
            "often written": self.claim,
            "verdict": self.verdict,
            "what is right": self.fact,
            "source": self.source,
            "see": self.see,
            "measured here": "\n".join(measured) or "nothing: no computation can decide this",
        }
        return "\n".join(_entry(name, text) for name, text in facts.items() if text)


class Ledger(Sequence[Claim]):
    """All claims in their order.

    Args:
        rows: The claims.
    """

    def __init__(self, rows: Sequence[Claim]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, key: int | str) -> Claim: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Claim]: ...
    def __getitem__(self, key: int | str | slice) -> Claim | Sequence[Claim]:
        """Return a claim by its place or its id.

        Raises:
            UsageError: No claim has that id.
        """
        if not isinstance(key, str):
            return self._rows[key]
        names = [row.id for row in self._rows]
        if key not in names:
            hint = did_you_mean(key, names)
            raise UsageError(f"no claim {excerpt(key)}{hint}; `softknee claims` lists them")
        return self._rows[names.index(key)]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        width = max(len(row.id) for row in self._rows)
        verdicts = max(len(row.verdict) for row in self._rows)
        lines = [
            textwrap.fill(
                f"{row.id:{width}}  {row.verdict:{verdicts}}  {row.claim}",
                WIDTH + width,
                subsequent_indent=" " * (width + verdicts + 4),
            )
            for row in self._rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "<tr><th>claim<th>verdict<th>what is right<th>source"
        rows = [
            f"<tr><td>{escape(row.claim)}<td>{escape(row.verdict)}<td>{escape(row.fact)}<td>{escape(row.source)}"
            for row in self._rows
        ]
        return f"<table>{head}{''.join(rows)}</table>"

    def to_markdown(self) -> str:
        """Return the ledger in Markdown, a section a claim, with the numbers that each verdict rests on."""
        return "\n".join(map(_section, self._rows))


def claims() -> Ledger:
    """Return the ledger of claims about activations that are often written but do not hold, or not as written.

    `claims()["xi-index"].show()` measures what a verdict rests on; on the command line that is
    `softknee claims xi-index`.

    Returns:
        The claims.
    """
    from softknee._diagnose.claims.rows import ROWS

    return Ledger(ROWS)


def _entry(name: str, text: str) -> str:
    indent = " " * 15
    lines = [textwrap.fill(line, WIDTH, subsequent_indent=indent, initial_indent=indent) for line in text.split("\n")]
    return f"{name:>13}  " + "\n".join(lines).lstrip()


def _section(row: Claim) -> str:
    see = f" *See* {row.see}." if row.see else ""
    texts = (f"> {row.claim}", row.fact, f"*Source*: {row.source}.{see}")
    paragraphs = [textwrap.fill(text, PAGE_WIDTH, break_on_hyphens=False) for text in texts]
    lines = [f"## {row.id}: {row.verdict}", "", "\n\n".join(paragraphs)]
    if row.shown:
        lines += ["", f"`{row.command}` measures:", ""]
        lines += [f"- {name}: {_about(*value)}" for name, value in row.shown.items()]
    else:
        lines += ["", "No computation can decide this."]
    return "\n".join([*lines, ""])


def _about(value: float, tolerance: float) -> str:
    """Return a number with the digits that its tolerance leaves."""
    if not value or tolerance <= abs(value) * 1e-5:
        return f"{value:.6g}"
    return f"{value:.3g}" if tolerance <= abs(value) * 0.02 else f"about {float(f'{value:.2g}'):g}"
