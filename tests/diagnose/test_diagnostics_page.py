"""The guide to diagnostics is true: its code runs, and its tables have every rule and every field."""

from __future__ import annotations

import re
from pathlib import Path

from fabricate_diagnosis import diagnosis

from softknee._diagnose.rules.explain import RULES
from softknee._diagnose.rules.rules import THRESHOLDS
from softknee._diagnose.run import diagnose

PAGE = (Path(__file__).parents[2] / "docs" / "diagnostics.md").read_text("utf-8")


def table(heading):
    """First and other cells of the rows of the last table under a heading."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", first), others) for first, *others in rows]


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    (piece,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(piece, "diagnostics.md", "exec"), {})
    (claimed,) = re.findall(r"^```\n(\d.*?)\.\.\.\n```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out.startswith(claimed)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.html", "report.json"}


def test_its_table_has_every_rule_with_its_limits():
    rows = table("Rules")
    assert sorted(name for names, _ in rows for name in names) == sorted(RULES)
    said = {name: cells[0] for names, cells in rows for name in names}
    for name, limits in {
        "dead-units": ("dead_info", "dead_warn", "dead_critical"),
        "silent-units": ("silent_warn",),
        "constant-units": ("constant_warn",),
        "saturated-units": ("saturated_warn", "saturated_critical"),
        "dormant-units": ("dormant_info",),
        "nearly-linear": ("linear_r2",),
        "dtype-risk": ("vanished_share",),
    }.items():
        assert all(f"{100 * THRESHOLDS[limit]:g} %" in said[name] for limit in limits), name
    for name, limits in {
        "chi-product": ("chi_product", "chi_product_critical"),
        "collapse": ("cosine",),
        "gradient-spread": ("gradient_ratio",),
        "outlier-ratio": ("outliers_info", "outliers_warn"),
    }.items():
        assert all(f"{THRESHOLDS[limit]:g}" in said[name] for limit in limits), name


def test_its_table_has_every_field_of_the_schema():
    named = {name for names, _ in table("report.json") for name in names}
    assert named - {"sites[].states"} == set(diagnosis(1))


def test_its_options_are_those_of_the_function():
    options = set(diagnose.__kwdefaults__)
    assert {"samples", "optimizer", "lr", "budget", "history"} <= options
    assert all(f"`{name}`" in PAGE for name in ("samples", "optimizer", "lr", "budget", "history"))
