"""The dictionary that a diagnosis is: plain JSON, versioned; the page and the command line read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softknee._errors import UsageError

SCHEMA = 1
# Digits kept of measured numbers: more than any of them is known to, and half the size on disk.
DIGITS = 6
# Lists that are drawn, of which four digits are enough. Losses are not among them: their differences may be small.
_CURVES = frozenset({"edges", "x", "y", "density", "low", "high", "cumulative", "cumulative_low", "cumulative_high"})
LEVELS = ("quick", "full", "trial")
SEVERITIES = ("critical", "warn", "info")
# Under `not_measured`, the part without which nothing is known of units.
SITES = "units of every site"
# What a diagnosis of this schema has, and what stands where a part was not measured.
_PARTS: Mapping[str, Any] = {
    "tool": {"name": "softknee", "version": "unknown"},
    "level": "quick",
    "versions": {},
    "model": {},
    "data": {},
    "structure": None,
    "coverage": [],
    "sites": [],
    "signal": None,
    "gradients": None,
    "trainable": None,
    "curvature": None,
    "landscape": None,
    "kernel": None,
    "rank": None,
    "lipschitz": None,
    "classification": None,
    "history": None,
    "findings": [],
    "trials": [],
    "trials_about": None,
    "method": {},
}
_LISTS = ("coverage", "sites", "findings", "trials")


def checked(data: Any, source: str) -> dict[str, Any]:
    """Return stored data as a diagnosis, parts it has not as not measured.

    Args:
        data: What was read.
        source: Where from, for the sentence.

    Returns:
        A new dictionary with every part of the schema.

    Raises:
        UsageError: It is no diagnosis, or one of a newer schema.
    """
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise UsageError(f"{source}: this is no diagnosis; it has no schema number")
    if schema > SCHEMA:
        raise UsageError(
            f"{source}: the diagnosis has schema {schema}, and this version of softknee reads up to {SCHEMA}; update it"
        )
    found = {"schema": schema, **{name: data.get(name) or empty for name, empty in _PARTS.items()}}
    wrong = [name for name in _LISTS if not _is_rows(found[name])]
    if wrong:
        raise UsageError(f"{source}: this is no diagnosis; {wrong[0]!r} must be a list of objects")
    return found


def compact(value: Any) -> Any:
    """Return plain data in fewer characters: with few digits, and histograms without empty ends.

    Args:
        value: As `softknee._report.plain.plain` returns it.

    Returns:
        The same, smaller.
    """
    if isinstance(value, Mapping):
        found = {key: _shorter(key, one) for key, one in value.items()}
        edges, counts = found.get("edges"), found.get("counts")
        if isinstance(edges, list) and isinstance(counts, list) and len(counts) == len(edges) + 1:
            return {**found, **_trimmed(edges, counts)}
        return found
    if isinstance(value, list):
        return [compact(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _shorter(name: str, value: Any) -> Any:
    """Return what goes by a name, compact; the points of curves to fewer digits."""
    if name in _CURVES and isinstance(value, list):
        return [float(f"{one:.4g}") if isinstance(one, float) else compact(one) for one in value]
    return compact(value)


def _trimmed(edges: list[Any], counts: list[Any]) -> dict[str, Any]:
    """Return a histogram without the outer bins that are empty, of which one is left at either end."""
    first = next((index for index, count in enumerate(counts) if count), 0)
    last = next((index for index, count in enumerate(reversed(counts)) if count), 0)
    start = min(max(first - 1, 0), len(edges) - 2)
    end = max(len(edges) - max(last - 1, 0), start + 2)
    return {"edges": edges[start:end], "counts": counts[start : end + 1]}


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value)
