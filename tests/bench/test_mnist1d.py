"""MNIST-1D as published, its models, and the published accuracies."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from softknee._bench.compare import bench
from softknee._bench.mnist1d import make_series
from softknee._bench.model import build_model, count_costs
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.tasks import TASKS, load_tensors
from softknee._catalogue import parse_choice
from softknee._errors import UsageError

# Of what the authors' package 0.0.2.post1 makes with its default settings, to four decimals, and its labels.
PUBLISHED = "ae335e4396176e6017b4f2bb435fb30896664eb302997edc975a2783d86fba48"
FIRST = [-0.33200567, -0.47191037, -0.77869708, -1.00974083]


def of_task(split):
    return load_tensors("generated", split, "mnist1d")


def test_the_series_are_those_of_the_published_package():
    series, labels = make_series()
    np.testing.assert_allclose(series[0, :4], FIRST, atol=1e-8)
    assert labels[:10].tolist() == [2, 6, 4, 5, 6, 6, 6, 0, 3, 1]
    stream = np.rint(1e4 * series).astype("<i4").tobytes() + labels.astype("<i8").tobytes()
    assert hashlib.sha256(stream).hexdigest() == PUBLISHED


def test_four_fifths_are_trained_on_and_a_sixth_of_these_is_held_out():
    whole, held = of_task("test"), of_task("validation")
    assert (whole.train_inputs.shape, whole.test_inputs.shape) == ((4000, 40), (1000, 40))
    assert torch.bincount(torch.cat([whole.train_labels, whole.test_targets])).tolist() == [500] * 10
    assert torch.equal(torch.cat([held.train_inputs, held.test_inputs]), whole.train_inputs)
    assert torch.equal(torch.cat([held.train_labels, held.test_targets]), whole.train_labels)
    assert len(held.test_targets) == 667
    assert held.fingerprint == whole.fingerprint == TASKS["mnist1d"].facts("generated").fingerprint


def test_the_definition_is_what_results_are_keyed_by():
    """A changed fingerprint orphans results; change it only with the series."""
    facts = TASKS["mnist1d"].facts("generated")
    assert facts.fingerprint[:8] == "4249af35"
    assert (facts.train, facts.test) == (4000, 1000)
    with pytest.raises(UsageError, match="mnist1d makes its data itself; leave data out, got 'full'"):
        TASKS["mnist1d"].source("full")


@pytest.mark.parametrize(("name", "parameters"), [("mnist1d", 15_210), ("mnist1d-cnn", 5_210)])
def test_models_have_the_published_numbers_of_parameters(name, parameters):
    recipe = PROTOCOLS[name].recipe
    assert count_costs(build_model(recipe, parse_choice("relu"), seed=0), shape=(40,))["parameters"] == parameters
    assert PROTOCOLS[name].epochs * 4000 // recipe.batch_size == 6000


def test_the_convolutions_are_the_published_ones():
    """With the same weights, the network written out."""
    model = build_model(PROTOCOLS["mnist1d-cnn"].recipe, parse_choice("relu"), seed=0)
    written = nn.Sequential(
        nn.Conv1d(1, 25, 5, stride=2, padding=1), nn.ReLU(), nn.Conv1d(25, 25, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv1d(25, 25, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(125, 10),
    )  # fmt: skip
    written.load_state_dict(dict(zip(written.state_dict(), model.state_dict().values(), strict=True)))
    x = of_task("test").test_inputs[:7]
    torch.testing.assert_close(model(x), written(x[:, None]))


@pytest.mark.parametrize("text", ["glu", "maxout", "prelu[per_channel]"])
def test_activations_of_channels_fit_the_convolutions(text):
    model = build_model(PROTOCOLS["mnist1d-cnn"].recipe, parse_choice(text), seed=0)
    model(of_task("test").test_inputs[:7]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "activation", "low", "high"),
    [("mnist1d", "identity", 29, 35), ("mnist1d", "relu", 62, 70), ("mnist1d-cnn", "relu", 90, 96)],
)
def test_published_accuracies_are_reached(tmp_path, name, activation, low, high):
    """Published: 32 % for a linear model, 68 % for the MLP with a shortcut, 94 % for the CNN."""
    study = bench(name, [activation], seeds=2, out=tmp_path, executor="here")
    (row,) = study.table[0].rows
    assert low < row.mean < high
