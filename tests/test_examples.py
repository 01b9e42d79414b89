"""The examples run and say what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_fine_tuning(tmp_path):
    command = [sys.executable, EXAMPLES / "finetune.py", "--epochs", "1", "--more", "1", "--seeds", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "3 changed, 0 left, 0 not seen or not changed; +112 parameters" in done.stdout
    (trained, swapped), *_ = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("   0")]
    assert trained == swapped
    assert "95 % interval over seeds" in done.stdout


def run(tmp_path, example, *options):
    command = [sys.executable, EXAMPLES / example, *map(str, options)]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def spreads(tmp_path, *options):
    printed = run(tmp_path, "gain_or_activation.py", "--out", "results.json", *options)
    found = json.loads((tmp_path / "results.json").read_text())
    assert f"{found['spreads']['default']:.1f} points by default, {found['spreads']['matched']:.1f} matched" in printed
    return found


def test_the_gain_explains_the_gap_between_two_activations(tmp_path):
    small = ("--size", 8, "--images", 1600, "--batch", 16, "--epochs", 8, "--seeds", 1, "--rates", 0.01)
    found = spreads(tmp_path, "--activations", "gelu", "tanh", *small)
    assert found["spreads"]["default"] > 5 * found["spreads"]["matched"]
    assert min(row["matched"][0] for row in found["rows"]) > 70
    # 1/3 E[tanh'(z)^2] of the first layer is below 1/3, and each of the four has such a factor.
    products = {row["activation"]: row["product"] for row in found["rows"]}
    assert 0 < products["gelu"] < products["tanh"] < 3**-4


@pytest.mark.slow
def test_the_gain_explains_the_gaps_of_the_table(tmp_path):
    activations = ("sigmoid", "tanh", "relu", "gelu", "silu", "prelu")
    found = spreads(tmp_path, "--activations", *activations, "--seeds", 2, "--rates", 0.003, 0.01)
    assert found["spreads"]["default"] > 5 * found["spreads"]["matched"]
    assert found["rank_correlation"] > 0.6


def test_deep_network(tmp_path):
    printed = run(tmp_path, "deep_network.py", "--steps", 0, "--images", 256)
    rows = {
        tuple(line.rsplit(maxsplit=7)[0].rsplit(maxsplit=1)): line.split()[-7:] for line in printed.splitlines()[1:]
    }
    last = {key: float(shares[-1]) for key, shares in rows.items()}
    # By default nearly all units of the last layer do the same for all images; half of them nothing.
    assert last["default", "dead"] + last["default", "straight"] > 85
    assert 30 < last["default", "dead"] < 60
    for way in ("He, zero bias", "calibrate"):
        assert last[way, "dead"] < 20
    for way in ("leaky_relu", "elu", "gelu"):
        assert last[way, "dead"] == 0
    assert last["batch norm", "dead"] < 2
