"""The code on the page about models runs as it stands, and shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import softknee as sk

ROOT = Path(__file__).parents[2]


def code_of(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pieces = code_of("docs/surgery.md")
    assert len(pieces) == 6
    names = {}
    for index, piece in enumerate(pieces):
        exec(compile(piece, f"surgery.md: {index}", "exec"), names)
        if not index:
            shown = [line.split()[:5] for line in capsys.readouterr().out.splitlines()]
    assert ["0", "0", "silu", "pair", "expression"] in shown
    assert ["1.act", "0", "relu", "activation", "module"] in shown
    assert (tmp_path / "softknee.json").exists()
    assert isinstance(names["report"], sk.Calibration)


def test_the_part_in_the_readme_runs(capsys):
    (piece,) = (one for one in code_of("README.md") if "sk.sites" in one)
    exec(compile(piece, "README.md", "exec"), {"sk": sk, "torch": __import__("torch")})
    assert "largest difference of the outputs" in capsys.readouterr().out
