"""A diagnosis as a page: a pure function of its dictionary, without torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.curvature import curvature_section
from softknee._diagnose.page.findings import findings_section
from softknee._diagnose.page.method import method_section
from softknee._diagnose.page.results import results_section
from softknee._diagnose.page.signal import gradients_section, signal_measures, signal_section
from softknee._diagnose.page.sites import sites_section
from softknee._diagnose.page.trainable import trainable_section
from softknee._diagnose.page.trials import trials_section
from softknee._diagnose.page.verdict import about_data, about_model, coverage_sentence, verdict
from softknee._diagnose.page.words import SIGNS
from softknee._report.page import Measure, Page, render_fragment, render_page
from softknee._report.table import Cell, Column, Table, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTED = {"critical": "critical", "warn": "warnings", "info": "notes"}
# Places that were not seen which stand at the top.
_UNSEEN = 5


def page(data: Mapping[str, Any]) -> str:
    """Return the page of a diagnosis.

    Args:
        data: By the schema, as `Diagnosis.to_dict` returns it.

    Returns:
        One HTML document that loads nothing.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    versions = data["versions"]
    kicker = f"softknee diagnose · level {data['level']} · seed {data['data'].get('seed', 0)}"
    environment = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if versions.get(name))
    sections = [
        findings_section(data),
        sites_section(data),
        signal_section(data),
        gradients_section(data),
        trainable_section(data),
        curvature_section(data),
        results_section(data),
        trials_section(data),
        method_section(data),
    ]
    return render_page(
        Page(
            kicker=kicker,
            title=f"How the activations of {data['model'].get('class') or 'the model'} do",
            finding=[
                verdict(data),
                f"{about_model(data)}. {about_data(data)}. {environment}.",
                coverage_sentence(data),
            ],
            measures=[*_measures(data), *signal_measures(data)],
            warnings=_unseen(data),
            sections=[section for section in sections if section is not None],
            data=data,
        )
    )


def fragment(data: Mapping[str, Any]) -> str:
    """Return verdict and findings as bare HTML for a notebook.

    Args:
        data: By the schema.

    Returns:
        Markup without document or style.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    columns = [Column(title, numeric=False) for title in ("", "Rule", "Where", "What was found")]
    rows = [
        [Cell(one["severity"]), Cell(one["id"]), Cell(one["site"] or "(model)"), Cell(one["text"])]
        for one in data["findings"]
    ]
    sentences = [verdict(data), f"{about_model(data)}. {about_data(data)}.", coverage_sentence(data)]
    return render_fragment(sentences, [Table("Findings", columns, rows)] if rows else [])


def _measures(data: Mapping[str, Any]) -> list[Measure]:
    count = Counter(one["severity"] for one in data["findings"])
    return [Measure(str(count[name]), SIGNS[name], word) for name, word in _COUNTED.items()]


def _unseen(data: Mapping[str, Any]) -> list[str]:
    listed = [f"Not seen: {one['path'] or 'the model'}: {one['reason']}" for one in data["coverage"][:_UNSEEN]]
    left = len(data["coverage"]) - len(listed)
    return [*listed, f"Not seen: {plural(left, 'more place')}, listed under Method"] if left else listed
