"""What a run of Weights & Biases is told, by the signatures that wandb documents."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from softknee._errors import MissingExtra
from softknee.integrations import ActivationRecorder
from softknee.integrations.wandb import WandB


class Histogram:
    """As `wandb.Histogram(sequence=None, np_histogram=None, num_bins=64)`, which takes at most 512 bins."""

    MAX_LENGTH = 512

    def __init__(self, sequence=None, np_histogram=None, num_bins=64):
        assert sequence is None
        self.counts, self.edges = np_histogram
        assert len(self.edges) == len(self.counts) + 1 <= self.MAX_LENGTH


@dataclass
class Run:
    """As what `wandb.init` returns."""

    lines: list = field(default_factory=list)

    def log(self, data, step=None, commit=None):
        self.lines.append((step, data))


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.Histogram = Histogram
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_scalars_and_histograms_are_logged_with_their_step(wandb):
    run = Run()
    model = nn.Sequential(nn.Linear(8, 6), nn.PReLU(6))
    recorder = ActivationRecorder(model, every=5, logger=WandB(run))
    for step in range(6):
        with recorder.step(step):
            model(torch.randn(40, 8) * 30)
    assert [step for step, _ in run.lines] == [0, 5]
    data = run.lines[0][1]
    assert data["activations/1/weight_mean"] == 0.25
    histogram = data["activations/1/inputs"]
    assert sum(histogram.counts) == 40 * 6
    assert list(histogram.edges) == sorted(histogram.edges)


def test_a_histogram_of_nothing_is_left_out(wandb):
    run = Run()
    model = nn.Sequential(nn.ReLU())
    with ActivationRecorder(model, logger=WandB(run)).step(0):
        model(torch.full((2, 3), torch.nan))
    data = run.lines[-1][1]
    assert data["activations/0/nonfinite"] == 1.0
    assert "activations/0/inputs" not in data


def test_without_wandb_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"wandb is not installed; `pip install 'softknee\[wandb\]'`"):
        WandB(Run())
