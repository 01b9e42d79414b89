"""How a diagnosis was made: sample, definitions, limits, and what was not seen or not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import name_cell, short
from softknee._report.page import Facts, Fold, Section
from softknee._report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._report.page import Block

_LEAD = "What the numbers are, what they rest on, and what they do not say. All of them are embedded as JSON."
_SAMPLE = (
    "The first {samples:,} samples of the loader, in {batches:,} batches, in eval mode; all random choices are drawn "
    "from seed {seed}. SHA-256 of the sample: {hash}."
)
_UNITS = (
    "A unit is a channel or feature; a site is one place where an activation acts. Of a convolution each position of "
    "each sample is one value of its channel. Shares of units are exact for this sample; what never happened in N "
    "values of a unit has a rate below 1 - 0.05^(1/N), with 95 % confidence if the values are independent."
)
_THEORY = (
    "Mean-field theory: wide layers, independent weights, Gaussian pre-activations. Trained weights are not "
    "independent, so each prediction stands beside a measurement."
)


def method_section(data: Mapping[str, Any]) -> Section:
    """Return the last section.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    sample, method = data["data"], data["method"]
    known = {"samples": sample.get("samples") or 0, "batches": sample.get("batches") or 0}
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    tool = data["tool"]
    facts = [
        ("Sample", _SAMPLE.format(**known, seed=sample.get("seed"), hash=sample.get("hash") or "not known")),
        ("Units", _UNITS),
        ("Theory", _THEORY),
        ("Environment", f"{tool['name']} {tool['version']}, {versions}; schema {data['schema']}"),
    ]
    missing = method.get("not_measured") or {}
    facts += [("Not measured", f"{part}: {reason}") for part, reason in missing.items()]
    if method.get("silenced"):
        facts.append(("Silenced", ", ".join(method["silenced"])))
    blocks: list[Block] = [Facts(facts)]
    if data["coverage"]:
        columns = [Column("Path", numeric=False), Column("Reason", numeric=False)]
        rows = [[name_cell(one["path"]), Cell(one["reason"], kind="words")] for one in data["coverage"]]
        blocks.append(Fold("What was not seen", [Table("Places", columns, rows)]))
    if method.get("definitions"):
        blocks.append(Fold("Rules and their definitions", [Facts([tuple(pair) for pair in method["definitions"]])]))
    if method.get("thresholds"):
        rows = [[Cell(name.replace("_", " ")), Cell(short(value))] for name, value in method["thresholds"].items()]
        columns = [Column("Limit", numeric=False), Column("Value")]
        blocks.append(Fold("Limits of the rules", [Table("Limits", columns, rows)]))
    return Section("method", "Method", _LEAD, blocks)
