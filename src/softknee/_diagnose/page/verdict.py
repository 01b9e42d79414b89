"""A diagnosis in one sentence and in ten lines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.place import place
from softknee._diagnose.schema import SITES
from softknee._report.table import listed, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# In words, with their plurals.
SEVERITY_WORDS = {
    "critical": ("critical finding", "critical findings"),
    "warn": ("warning", "warnings"),
    "info": ("note", "notes"),
}
_LINES = 10
# Words that a finding's text may have on its line of the summary, in characters.
_LONGEST = 150


def verdict(data: Mapping[str, Any]) -> str:
    """Return one sentence: what is worst, on how many sites and samples.

    Args:
        data: A diagnosis.

    Returns:
        The sentence.
    """
    seen = f"{plural(len(data['sites']), 'site')} and {plural(data['data'].get('samples') or 0, 'sample')}"
    pressing = [one for one in data["findings"] if one["severity"] != "info"]
    if not pressing:
        notes = len(data["findings"])
        more = f"; {plural(notes, 'note')} below" if notes else ""
        return f"Nothing to act on was found on {seen}{more}."
    first = pressing[0]
    where = f" at {place(data, first['site'])}" if first["site"] else ""
    return f"{_counted(data)} on {seen}. Worst{where}: {_sentence(first['text'])}"


def coverage_sentence(data: Mapping[str, Any]) -> str:
    """Return what could not be seen, in a sentence.

    Args:
        data: A diagnosis.

    Returns:
        The sentence.
    """
    unseen = data["coverage"]
    reason = (data["method"].get("not_measured") or {}).get(SITES)
    if reason:
        return f"The units could not be measured: {reason}."
    if not unseen:
        return "All activations that ran were seen."
    first = unseen[0]
    more = f", and {plural(len(unseen) - 1, 'more place')}" if len(unseen) > 1 else ""
    return f"Not seen: {first['path'] or 'the model'} ({first['reason']}){more}."


def about_model(data: Mapping[str, Any]) -> str:
    """Return what was diagnosed, in a line.

    Args:
        data: A diagnosis.

    Returns:
        The line.
    """
    model = data["model"]
    parts = [str(model.get("class") or "model")]
    if model.get("parameters") is not None:
        own = model.get("activation_parameters") or 0
        trained = f", {own:,} of them of activations" if own else ""
        parts.append(f"{plural(model['parameters'], 'parameter')}{trained}")
    parts += [str(model[name]) for name in ("dtype", "device") if model.get(name)]
    return " · ".join(parts)


def about_data(data: Mapping[str, Any]) -> str:
    """Return what it was diagnosed on, in a line.

    Args:
        data: A diagnosis.

    Returns:
        The line.
    """
    sample = data["data"]
    loss = f"loss {sample['loss']}" if sample.get("loss") else "no loss"
    number = plural(sample.get("samples") or 0, "sample")
    batches = plural(sample.get("batches") or 0, "batch", "batches")
    return f"{number} in {batches} · {loss} · seed {sample.get('seed', 0)} · level {data['level']}"


def summary(data: Mapping[str, Any]) -> str:
    """Return at most ten lines of text.

    Args:
        data: A diagnosis.

    Returns:
        Lines: verdict, model, data, coverage, what trials found, the worst findings.
    """
    lines = [verdict(data), about_model(data), about_data(data), coverage_sentence(data)]
    tried = (data.get("trials_about") or {}).get("verdict")
    lines += [f"Trials: {tried}"] if tried else []
    rows = [_line(data, found) for found in by_rule(data["findings"])]
    room = _LINES - len(lines)
    if len(rows) > room:
        rows = [*rows[: room - 1], f"and {plural(len(rows) - room + 1, 'more rule')}"]
    return "\n".join([*lines, *rows])


def by_rule(findings: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return findings in groups of the same rule and severity, in the same order.

    Args:
        findings: Of a diagnosis.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in findings:
        found.setdefault((one["severity"], one["id"]), []).append(one)
    return list(found.values())


def _line(data: Mapping[str, Any], found: list[Mapping[str, Any]]) -> str:
    first = found[0]
    where = f"{place(data, first['site'])}: " if first["site"] else ""
    more = f" (and {plural(len(found) - 1, 'more place')})" if len(found) > 1 else ""
    text = f"{where}{_sentence(first['text'])}"
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f"{first['severity']:<8}  {first['id']}: {text}{more}"


def _sentence(text: str) -> str:
    """Return the first sentence."""
    head, end, _ = text.partition(". ")
    return f"{head}." if end else text


def _counted(data: Mapping[str, Any]) -> str:
    count = Counter(one["severity"] for one in data["findings"])
    return listed([plural(count[name], *words) for name, words in SEVERITY_WORDS.items() if count[name]])
