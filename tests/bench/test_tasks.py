"""Generated tasks against plain arithmetic, and what scores they give."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from scipy import stats

from softknee._bench.domain import Domain
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import DataError, UsageError
from softknee._expression.parse import parse

# The first two points, and the fingerprints of definitions.
MIXTURE = [0.5855991, -0.9088444, -0.8409817, 0.7123582]
FINGERPRINTS = {"gmm-2d": "84828e54", "regression-1d": "4b73f9f0", "regression-2d": "f2ecb9a0"}
REGRESSIONS = ("regression-1d", "regression-2d")


def points_of(task):
    return load_tensors("generated", "test", task)


def stated(task, inputs):
    """The formula a report shows, read as one of the expression language."""
    formula = re.sub(r"(\d) (\w+)", r"\1 * \2", TASKS[task].formula)
    formula = re.sub(r"\|([^|]*)\|", r"abs(\1)", formula).replace("2 abs", "2 * abs")
    names, tree = dict(zip(TASKS[task].domain.axes, inputs.T, strict=True)), parse(formula)
    x = names.get("x", torch.zeros(len(inputs), dtype=inputs.dtype))
    return tree(x, *(names[name] for name in tree.parameters))


@pytest.mark.parametrize("task", REGRESSIONS)
def test_the_function_is_the_one_that_is_stated(task):
    examples = points_of(task)
    inputs = torch.rand(200, examples.test_inputs.shape[1], dtype=torch.float64) * 2 - 1
    np.testing.assert_allclose(examples.function(inputs)[:, 0].numpy(), stated(task, inputs).numpy(), atol=1e-12)


def test_the_function_on_the_square_is_the_published_one():
    x, y = np.meshgrid(np.linspace(-1, 1, 101), np.linspace(-1, 1, 101))
    forms = [(9, -7), (-9, 11), (3, 13), (9, 9), (13, 5), (3, 19)]
    weights = [0.4, 0.1, 0.15, 0.15, 0.1, 0.1]
    expected = sum(w * np.sin(a * x + b * y) for w, (a, b) in zip(weights, forms, strict=True))
    examples = points_of("regression-2d")
    np.testing.assert_allclose(examples.test_targets.numpy().reshape(101, 101), expected, atol=1e-12)
    np.testing.assert_array_equal(examples.test_inputs.numpy(), np.stack([x, y], -1).reshape(-1, 2).astype(np.float32))


@pytest.mark.parametrize("task", REGRESSIONS)
def test_r2_is_one_for_the_function_zero_for_its_mean_and_the_usual_number_between(task):
    examples = points_of(task)
    y = examples.test_targets

    def score(outputs):
        return examples.score(examples.tally(outputs, y).mean().item())

    assert score(y) == 1
    assert score(y.mean().expand_as(y)) == pytest.approx(0, abs=1e-12)
    guess = y + 0.1 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    residual, total = ((y - guess) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    assert score(guess) == pytest.approx(1 - (residual / total).item())
    assert examples.loss(guess, y).item() == pytest.approx((residual / len(y)).item())


@pytest.mark.parametrize("task", REGRESSIONS)
def test_every_step_and_epoch_has_new_points_spread_evenly_and_a_seed_has_its_own(task):
    examples = points_of(task)

    def drawn(seed, steps=40):
        return torch.cat([x for x, _ in examples.batches(torch.Generator().manual_seed(seed), 98, steps)])

    inputs = drawn(0)
    assert torch.equal(inputs, drawn(0))
    assert not torch.equal(inputs, drawn(1))
    assert len(inputs.unique(dim=0)) > 0.999 * len(inputs) == 0.999 * 40 * 98
    low, high = examples.low, examples.high
    for axis in inputs.T:
        assert stats.kstest(axis.numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    assert drawn(0, 400).square().mean().item() == pytest.approx(examples.input_square, rel=0.02)
    ((x, y),) = examples.batches(torch.Generator().manual_seed(0), 98, 1)
    torch.testing.assert_close(y, examples.function(x))


def test_the_mixture_has_the_gaussians_it_says_and_the_best_answer_is_the_likeliest_class():
    task = TASKS["gmm-2d"]
    examples = points_of("gmm-2d")
    means, spreads = task._gaussians
    densities = [
        stats.multivariate_normal(mean, spread @ spread.T) for mean, spread in zip(means, spreads, strict=True)
    ]
    inputs, labels = examples.test_inputs.numpy().astype(float), examples.test_targets.numpy()
    by_class = np.array([sum(d.pdf(inputs) for d in densities[label::5]) for label in range(5)])
    np.testing.assert_array_equal(task._likeliest(inputs), by_class.argmax(0))
    # If the labels come with the densities, the best answer is right as often as it is probable.
    best = (by_class.max(0) / by_class.sum(0)).mean()
    assert (by_class.argmax(0) == labels).mean() == pytest.approx(best, abs=0.02)
    assert f"tell {100 * (by_class.argmax(0) == labels).mean():.1f} %" in task.facts("generated").about
    for label in range(5):
        own = inputs[labels == label]
        np.testing.assert_allclose(own.mean(0), means[label::5].mean(0), atol=0.06)


def test_the_mixture_is_the_same_for_all_and_its_parts_are_apart():
    whole, held = points_of("gmm-2d"), load_tensors("generated", "validation", "gmm-2d")
    assert (len(whole.train_labels), len(whole.test_targets)) == (2000, 5000)
    assert len(held.train_labels) + len(held.test_targets) == 2000
    together = torch.cat([held.train_inputs, held.test_inputs])
    assert torch.equal(together, whole.train_inputs)
    assert not set(map(tuple, whole.train_inputs.tolist())) & set(map(tuple, whole.test_inputs.tolist()))
    assert TASKS["gmm-2d"].load("generated", "test").test_inputs.equal(whole.test_inputs)


def test_generated_data_never_change():
    """Changed numbers orphan results; change them only together with `revision`."""
    mixture = points_of("gmm-2d")
    assert mixture.train_inputs[:2].flatten().tolist() == pytest.approx(MIXTURE, abs=1e-6)
    assert {name: TASKS[name].facts("generated").fingerprint[:8] for name in FINGERPRINTS} == FINGERPRINTS


def test_tasks_that_make_their_data_take_none_and_have_nothing_to_tune_on():
    with pytest.raises(UsageError, match="regression-2d makes its data itself; leave data out, got 'full'"):
        TASKS["regression-2d"].source("full")
    with pytest.raises(DataError, match="regression-1d has no part to hold out"):
        TASKS["regression-1d"].load("generated", "validation")


def test_a_grid_runs_along_its_first_axis_first():
    assert Domain(("x", "y"), 0.0, 1.0, 2).grid().tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert Domain(("x",), -1.0, 1.0, 3).grid().tolist() == [[-1], [0], [1]]
