"""The findings of a diagnosis, one fold a rule: where, how much, why it matters, what to do, how to check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.place import place
from softknee._diagnose.page.verdict import by_rule
from softknee._diagnose.page.words import SIGNS, between
from softknee._diagnose.rules.explain import RULES
from softknee._report.page import Facts, Fold, Note, Section
from softknee._report.table import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softknee._report.page import Block

    Findings = Sequence[Mapping[str, Any]]

# Places listed for one rule.
_PLACES = 6
_LEAD = "Worst first. Unfold one for why it matters, what to do, and how to see whether that helped."


def findings_section(data: Mapping[str, Any]) -> Section:
    """Return the section of the findings.

    Args:
        data: A diagnosis.

    Returns:
        The section; a sentence where there are none.
    """
    blocks: list[Block] = list(_folds(data))
    return Section("findings", "Findings", _LEAD, blocks or [Note("No rule found anything.")])


def _folds(data: Mapping[str, Any]) -> Iterator[Fold]:
    for found in by_rule(data["findings"]):
        severity = found[0]["severity"]
        more = f" And {plural(len(found) - 1, 'more place')}." if len(found) > 1 else ""
        shown = f"{SIGNS.get(severity, '○')} {severity} · {_said(data, found[0])}{more}"
        rows = [] if len(found) == 1 and found[0]["low"] is None else _places(data, found)
        yield Fold(shown, [Facts([*rows, *_facts(found[0])])], opened=severity == "critical")


def _places(data: Mapping[str, Any], found: Findings) -> list[tuple[str, str]]:
    """Return where and what was found, the first places of many."""
    rows = [("" if index else "Found", _place(data, one)) for index, one in enumerate(found[:_PLACES])]
    left = len(found) - len(rows)
    return [*rows, ("", f"and {plural(left, 'more place')}; all of them are in the JSON")] if left else rows


def _place(data: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    number = "" if one["low"] is None else f" Value and interval: {between(one['value'], one['low'], one['high'])}."
    return f"{_said(data, one)}{number}"


def _said(data: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return f"{place(data, one['site'])}: {one['text']}" if one["site"] else str(one["text"])


def _facts(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    source = f" ({one['reference']})" if one["reference"] else ""
    facts = [
        ("Why it matters", f"{one['why']}{source}"),
        ("What to do", one["fix"]),
        ("How to check", one["check"]),
    ]
    known = RULES.get(one["id"])
    return [*facts, ("Rule", f"{one['id']} ({known.title}). {known.definition}" if known else one["id"])]
