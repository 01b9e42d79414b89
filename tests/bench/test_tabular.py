"""The embedded table: what it is, that damage is found, and what a study on it shows."""

from __future__ import annotations

import hashlib
import lzma
import re

import numpy as np
import pytest
import torch
from torch import nn

from softknee._bench import data, tabular
from softknee._bench.compare import bench
from softknee._bench.model import build_model
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.tasks import TASKS, load_tensors
from softknee._catalogue import parse_choice
from softknee._errors import DataError, UsageError

# Smallest and largest of some columns, as the table's description states them.
PUBLISHED = {0: (6.981, 28.11), 3: (143.5, 2501.0), 13: (6.802, 542.2), 23: (185.2, 4254.0)}


@pytest.fixture
def unread():
    tabular.read_table.cache_clear()
    yield
    tabular.read_table.cache_clear()


def test_it_is_the_published_table():
    rows, labels = tabular.read_table()
    assert rows.shape == (569, 30)
    assert np.bincount(labels).tolist() == [212, 357]
    assert {column: (rows[:, column].min(), rows[:, column].max()) for column in PUBLISHED} == PUBLISHED
    stream = lzma.decompress((data.EMBEDDED / f"{tabular.FILE}.xz").read_bytes())
    facts = TASKS["breast-cancer"].facts("embedded")
    assert facts.fingerprint == hashlib.sha256(stream).hexdigest()
    assert (facts.train, facts.test) == (380, 189)


def test_parts_are_apart_have_a_share_of_each_class_and_are_standardized_by_what_is_trained_on():
    whole, held = (load_tensors("embedded", split, "breast-cancer") for split in ("test", "validation"))
    assert torch.bincount(whole.test_targets).tolist() == [70, 119]
    assert torch.bincount(held.test_targets).tolist() == [142 // 6, 238 // 6]
    rows, labels = tabular.read_table()
    for part in (whole, held):
        assert len(part.train_labels) + len(part.test_targets) == (569 if part is whole else 380)
        torch.testing.assert_close(part.train_inputs.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.train_inputs.std(0, correction=0), torch.ones(30), atol=1e-5, rtol=0)
        assert abs(part.test_inputs.mean()) < 0.2
    # Undone, both parts together are the table.
    trained = np.isin(np.arange(569), np.concatenate([np.flatnonzero(labels == k)[2::3] for k in (0, 1)]), invert=True)
    back = whole.test_inputs.numpy() * rows[trained].std(0) + rows[trained].mean(0)
    np.testing.assert_allclose(back, rows[~trained], rtol=1e-4, atol=1e-4)
    assert whole.test_targets.tolist() == labels[~trained].tolist()
    assert whole.train_labels.tolist() == labels[trained].tolist()


def test_a_damaged_file_is_found(tmp_path, monkeypatch, unread):
    stream = lzma.decompress((data.EMBEDDED / f"{tabular.FILE}.xz").read_bytes())
    (tmp_path / tabular.FILE).write_bytes(stream.replace(b"17.99", b"17.98", 1))
    monkeypatch.setattr(data, "EMBEDDED", tmp_path)
    with pytest.raises(DataError, match="breast-cancer.csv: expected MD5 36ef9087"):
        tabular.read_table()


def test_no_other_data_can_be_given():
    with pytest.raises(UsageError, match="breast-cancer ships with softknee; leave data out, got 'full'"):
        TASKS["breast-cancer"].source("full")


@pytest.mark.parametrize("text", ["relu", "mpelu", "glu", "maxout"])
def test_the_model_has_four_layers_three_norms_and_dropout(text):
    model = build_model(PROTOCOLS["tabular-mlp"].recipe, parse_choice(text), seed=0)
    kinds = [type(layer) for layer in model]
    assert [kinds.count(kind) for kind in (nn.Linear, nn.BatchNorm1d, nn.Dropout)] == [4, 3, 3]
    assert kinds[:2] == [nn.Linear, nn.BatchNorm1d]
    assert {layer.p for layer in model if isinstance(layer, nn.Dropout)} == {0.4}
    x = load_tensors("embedded", "test", "breast-cancer").train_inputs[:32]
    assert model(x).shape == (32, 2)
    # Activations see what the norms made: mean 0 and deviation 1 in each column.
    normed = model[:2](x)
    torch.testing.assert_close(normed.mean(0), torch.zeros(normed.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(0, correction=0), torch.ones(normed.shape[1]), atol=2e-2, rtol=0)


def test_a_study_shows_how_alpha_and_beta_move_and_precision_recall_and_f1(tmp_path):
    study = bench("tabular-mlp", ["relu", "mpelu"], seeds=2, epochs=4, out=tmp_path, executor="here")
    for run in (run for run in study.files.runs if run.activation == "mpelu"):
        paths = {f"activation_{site}.{name}" for site in range(3) for name in ("alpha", "beta")}
        assert set(run.get("trajectories")) == paths
        for entry in run.get("trajectories").values():
            assert len(entry["values"]) == 1 + 4
            assert list(entry["values"][0]) == [1.0]
            assert list(entry["values"][-1]) != [1.0]
        scores = run.get("per_class")
        (hits, missed), (wrong, _) = run.get("confusion")
        assert scores["precision"][0] == pytest.approx(hits / (hits + wrong))
        assert scores["recall"][0] == pytest.approx(hits / (hits + missed))
        assert scores["f1"][0] == pytest.approx(2 * hits / (2 * hits + wrong + missed))
    study.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(word in page for word in ("Precision, %", "Recall, %", "F1, %", "malignant", "benign"))
    assert re.search(r"alpha of mpelu|mpelu[^<]{0,20}alpha", page)
    assert re.search(r"beta of mpelu|mpelu[^<]{0,20}beta", page)
