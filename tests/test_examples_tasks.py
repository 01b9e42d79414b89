"""The segmentation and the image generation: their parts against independent references, and that they run."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import nn

import softknee as sk

EXAMPLES = Path(__file__).parents[1] / "examples"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


segmentation, dcgan = loaded("segmentation"), loaded("dcgan")


def quick(tmp_path, example, *options):
    command = [sys.executable, EXAMPLES / example, "--quick", "--out", tmp_path, *options]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


@pytest.fixture(scope="module")
def stock():
    images = torch.zeros(6, 1, 28, 28)
    for index in range(6):
        images[index, :, 6:22, 6:22] = (index + 1) / 8  # the value tells which image it is
    return images, torch.tensor([1, 2, 3, 4, 5, 1])


def test_overlaps_are_those_of_sets():
    draws = torch.Generator().manual_seed(0)
    predicted, y = torch.randint(5, (2, 3, 40, 40), generator=draws)  # the last kind is nowhere
    found = segmentation.overlaps(predicted, y)
    for kind in range(5):
        said, there = (set(map(tuple, (where == kind).nonzero().tolist())) for where in (predicted, y))
        assert float(found[kind]) == pytest.approx(len(said & there) / len(said | there), abs=1e-12)
    assert found[5:].isnan().all()


def test_a_scene_shows_what_its_labels_say(stock, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.zeros(shape))  # no noise
    x, y = segmentation.scenes(stock, 200, torch.Generator().manual_seed(0))
    values = {1: (1 / 8, 6 / 8), 2: (2 / 8,), 3: (3 / 8,), 4: (4 / 8,), 5: (5 / 8,)}
    for kind, allowed in values.items():
        shown = (x[:, 0][y == kind] + 1) / 2
        # Except where an edge mixes a garment with the nothing around it.
        near = torch.stack([(shown - value).abs() < 1e-3 for value in allowed]).any(0)
        assert near.double().mean() > 0.85
    # Kinds are drawn evenly, also those with fewer images, and leave room for the background.
    shares = torch.bincount(y.flatten(), minlength=6).double() / y.numel()
    assert shares[0] > 0.5
    assert shares[1:].max() < 1.4 * shares[1:].min()


def test_a_garment_keeps_its_size_within_limits(stock, monkeypatch):
    monkeypatch.setattr(segmentation, "GARMENTS", 1)
    monkeypatch.setattr(segmentation, "PRESENT", 1.0)
    _, y = segmentation.scenes(stock, 400, torch.Generator().manual_seed(0))
    areas = (y > 0).sum((1, 2)).double()
    # A square of 16 pixels, times 0.7 to 1.2; some are cut by the border.
    assert areas.max() < (16 * 1.2 + 1.5) ** 2
    assert areas.max() > (16 * 1.1) ** 2
    assert areas.median() > (16 * 0.7) ** 2


@pytest.mark.parametrize("name", ["gelu", "ditac", "prelu[per_channel]"])
def test_all_activations_begin_with_the_same_weights(name):
    def weights(model):
        layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d)
        return [t for m in model.modules() if isinstance(m, layers) for t in m.state_dict().values()]

    how = argparse.Namespace(width=4, discriminator="same")
    makers = (lambda one: [segmentation.network(one, 4, 3)], lambda one: dcgan.adversaries(one, 3, how))
    for make in makers:
        for first, second in zip(make("relu"), make(name), strict=True):
            ours, theirs = weights(first), weights(second)
            assert len(ours) > 5
            assert all(map(torch.equal, ours, theirs))
            assert any(isinstance(module, type(sk.create(name.split("[")[0]))) for module in second.modules())


@pytest.mark.parametrize("example", [segmentation, dcgan])
def test_intervals(example):
    values = np.array([3.1, 2.7, 4.0, 3.3, 2.2])
    for comparisons in (1, 4):
        reference = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / comparisons)
        assert example.interval(values, comparisons) == pytest.approx(tuple(reference), abs=1e-12)


def table(example, capsys, first, second):
    def runs(scores):
        rest = {"parameters": 1, "moved": 0.1, "loss": 1.0, "losses": [1.0, 2.0], "classes": 9.0, "seconds": 1.0}
        return [{"score": score, **rest} for score in scores]

    example.table(["relu", "other"], {"relu": runs(first), "other": runs(second)})
    return capsys.readouterr().out.splitlines()[-1]


def test_a_verdict_needs_an_interval_without_zero(capsys):
    low, high, near = [50.0, 52.0, 51.0], [60.1, 62.0, 61.2], [53.0, 50.0, 51.5]
    for example, words in ((segmentation, ("better", "worse")), (dcgan, ("worse", "better"))):
        assert table(example, capsys, low, high).endswith(words[0])
        assert table(example, capsys, high, low).endswith(words[1])
        assert table(example, capsys, low, near).endswith("not told apart")


def test_the_frechet_distance():
    draws = torch.Generator().manual_seed(0)
    first = torch.randn(300, 8, generator=draws) @ torch.randn(8, 8, generator=draws)
    second = torch.randn(300, 8, generator=draws) @ torch.randn(8, 8, generator=draws) + 1
    c, d = np.cov(first.double().T), np.cov(second.double().T)
    square = float((first.double().mean(0) - second.double().mean(0)).square().sum())
    reference = square + np.trace(c + d - 2 * scipy.linalg.sqrtm(c @ d).real)
    assert dcgan.frechet(first, second) == pytest.approx(reference, rel=1e-6)
    assert dcgan.frechet(second, first) == pytest.approx(reference, rel=1e-6)
    # In closed form: the same sample, moved, or stretched; features that are always 0 do no harm.
    for sample in (first, torch.cat([first, torch.zeros(300, 3)], 1)):
        spread = float(torch.cov(sample.double().T).trace())
        assert dcgan.frechet(sample, sample) == pytest.approx(0, abs=1e-9 * spread)
        assert dcgan.frechet(sample, sample + 2) == pytest.approx(4 * sample.shape[1], abs=1e-4)
        assert dcgan.frechet(sample - sample.mean(0), 3 * (sample - sample.mean(0))) == pytest.approx(4 * spread)


def test_the_number_of_classes():
    judge = dcgan.Judge(nn.Identity(), nn.Identity(), torch.zeros(2, 10))
    for classes in (1, 4, 10):
        scores = 100 * torch.eye(10)[torch.arange(40) % classes]
        assert judge.classes(scores) == pytest.approx(classes, rel=1e-6)


def test_segmentation(tmp_path):
    done = quick(tmp_path, "segmentation.py", "--activations", "relu", "ditac")
    assert not done.returncode, done.stderr
    found = json.loads((tmp_path / "segmentation.json").read_text())
    scores = {name: [run["score"] for run in runs] for name, runs in found["runs"].items()}
    for values in scores.values():  # each learned more than that most pixels are background
        assert all(value > 1.15 * lazy for value, lazy in zip(values, found["all_background"], strict=True))
    trained = found["runs"]["ditac"]
    assert [run["parameters"] for run in trained] == [63, 63]  # nine for each of seven activations
    assert min(run["moved"] for run in trained) > 0.01
    assert f"mean IoU {scores['ditac'][1]:.2f} %" in done.stdout
    assert f"{np.mean(scores['ditac']) - np.mean(scores['relu']):+.2f}" in done.stdout
    assert (tmp_path / "segmentation.png").read_bytes().startswith(b"\x89PNG")


def test_dcgan(tmp_path):
    done = quick(tmp_path, "dcgan.py", "--activations", "relu", "ditac", "--discriminator", "same")
    assert not done.returncode, done.stderr
    assert dcgan.METRIC in done.stdout
    found = json.loads((tmp_path / "dcgan.json").read_text())
    assert found["metric"] == dcgan.METRIC
    assert found["classifier"] > 80
    for runs in found["runs"].values():  # better than noise, and far from real
        assert all(10 * found["real"] < run["score"] < 0.9 * found["noise"] for run in runs)
    assert [run["parameters"] for run in found["runs"]["ditac"]] == [18, 18]
    assert min(run["moved"] for run in found["runs"]["ditac"]) > 0.005
    assert f"for scale: real images {found['real']:.2f}, noise {found['noise']:.2f}" in done.stdout
    assert (tmp_path / "dcgan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("example", ["segmentation.py", "dcgan.py"])
def test_what_cannot_work_stops_before_the_training(tmp_path, example):
    done = quick(tmp_path, example, "--activations", "relu", "rellu")
    assert done.returncode
    assert "rellu" in done.stderr
    assert not done.stdout
    command = [sys.executable, EXAMPLES / example, "--seeds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--seeds is 1; an interval needs at least 2" in done.stderr
