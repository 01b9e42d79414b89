from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from softknee._cli import run
from softknee._design import CONTROLS, design
from softknee._errors import UsageError
from softknee._show import describe

IDEA = "x * sigmoid(b * x) + 0.1 * sin(x)[b=1.2]"


@pytest.fixture(scope="module")
def designed(tmp_path_factory):
    out = tmp_path_factory.mktemp("design")
    return design(IDEA, out=out, controls=["identity"], protocol="fashion-mlp", seeds=1, epochs=1)


def test_everything_is_on_one_page(designed):
    assert {path.name for path in designed.folder.iterdir()} == {
        *("design.md", "curve.svg", "activation.py", "comparison"),
    }
    page = (designed.folder / "design.md").read_text()
    for part in ("## Checks", "Passes all", "## Cost", "## Code", "class Activation", "## Comparison", "identity"):
        assert part in page
    assert (designed.folder / "comparison" / "report.html").exists()


def test_the_code_to_take_away_is_the_activation(designed):
    made = runpy.run_path(str(designed.folder / "activation.py"))["Activation"]()
    x = torch.linspace(-3, 3, 20)
    assert torch.allclose(made(x), x * torch.sigmoid(1.2 * x) + 0.1 * torch.sin(x))


def test_what_is_wrong_with_an_idea_is_said(tmp_path):
    found = design("x / abs(x)", out=tmp_path, protocol=None)
    assert found.study is None
    assert found.verdict.startswith("fails ")
    assert "NaN" in found.verdict


def test_a_control_cannot_be_compared_with_itself(tmp_path):
    with pytest.raises(UsageError, match=r"gelu is one of the controls \(identity, relu, gelu, silu\); choose others"):
        design("gelu", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert "gelu" in CONTROLS


def test_the_command_line_designs_cites_and_prints_source(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["design", "x * tanh(x)", "--protocol", "none"]) == 0
    assert "passes all" in capsys.readouterr().out
    assert Path("design", "design.md").exists()
    assert run(["cite", "gelu", "mish", "gelu"]) == 0
    assert capsys.readouterr().out.count("@") == 2
    assert run(["source", "mish", "--out", "mish.py"]) == 0
    assert "Mish" in runpy.run_path("mish.py")
    assert run(["source", "x * tanh(x)"]) == 0
    assert "class Activation(nn.Module)" in capsys.readouterr().out


def test_show_says_what_is_known():
    assert "derivative" in describe("x * tanh(x)").facts
