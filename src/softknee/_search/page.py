"""The result of a search as a page: a pure function of its plain data, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._report.page import Page, render_page
from softknee._report.table import plural
from softknee._search.page_cost import cost_section
from softknee._search.page_function import audit_section, function_section, price_section, source_section
from softknee._search.page_method import method_section
from softknee._search.page_trajectory import trajectory_section
from softknee._search.page_tried import tried_section
from softknee._search.page_verdict import measures, verdict_section
from softknee._search.page_words import brief, rows_by_key

if TYPE_CHECKING:
    from collections.abc import Mapping


def result_page(data: Mapping[str, Any]) -> str:
    """Return the page of a search's result.

    Args:
        data: As `Result.to_json` returns it.

    Returns:
        One HTML document that loads nothing.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    settings, cost = data["settings"], data["cost"]
    sections = [
        verdict_section(data),
        function_section(data),
        tried_section(data),
        cost_section(data),
        trajectory_section(data),
        audit_section(data),
        price_section(data),
        source_section(data),
        method_section(data),
    ]
    return render_page(
        Page(
            kicker=f"softknee search · {settings['method']} in {settings['space']['name']} · seed {settings['seed']}",
            title="Search for an activation",
            finding=[_sentence(data), _returned(data), _rest(cost)],
            measures=measures(data),
            warnings=data["notes"],
            sections=[section for section in sections if section is not None],
            data=data,
        )
    )


def _sentence(data: Mapping[str, Any]) -> str:
    """Return the verdict with a full stop, and with a capital unless it begins with a function."""
    text = data["verdict"].rstrip(".")
    named = any(text.startswith(row["name"]) for row in data["table"])
    return f"{text if named else text[:1].upper() + text[1:]}."


def _returned(data: Mapping[str, Any]) -> str:
    name = brief(rows_by_key(data)[data["best"]]["name"])
    what = "a baseline" if data["outcome"] == "baseline" else "found by this search"
    return f"Returned: {name}, {what}."


def _rest(cost: Mapping[str, Any]) -> str:
    minutes = cost["seconds"] / 60
    took = plural(round(cost["seconds"]), "second") if minutes < 2 else plural(round(minutes), "minute")
    return f"Training and evaluation took {took}, verification included."
