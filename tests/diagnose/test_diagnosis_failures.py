"""What a diagnosis refuses, in words, and what it survives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from measured_network import batches, network, randomness, state_of
from torch import nn

from softknee import SoftkneeError
from softknee._diagnose.run import diagnose


def test_a_part_that_fails_is_a_note_and_not_the_end(monkeypatch):
    from softknee._diagnose.flow import signal

    def broken(*_, **__):
        raise RuntimeError("no signal today")

    monkeypatch.setattr(signal, "signal", broken)
    found = diagnose(network(), batches())
    assert found.to_dict()["signal"] is None
    (note,) = [one for one in found.findings if one["id"] == "not-measured"]
    assert note["severity"] == "info"
    assert "RuntimeError: no signal today" in note["text"]
    assert len(found.to_dict()["sites"]) == 2


def test_units_that_could_not_be_measured_are_not_taken_for_none(monkeypatch):
    from softknee._diagnose.units import health

    def broken(*_, **__):
        raise RuntimeError("no units today")

    monkeypatch.setattr(health, "unit_health", broken)
    found = diagnose(network(), batches())
    assert "The units could not be measured: RuntimeError: no units today." in found.summary()
    assert "no-activation" not in {one["id"] for one in found.findings}


class Fails(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.layer = nn.Linear(12, 4)
        self.error = error

    def forward(self, x):
        if self.error:
            raise self.error
        return self.layer(x)


def half():
    yield batches(1)[0]
    raise OSError("disk gone")


def refused(tmp_path):
    meta = nn.Linear(12, 4, device="meta")
    compiled = network()
    compiled.compile(backend="eager")
    ok, data = network(), batches()
    return {
        "empty": ((ok, []), {}, "the loader is empty: it yielded no batch"),
        "structure": ((ok, ["text"]), {}, "the loader yields 'text'"),
        "not iterable": ((ok, 3), {}, "the loader must be an iterable of batches"),
        "midway": ((ok, half()), {}, "the loader failed after 1 batches: OSError: disk gone"),
        "vector loss": ((ok, data, lambda y, t: y.sum(1)), {}, "the loss must be one number"),
        "broken loss": (
            (ok, data, lambda y, t: y + "a"),
            {},
            "the loss failed on the first batch of the loader: TypeErr",
        ),
        "loss name": ((ok, data, "cross"), {}, "no loss named 'cross'"),
        "meta": ((meta, data), {}, "the model is on the meta device"),
        "compiled": ((compiled, data), {}, "the model was compiled in place"),
        "fails": (
            (Fails(ValueError("no")), data),
            {},
            "the model failed on the first batch of the loader: ValueError: no",
        ),
        "no module": (("relu", data), {}, "model must be a torch.nn.Module, got 'relu'"),
        "factory": ((lambda: 1 / 0, data), {}, "making the model failed: ZeroDivisionError"),
        "made": ((lambda: 3, data), {}, "the function that makes the model returned 3"),
        "level": (
            (ok, data),
            {"level": "ful"},
            "level must be one of quick, full, trial, got 'ful'; did you mean 'full'?",
        ),
        "seed": ((ok, data), {"seed": 0.5}, "seed must be a whole number, got 0.5"),
        "samples": ((ok, data), {"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        "silence": ((ok, data), {"silence": ["dead"]}, "no rule named 'dead'"),
        "lr": ((ok, data), {"lr": 0}, "lr must be over 0, got 0"),
        "both": ((ok, data), {"lr": 0.1, "optimizer": torch.optim.SGD(ok.parameters(), 0.1)}, "not both"),
        "optimizer": ((ok, data), {"optimizer": "sgd"}, "optimizer must be a torch.optim.Optimizer, got 'sgd'"),
        "trial": ((ok, data), {"level": "trial"}, "level 'trial' trains the model and needs its learning rate"),
        "budget": ((ok, data), {"budget": "soon"}, "budget must be a time in seconds"),
        "unused budget": ((ok, data), {"level": "full", "budget": "1m"}, "which level 'full' has not; ask for"),
        "history": ((ok, data), {"history": tmp_path / "none.json"}, "none.json"),
    }


@pytest.mark.parametrize("case", refused(Path("/nowhere")))
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_changed(case, tmp_path):
    arguments, options, message = refused(tmp_path)[case]
    model = arguments[0]
    measurable = isinstance(model, nn.Module) and case != "meta"
    before, numbers = state_of(model) if measurable else None, randomness()
    with pytest.raises(SoftkneeError) as caught:
        diagnose(*arguments, out=tmp_path / "report", **options)
    assert message in str(caught.value)
    assert randomness() == numbers
    assert not (tmp_path / "report").exists()
    if measurable:
        assert state_of(model) == before


def test_nan_in_outputs_is_a_finding_and_every_level_survives_it():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    for level in ("quick", "full"):
        found = diagnose(model, batches(1), "cross_entropy", level=level)
        sites = {one["site"] for one in found.findings if one["id"] == "non-finite"}
        assert {"", "2"} <= sites
        assert found.worst == "critical"
        json.loads(found.to_json())
        assert "not finite" in found.to_html()


def test_infinities_in_a_few_outputs_only():
    class Rarely(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) / (x[:, :1] < 2.5)

    data = batches()
    for inputs, _ in data:
        inputs.clamp_(max=2.0)
    data[-1][0][0, 0] = 3.0
    (found,) = [one for one in diagnose(Rarely(), data).findings if one["id"] == "non-finite"]
    assert found["value"] == pytest.approx(4 / 256)


def test_a_folder_that_cannot_be_made_is_refused_before_the_work():
    told = []
    with pytest.raises(OSError, match="nowhere"):
        diagnose(network(), batches(), out="/proc/nowhere", progress=told.append)
    assert told == []
