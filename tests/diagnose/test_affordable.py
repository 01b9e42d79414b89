"""How many samples measurements may take is a matter of counting, not of time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from softknee._diagnose.cost import affordable, operations
from softknee._diagnose.task import task
from softknee._errors import UsageError


def of(model, *shape, batches=3):
    return task(model, [torch.randn(*shape) for _ in range(batches)])


def test_a_product_of_matrices_is_two_operations_an_entry():
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))
    assert operations(of(model, 16, 20)) == 2 * (20 * 30 + 30 * 7)


def test_a_convolution_costs_its_positions():
    assert operations(of(nn.Conv2d(3, 8, 3, padding=1), 4, 3, 10, 10)) == 2 * 100 * 8 * 27


def test_samples_are_as_many_as_the_operations_allow():
    found = of(nn.Linear(4, 4), 16, 4)
    assert affordable(found, 1e6, 512) == 48
    assert affordable(found, 1e6, 20) == 20
    assert affordable(found, 5e9 / 32, 512) == 32
    assert affordable(found, 5e9 / 8, 512) == 8
    with pytest.raises(UsageError, match=r"the model takes 2e\+09 operations a sample, too many .* here; measure it"):
        affordable(found, 2e9, 512)


def test_few_samples_are_enough_where_there_are_no_more():
    assert affordable(of(nn.Linear(4, 4), 2, 4, batches=1), 2e9, 512) == 2
