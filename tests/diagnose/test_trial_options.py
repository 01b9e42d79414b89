"""Options of a trial: what is refused, and in which sentence."""

from __future__ import annotations

import math
import re

import pytest
from quick_trial import loader, mlp, quick
from torch import nn

from softknee._diagnose.trial.options import parse_budget
from softknee._errors import UsageError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": 0}, "lr must be a positive number, got 0"),
        ({"rates": ()}, "rates must be positive factors of lr"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1, got 1.5"),
        ({"margin": -1}, "margin must be a positive number, got -1"),
        ({"metric": "f1"}, "metric must be 'accuracy' or 'loss', got 'f1'"),
        ({"budget": "soon"}, "budget must be a time in seconds or a text such as '90s', '5m' or '1h', got 'soon'"),
        ({"candidates": "gelu"}, "candidates must be a list of names or formulas, got 'gelu'"),
        ({"candidates": ["geluu"]}, "did you mean 'gelu'"),
        ({"candidates": ["0 * x"]}, "candidate 0 * x: "),
        ({"optimizer": "lion"}, "optimizer must be 'sgd', 'adam', 'adamw' or a function"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum is for optimizer='sgd'"),
        ({"progress": 3}, "progress must be a function of a text, got 3"),
        ({"make": 3}, "make_model must be a function without arguments or a module, got 3"),
        ({"make": lambda: 3}, "make_model must return a torch.nn.Module, got int"),
        ({"make": lambda: nn.Linear(6, 3)}, "no activation to change was found in the model"),
        ({"make": mlp, "trained": True}, "trained=True is for a model with weights"),
        ({"data": loader(10)}, "10 samples are too few to train, choose and report on"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
    ],
)
def test_bad_input(options, sentence):
    options = dict(options)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        quick(options.pop("make", mlp), **options)


def test_budgets():
    assert [parse_budget(one) for one in (None, 5, 2.5, "90s", "5m", " 1.5 h", "7")] == [
        None, 5, 2.5, 90, 300, 5400, 7,
    ]  # fmt: skip
    for wrong in (0, -1, True, math.inf, "m", ""):
        with pytest.raises(UsageError, match="budget must be"):
            parse_budget(wrong)
