"""What a search is asked for: proposals of others, and requests that it refuses."""

from __future__ import annotations

import math
import re

import pytest
from search_whole import arguments, batches, squares, train_step
from torch import nn

from softknee._errors import DataError, ExpressionError, OptionError, UnknownActivation, UsageError
from softknee._search.judge import Judge
from softknee._search.search import Search, search
from softknee._search.space import Space

SMALLEST = (
    r"a budget of 3 runs is too small for one verification; the smallest that works here is 10.2 \(2 baselines once, "
    r"one of them and one candidate with 3 seeds, and the least of the search\)"
)
# Gradients need runs of 50 steps.
LONGER = {"epochs": 7, "budget": 20.0}
pytestmark = pytest.mark.usefixtures("measured_quickly")


def test_proposals_are_judged_as_all_others_are():
    going = Search(**arguments(budget=14.0))
    before = going.ask()
    assert [name for name, _ in before.tried] in (["relu", "gelu"], ["gelu", "relu"])
    assert before.runs == 4
    assert {"tanh", "gelu", "softplus"} <= {*before.functions}
    score = going.tell("a * x**2", a=0.5)
    assert (score.run, score.part) == (0, 1.0)
    assert going.ask().runs == before.runs - 1
    assert "x ** 2" in going.ask().hint or "x**2" in going.ask().hint
    assert "Operators: + - * / ** < <= > >=. Functions: abs, asinh, atan, " in going.ask().hint
    # The same function under another name costs nothing; so does a baseline.
    assert going.tell("3 * x * x - 1").loss == score.loss
    assert going.tell("2 * relu(x)").loss == dict(before.tried)["relu"]
    assert going.ask().runs == before.runs - 1
    result = going.result()
    assert result.outcome == "better"
    assert result.best.candidate.functions[0].constants == (("a", 0.5),)
    assert result.table[0].candidate.origin == "asked"
    assert going.result() is result
    with pytest.raises(UsageError, match="this search has ended, and its test data are read"):
        going.tell("x * x * x")


def test_proposals_outlive_the_process_and_join_a_method(tmp_path):
    given = arguments(budget=16.0, space=Space(unary=("tanh", "max0", "atan"), binary=("left", "add"), cores=1))
    score = Search(**given, out=tmp_path).tell("x * x")
    going = Search(**given, out=tmp_path)
    assert "x * x" in dict(going.ask().tried)
    result = going.run("random")
    row = next(row for row in result.table if row.candidate.origin == "asked")
    assert row.loss == score.loss
    assert any(one.candidate.origin == "random" for one in result.table)
    assert row.candidate == result.best.candidate


@pytest.mark.parametrize(
    ("proposed", "constants", "error", "message"),
    [
        ("x * tan(", {}, ExpressionError, "x \\* tan"),
        ("x * a", {}, OptionError, "'a'"),
        ("gelo", {}, UnknownActivation, "gelu"),
        ("exp(exp(exp(x)))", {}, UsageError, "is constant, or not finite everywhere from -20 to 20"),
        ("3", {}, UsageError, "3 is constant, or not finite everywhere from -20 to 20"),
        ("x - x", {}, UsageError, "is constant, or not finite"),
        ("log(x)", {}, UsageError, "is constant, or not finite"),
        ("glu", {}, UsageError, "glu is of the kind gated; a search is for functions of single elements"),
        ("a * x", {"a": "two"}, OptionError, "constant a must be a number, got 'two'"),
        ({"one": "x"}, {}, UsageError, "a proposal by group needs one function for each of all"),
    ],
)
def test_a_bad_proposal_is_refused_and_costs_nothing(proposed, constants, error, message, asking):
    before = asking.ask()
    with pytest.raises(error, match=message):
        asking.tell(proposed, **constants)
    assert asking.ask() == before


@pytest.fixture(scope="module")
def asking():
    return Search(**arguments(budget=11.0))


def test_a_proposal_that_verification_cannot_spare_is_refused(asking):
    for text in ("x**2", "abs(x)"):
        if asking.ask().runs:
            asking.tell(text)
    assert asking.ask().runs == 0
    with pytest.raises(UsageError, match=r"training runs are left beside those for verification, and a proposal costs"):
        asking.tell("tanh(x) + x")
    assert asking.result().best


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"budget": 3},
            UsageError,
            SMALLEST,
        ),
        ({"budget": 0}, UsageError, "budget must be a number of training runs above 0, got 0"),
        ({"budget": math.nan}, UsageError, "budget must be a number of training runs above 0, got nan"),
        ({"seeds": 1}, UsageError, "seeds must be a whole number from 2 to 999, got 1; one run cannot tell"),
        ({"baselines": "relu"}, UsageError, "baselines must be a list of at least one activation, got 'relu'"),
        ({"baselines": ()}, UsageError, r"baselines must be a list of at least one activation, got \(\)"),
        ({"baselines": ("relu", "gelo")}, UnknownActivation, "gelu"),
        ({"baselines": ("glu",)}, UsageError, "baseline glu: "),
        ({"baselines": ("gdn",)}, UsageError, "baseline gdn: gdn has parameters for each channel; say how many"),
        ({"space": "two-cores"}, UsageError, "no space named 'two-cores'; did you mean 'one-core'"),
        ({"method": "magic"}, UsageError, "no search method named 'magic'; there are auto, grafs"),
        ({"method": "grafs[bilevel=both]", **LONGER}, OptionError, "bilevel must be one of clean, joint, got 'both'"),
        (
            {"method": "grafs[rate=fast]"},
            OptionError,
            "option 'rate' of this search method must be a number, got 'fast'",
        ),
        ({"method": "grafs[rate=1,rate=2]"}, OptionError, "option 'rate' of this search method is given twice"),
        ({"make_model": lambda: nn.Linear(2, 1)}, UsageError, "the model has no activation to search for"),
        ({"train_step": lambda model, batch: 1.0}, UsageError, "train_step must return the loss as a tensor of one"),
        (
            {"train_step": lambda model, batch: model(batch[0])},
            UsageError,
            "train_step must return the loss as a tensor",
        ),
        (
            {"train_step": lambda model, batch: train_step(model, batch) * math.nan},
            DataError,
            "train_step returned nan",
        ),
        ({"train_batches": iter(batches(squares, 64, 0))}, UsageError, "train_batches"),
        ({"progress": 3}, UsageError, "progress must be a function, got 3"),
        ({"out": __file__}, UsageError, "out must be a folder, .*test_search_requests.py is a file"),
        ({"out": f"{__file__}/search"}, UsageError, "out must be a folder, .*test_search_requests.py is a file"),
        ({"epochs": 0}, UsageError, "epochs must be a whole number of at least 1, got 0"),
        ({"optimizer": lambda parameters: None}, UsageError, "optimizer must return a torch.optim.Optimizer"),
    ],
)
def test_bad_arguments_are_refused_before_any_training(changes, error, message, monkeypatch):
    monkeypatch.setattr(Judge, "score", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        search(**arguments(**changes))


def test_what_the_claim_is_not_about_is_noted():
    result = search(**arguments(budget=14.0, baselines=("relu", "gelu", "silu"), seeds=2), method="random")
    finalists = sum(row.is_baseline and row.final is not None for row in result.table)
    best = "the best" if finalists == 1 else f"the {finalists} best"
    assert finalists < 3
    assert f"of 3 baselines, only {best} of one run each came to the finals" in result.notes


def test_gradients_get_what_they_need_of_the_smallest_budget(monkeypatch):
    # Enough for other methods.
    given = arguments(**{**LONGER, "budget": 10.0})
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "score", lambda *_, **__: pytest.fail("trained"))
        with pytest.raises(UsageError, match="the smallest that works here is ") as refused:
            search(**given, method="grafs")
    smallest = float(re.search(r"works here is ([\d.]+)", str(refused.value))[1])
    result = search(**{**given, "budget": smallest}, method="grafs")
    assert 10 < result.cost.spent <= smallest
    assert any(row.candidate.origin == "grafs" for row in result.table)


def test_the_smallest_budget_named_works(monkeypatch):
    result = search(**arguments(budget=10.2), method="halving")
    assert result.cost.spent <= 10.2
    assert result.candidate is not None
