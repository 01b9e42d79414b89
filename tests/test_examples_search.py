"""The example of searches runs, and what it says is borne out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softknee as sk

EXAMPLE = Path(__file__).parents[1] / "examples" / "search.py"


@pytest.mark.slow
def test_both_searches_find_what_beats_the_usual(tmp_path):
    command = [sys.executable, EXAMPLE, "--out", tmp_path / "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "result.json").read_text())
    assert found["verdict"] in done.stdout
    (best,) = re.findall(r"^to use: (.*)$", done.stdout, flags=re.MULTILINE)
    assert best == next(row["name"] for row in found["table"] if row["key"] == found["best"])
    assert (tmp_path / "report" / "report.html").is_file()
    rows = re.findall(r"^([\d.]+) test loss, mean of 5 runs: (.*)$", done.stdout, flags=re.MULTILINE)
    losses = {name: float(loss) for loss, name in rows}
    (formula,) = set(losses) - {"relu", "gelu"}
    sk.create(formula)
    assert losses[formula] < min(losses["relu"], losses["gelu"])


def test_what_cannot_work_stops_before_the_training(tmp_path):
    command = [sys.executable, EXAMPLE, "--budget", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    assert "a budget of 3 runs is too small for one verification" in done.stderr
