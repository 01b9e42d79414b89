"""Event files are read back and compared with what went in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from softknee._diagnose.units.histogram import EDGES
from softknee.integrations import ActivationRecorder
from softknee.integrations.tensorboard import TensorBoard

pytest.importorskip("tensorboard")


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    return events


def test_scalars_and_histograms_come_back(tmp_path):
    board = TensorBoard(tmp_path)
    model = nn.Sequential(nn.Linear(8, 6), nn.PReLU(6))
    recorder = ActivationRecorder(model, every=5, logger=board)
    inputs = []
    model[1].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].detach().double()))
    for step in range(6):
        with recorder.step(step):
            model(torch.randn(40, 8) * 30)
    board.close()

    events = events_of(tmp_path)
    assert [event.step for event in events.Scalars("activations/1/weight_mean")] == [0, 5]
    assert events.Scalars("activations/1/weight_mean")[0].value == 0.25
    histograms = events.Histograms("activations/1/inputs")
    assert [event.step for event in histograms] == [0, 5]
    for event, x in zip(histograms, (inputs[0], inputs[5]), strict=True):
        found = event.histogram_value
        expected = torch.histogram(x.flatten(), torch.tensor(EDGES, dtype=torch.float64)).hist.tolist()
        assert found.bucket_limit[: len(EDGES)] == list(EDGES)
        assert found.bucket[1:-1] == expected
        assert found.num == x.numel() == sum(found.bucket)
        assert (found.min, found.max) == (x.min().item(), x.max().item())
        assert_close((found.sum, found.sum_squares), (x.sum().item(), x.square().sum().item()), rtol=1e-6, atol=1e-4)


def test_a_histogram_of_nothing_is_left_out(tmp_path):
    board = TensorBoard(tmp_path)
    model = nn.Sequential(nn.ReLU())
    with ActivationRecorder(model, logger=board).step(0):
        model(torch.full((2, 3), torch.nan))
    board.close()
    events = events_of(tmp_path)
    assert events.Tags()["histograms"] == []
    assert events.Scalars("activations/0/nonfinite")[0].value == 1.0
