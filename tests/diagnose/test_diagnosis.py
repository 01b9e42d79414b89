"""One call that measures a model: what it measures at each level, and what it returns."""

from __future__ import annotations

import json

import pytest
from fabricate_diagnosis import diagnosis
from measured_network import batches, network
from torch import nn

from softknee._diagnose.diagnosis import Diagnosis
from softknee._diagnose.run import diagnose


@pytest.fixture(scope="module")
def full():
    return diagnose(network(), batches(), "cross_entropy", level="full", lr=0.1, momentum=0.9)


def test_full_measures_every_part(full):
    data = full.to_dict()
    assert data["method"]["not_measured"] == {}
    parts = ("signal", "gradients", "curvature", "landscape", "kernel", "rank", "lipschitz", "classification")
    assert all(data[part] for part in parts)
    assert [site["name"] for site in data["sites"]] == ["2", "4"]
    assert [site["units"] for site in data["sites"]] == [24, 16]
    assert data["data"] | {"hash": ""} == {"samples": 64, "batches": 2, "seed": 0, "hash": "", "loss": "cross_entropy"}
    assert data["model"]["class"] == "Sequential"
    assert data["model"]["parameters"] == sum(one.numel() for one in network().parameters())
    assert data["model"]["optimizer"] == {"kind": "sgd", "lr": 0.1, "momentum": 0.9}
    assert sum(map(sum, data["classification"]["confusion"])) == 64


def test_quick_needs_no_labels_and_leaves_out_what_does():
    data = diagnose(network(), [inputs for inputs, _ in batches()]).to_dict()
    assert len(data["sites"]) == 2
    assert data["signal"]["layers"]
    assert data["gradients"] is None
    assert data["curvature"] is None
    assert data["data"]["loss"] is None


def test_quick_runs_the_sample_once_and_a_few_samples_again():
    rows = []

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            rows.append(len(x))
            return self.inner(x)

    diagnose(Counts(), batches(32, 64))
    # Two passes less what is done on the way: the whole sample once, 300 samples for the signal, a few to look.
    assert 2048 <= sum(rows) <= 2048 + 2 * 300 + 100


def test_full_without_a_loss_says_what_is_missing():
    missing = diagnose(network(), [inputs for inputs, _ in batches()], level="full").to_dict()["method"]["not_measured"]
    assert set(missing) == {"gradients of the parameters", "curvature", "loss landscape"}
    assert all("the model returned no loss" in reason for reason in missing.values())


def test_it_is_plain_json_and_comes_back_from_disk(full, tmp_path):
    page = full.save(tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}
    assert json.loads((page.parent / "report.json").read_text()) == full.to_dict()
    for place in (page.parent, page.parent / "report.json"):
        again = Diagnosis.load(place)
        assert again == full
        assert again.to_html() == page.read_text()


def test_what_it_returns_cannot_be_changed_from_outside(full):
    before = full.to_json()
    full.to_dict()["sites"].clear()
    full.findings.clear()
    assert full.to_json() == before
    with pytest.raises(AttributeError):
        full.data = {}


def test_the_summary_has_at_most_ten_lines_and_begins_with_the_verdict(full):
    lines = full.summary().splitlines()
    assert lines[0] == full.verdict
    assert len(lines) <= 10
    assert repr(full) == full.summary()
    worst = full.findings[0]
    assert worst["id"] in full.summary()
    assert full.worst == worst["severity"]
    many = Diagnosis(diagnosis(40))
    assert len(many.summary().splitlines()) <= 10
    assert "<table>" in many._repr_html_()


def test_the_verdict_of_a_model_without_findings():
    data = diagnosis(2)
    clean = Diagnosis({**data, "findings": []})
    assert clean.verdict == "Nothing to act on was found on 2 sites and 2,048 samples."


def test_the_same_seed_gives_the_same_numbers(full):
    assert diagnose(network(), batches(), "cross_entropy", level="full", lr=0.1, momentum=0.9) == full


def test_the_loss_of_the_model_itself_is_used(full):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, labels=None):
            scores = self.inner(x)
            loss = None if labels is None else nn.functional.cross_entropy(scores, labels)
            return {"loss": loss, "logits": scores}

    loader = [{"x": x, "labels": y} for x, y in batches()]
    own = diagnose(Own(), loader, level="full").to_dict()
    assert own["method"]["not_measured"] == {}
    given = full.to_dict()
    assert own["gradients"]["loss"] == pytest.approx(given["gradients"]["loss"], rel=1e-5)
    assert own["curvature"]["trace"]["value"] == pytest.approx(given["curvature"]["trace"]["value"], rel=1e-3)


def test_the_gradients_of_sites_come_with_a_loss_of_the_models_own(full):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, labels=None):
            scores = self.inner(x)
            return {"loss": None if labels is None else nn.functional.cross_entropy(scores, labels), "logits": scores}

    own = diagnose(Own(), [{"x": x, "labels": y} for x, y in batches()], level="full").to_dict()
    assert own["data"]["loss"] == "the model's own"
    for one, given in zip(own["sites"], full.to_dict()["sites"], strict=True):
        assert one["gradient"]["rms"] == pytest.approx(given["gradient"]["rms"], rel=1e-4)
        assert one["states"]["gradient_dormant"] == given["states"]["gradient_dormant"]
    assert own["classification"] == full.to_dict()["classification"]


def test_progress_names_each_part_once():
    told = []
    diagnose(network(), batches(), progress=told.append)
    assert told == ["units of every site", "signal from layer to layer", "parameters of activations"]
