"""The screen before a trial: which activations cannot work in a model."""

from __future__ import annotations

import pytest
import torch
from quick_trial import mlp, quick, samples
from torch import nn

from softknee import gain
from softknee._diagnose.trial.screen import screen, usual


def deep(depth):
    torch.manual_seed(depth)
    return mlp(widths=(6, *(128,) * depth, 3))


def test_the_screen_leaves_out_what_cannot_work_at_a_depth():
    x, _ = samples()
    specs = [
        spec for spec in usual() if spec.name in {"relu", "leaky_relu", "gelu", "sigmoid", "identity", "tanh", "elu"}
    ]
    shallow, far = (screen(deep(depth), x, specs=specs) for depth in (2, 20))
    assert {row.activation: row.reason for row in far.rows}["sigmoid"].startswith("gradients shrink to")
    reasons = {row.activation: row.reason for row in shallow.rows}
    assert reasons["sigmoid"] == ""
    assert reasons["identity"] == "it is nearly a straight line there"
    assert reasons["relu"] == reasons["leaky_relu"] == "it is nearly the same as what the model has"
    # Of matched weights all inputs have mean square 1, as far as chance in 128 units lets them.
    assert sum(shallow.variances.values()) == 2
    products = {row.activation: row.chi_product for row in far.rows}
    assert products["relu"] == pytest.approx(1)
    at_one = gain(torch.tanh).chi
    assert {row.activation: row.chi_product for row in shallow.rows}["tanh"] == pytest.approx(at_one**2, rel=0.1)
    assert far.candidates(2) == tuple(row.activation for row in far.rows if not row.reason)[:2]
    assert "left out: gradients shrink" in repr(far)
    assert far.to_dict()["rows"][0]["reason"] is None


def test_the_screen_knows_the_precision():
    x, _ = samples()
    specs = [spec for spec in usual() if spec.name in {"tanh", "relu", "gelu"}]
    zero = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = mlp(nn.SiLU).to(dtype)
        found = screen(model, 30 * x.to(dtype), matched=False, specs=specs)
        zero[dtype] = {row.activation: row.zero for row in found.rows}
    assert zero[torch.float32]["relu"] == pytest.approx(0.5, abs=0.01)
    assert zero[torch.bfloat16]["tanh"] > zero[torch.float32]["tanh"] + 0.05


def test_screened_candidates_are_tried(monkeypatch):
    few = [spec for spec in usual() if spec.builtin]
    monkeypatch.setattr("softknee._diagnose.trial.screen.usual", lambda: few)
    found = quick(candidates=None, steps=2, seeds=1)
    assert len(found.candidates) == 4
    assert found.to_dict()[-1]["screen"]["chi_product"] > 0
    assert found.about()["screening"]["rows"]
