"""The example and the page on DiTAC: the measures are right, the code runs, the drawings are there."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return loaded("ditac")


@pytest.mark.slow
def test_the_example_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, ROOT / "examples" / "ditac.py", "--quick", "--why", "--out", "made"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    names = ("field", "training", "order", "units", "surface", "why")
    for name in names:
        assert (tmp_path / "made" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "made" / "index.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(names)
    found = json.loads((tmp_path / "made" / "results.json").read_text("utf-8"))
    for name, scores in found["scores"].items():
        assert re.search(rf"^{name} +R2 +{scores[0]:.3f}", printed, flags=re.MULTILINE)


def test_without_a_folder_nothing_is_written(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ditac.py", "--quick"])
    example.main()
    assert "DiTAC" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_target_is_the_published_one(example):
    x, y = 0.3, -0.7
    angles = (9 * x - 7 * y, -9 * x + 11 * y, 3 * x + 13 * y, 9 * x + 9 * y, 13 * x + 5 * y, 3 * x + 19 * y)
    wanted = sum(part * math.sin(angle) for part, angle in zip((0.4, 0.1, 0.15, 0.15, 0.1, 0.1), angles, strict=True))
    assert float(example.waves(torch.tensor([[x, y]], dtype=torch.float64))) == pytest.approx(wanted, abs=1e-7)


def test_scores_and_degrees(example):
    class Exact(torch.nn.Module):
        def forward(self, x):
            return example.waves(x)

    assert example.r2(Exact()) == 1
    x, y = example.grid().double().T
    cubic = x * y**2 + 0.5 * x
    found = example.polynomial_r2(cubic)
    assert found[2:] == pytest.approx([1] * len(found[2:]), abs=1e-12)
    # Of x y^2 + x / 2 a line explains x (y's mean square + 1 / 2); the rest is x (y^2 - its mean), for x and y alike.
    square, fourth = float(y.square().mean()), float(y.pow(4).mean())
    rest = square * (fourth - square**2)
    assert found[1] == pytest.approx(1 - rest / float(cubic.var(correction=0)), abs=1e-9)


def test_what_relu_has_beyond_a_degree(example):
    # At any scale, ReLU has coefficients 1/2 of degree 1 and 1 / sqrt(4 pi) of degree 2, and variance 1/2 - 1 / (2 pi).
    variance = 1 / 2 - 1 / (2 * math.pi)
    first, second, *_ = example.beyond("relu", 0.3)
    assert first == pytest.approx(1 - 1 / 4 / variance, abs=1e-9)
    assert second == pytest.approx(1 - (1 / 4 + 1 / (4 * math.pi)) / variance, abs=1e-9)


def test_the_kernel_of_a_line_has_three_directions(example):
    model = torch.nn.Sequential(torch.nn.Linear(2, 1))
    found = example.kernel(model)
    assert found["eigenvalues"][0] == 1
    assert found["eigenvalues"][2] > 1e-3
    assert abs(found["eigenvalues"][3]) < 1e-12
    assert np.all(np.diff(found["share"]) >= 0)
    assert found["share"][-1] == 1


def test_influence_is_the_derivative():
    pytest.importorskip("matplotlib")
    drawings = loaded("ditac_drawings")
    x, velocities = torch.linspace(-1, 1, 50, dtype=torch.float64), torch.tensor([0.5, -1.0], dtype=torch.float64)
    found = drawings.influence(lambda x, v: x * v[0] ** 2 + v[1], x, velocities)
    wanted = torch.stack([(2 * 0.5 * x).square().mean().sqrt(), torch.ones((), dtype=torch.float64)])
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=0)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pieces = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/ditac.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert pieces
    names = {}
    for index, piece in enumerate(pieces):
        exec(compile(piece, f"ditac.md: {index}", "exec"), names)


@pytest.mark.slow
def test_gelu_fails_by_its_scale(example):
    def score(activation, **options):
        model = example.network(example.WIDTHS, 1, activation=activation, **options)
        example.train(model, example.points(1, 10_000))
        return example.r2(model), model

    gelu, model = score("gelu")
    assert gelu < 0.1
    # It has learned a polynomial of degree 4, and no better one of the target exists.
    assert example.polynomial_r2(model(example.grid()).detach())[3] > 0.98
    assert example.polynomial_r2(example.waves(example.grid()))[3] < 0.05
    assert score("gelu(5*x)/5")[0] > 0.6
    assert score("gelu", scale=10)[0] > 0.6
    assert score("gelu(b*x)/b", b=1.0)[0] > 0.5
    assert score("ditac", low=-3.0, high=3.0)[0] > 0.8
