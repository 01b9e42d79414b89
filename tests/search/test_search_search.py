"""Whole searches on tasks whose answer is known."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
import torch
from search_process import await_, process
from search_whole import arguments, make_model, noise, slow_search, told, train_step
from torch import nn
from torch.testing import assert_close

from softknee._errors import DataError, UsageError
from softknee._search.candidate import Candidate, Function
from softknee._search.judge import Judge
from softknee._search.outcome import MODULE, PAGE, RESULT
from softknee._search.page_words import brief
from softknee._search.result import Finalist, Result
from softknee._search.search import Search, search
from softknee._search.space import Space

pytestmark = pytest.mark.usefixtures("measured_quickly")


@pytest.fixture(scope="module")
def planted():
    return search(**arguments(), method="random")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return search(**arguments(), method="random", out=folder), folder


def test_what_is_better_is_found_and_claimed(planted):
    assert planted.outcome == "better"
    assert not planted.best.is_baseline
    assert "square" in planted.best.formula
    assert planted.measured_on == "test"
    assert planted.best.candidate.key == planted.candidate == planted.table[0].candidate.key
    nearest = planted.difference
    assert planted.verdict.startswith("better than the best baseline, ")
    assert planted.verdict.endswith(" in test loss")
    assert nearest.p < 0.05
    assert 0 < nearest.low < nearest.gain < nearest.high
    rows = {row.candidate.key: row for row in planted.table}
    assert nearest.gain == pytest.approx(rows[nearest.baseline].final.test_mean - planted.table[0].final.test_mean)


def test_everything_that_was_tried_is_in_the_table(planted):
    names = {row.name for row in planted.table}
    assert {"relu", "gelu"} <= names
    finalists = [row for row in planted.table if row.final is not None]
    assert [row.final.validation_mean for row in finalists] == sorted(row.final.validation_mean for row in finalists)
    for row in finalists:
        assert row.final.runs == (1, 2, 3)
        assert [one.phase for one in row.scores if one.run] == ["verify"] * 3
        # Only who is compared was looked at on the test data.
        assert (row.final.test is not None) == (row.is_baseline or row.candidate.key == planted.candidate)
    others = [row.loss for row in planted.table if row.final is None]
    assert others == sorted(others)
    assert all(row.part == 1.0 for row in planted.table)


def test_the_meter_adds_up_and_the_budget_holds(planted):
    cost = planted.cost
    assert cost.spent <= cost.budget == 18.0
    assert cost.spent == pytest.approx(math.fsum(phase.runs for phase in cost.phases))
    assert [phase.name for phase in cost.phases] == ["baselines", "random", "verify"]
    assert max(one.charged for row in planted.table for one in row.scores) == pytest.approx(cost.spent)
    full, evaluation = 32.0, 4 / 3
    trainings = sum(len({one.run for one in row.scores}) for row in planted.table)
    evaluations = sum(len(row.scores) for row in planted.table)
    finals = sum(1 for row in planted.table for one in row.scores if one.run)
    tested = finals * 8 / 3
    assert cost.spent * full == pytest.approx(trainings * full + evaluations * evaluation + tested)


@pytest.mark.parametrize("method", ["halving", "evolve", "random"])
@pytest.mark.parametrize("budget", [9.0, 14.0])
def test_no_method_exceeds_the_budget(method, budget):
    result = search(**arguments(budget=budget, epochs=1, baselines=("relu",), seeds=2), method=method)
    assert result.cost.spent <= budget
    assert any(row.candidate.origin == method for row in result.table)


def test_the_same_seed_gives_the_same_search_and_another_another(planted):
    assert told(search(**arguments(), method="random")) == told(planted)
    assert told(search(**arguments(seed=1), method="random"))["table"] != told(planted)["table"]


def test_without_anything_to_learn_a_baseline_is_returned():
    result = search(**arguments(noise), method="random")
    assert result.outcome == "baseline"
    assert result.best.is_baseline
    name = {"relu": "ReLU", "gelu": "GELU"}[result.best.name]
    assert result.verdict == f"nothing beat {name} within the noise; use {name}"
    assert result.best.candidate.key == result.reference


def test_without_test_batches_the_claim_says_what_it_is_on():
    result = search(**arguments(test_batches=None, budget=14.0), method="random")
    assert result.measured_on == "validation"
    assert result.verdict.endswith("in validation loss, which the search has seen")
    assert "validation data, which the search has seen" in result.notes[0]
    assert all(row.final.test is None for row in result.table if row.final)


def test_what_the_model_has_joins_the_baselines():
    def with_tanh():
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    result = search(**arguments(make_model=with_tanh, budget=16.0), method="random")
    assert {row.name for row in result.table if row.is_baseline} == {"relu", "gelu", "tanh"}


def test_diverging_candidates_are_shown_charged_and_do_not_win():
    def exploding(model, batch):
        loss = train_step(model, batch)
        return loss * float("nan") if "square" in repr(model) and model.training else loss

    result = search(**arguments(train_step=exploding, space=Space(unary=("square", "tanh"), binary=("left", "add"))))
    failed = [row for row in result.table if row.failure is not None]
    assert failed
    assert "the training loss was nan" in failed[0].failure
    assert result.cost.failed == len(failed)
    assert 0 < result.cost.failed_runs < result.cost.spent
    # They fail in their first epoch: nothing else was charged for them.
    runs = sum(len({one.run for one in row.scores if one.failure}) for row in failed)
    assert result.cost.failed_runs == pytest.approx(runs * 8 / 32)
    assert "square" not in result.best.name


def test_a_function_for_each_group_and_putting_them_in():
    def two():
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    given = arguments(make_model=two, scope="site", budget=14.0, seeds=2)
    result = search(**given, method="random")
    best = result.best
    assert [*best.sites] == ["1", "3"]
    assert {len(row.candidate.functions) for row in result.table} == {2}
    model, report = best.apply(two())
    assert len(report.changed) == 2
    x = torch.randn(5)
    for index, group in ((1, "1"), (3, "3")):
        assert_close(model[index](x), best.functions[group].make()(x))
    assert best.source().count("(nn.Module)") == 2
    if not best.is_baseline:
        assert best.formula.startswith("1: ")
    with pytest.raises(UsageError, match="group must be one of 1, 3, got None"):
        best.module()

    shorter = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    with pytest.raises(UsageError, match="the function of 3 has no such place in this model"):
        best.apply(shorter)
    assert isinstance(shorter[1], nn.ReLU)


def test_a_function_goes_where_it_was_searched_for(tmp_path):
    def two():
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    given = arguments(make_model=two, budget=14.0, seeds=2)
    for asked in ({"where": "3", "out": tmp_path}, {"scope": {"last": "3"}}):
        best = search(**given, **asked, method="random").best
        model, report = best.apply(two())
        assert [one.site.path for one in report.changed] == ["3"]
        assert type(model[1]) is nn.ReLU
        _, report = best.apply(two(), where="1")
        assert [one.site.path for one in report.changed] == ["1"]
        other = nn.Sequential(nn.Linear(2, 8), nn.ReLU())
        with pytest.raises(UsageError, match="no activation to change was found|say where it goes"):
            best.apply(other)
    stored = Result.from_json(json.loads((tmp_path / RESULT).read_text()))
    assert not stored.best.everywhere


def test_the_function_to_take_away_is_the_one_that_was_trained(planted, tmp_path):
    x = torch.linspace(-4, 4, 50)
    module = planted.best.module()
    names: dict = {}
    exec(planted.best.source(), names)
    assert_close(names["Found"]()(x), module(x))
    model, _ = planted.best.apply(make_model())
    assert_close(model[1](x), module(x))
    assert planted.best.to_onnx(tmp_path / "best.onnx") < 1e-5
    assert planted.best.latex


def test_a_result_is_plain_data_and_back(kept):
    result, folder = kept
    data = json.loads((folder / RESULT).read_text())
    again = Result.from_json(data)
    assert again == result
    assert again.to_json() == data
    assert repr(again) == repr(result)
    assert all(len(curve) == 49 for row in data["table"] for curve in row["curve"])
    assert data["functions"][0]["text"] == result.best.candidate.functions[0].text
    with pytest.raises(DataError, match="the result has schema 99; this version of softknee reads 1"):
        Result.from_json({**data, "schema": 99})


def test_what_is_only_described_has_no_latex():
    described = Finalist(Candidate((Function("ditac"),), "baseline"), True, {"all": ("1",)})
    assert described.latex == ""
    assert Finalist(Candidate((Function("x**2"),), "asked"), False, {"all": ("1",)}).latex == "x^{2}"


def test_a_result_shows_itself_shortly(planted):
    lines = repr(planted).splitlines()
    assert lines[0] == planted.verdict
    assert brief(planted.best.name) in repr(planted)
    assert len(lines) < 16
    assert planted.verdict in planted._repr_html_()
    row = planted.table[0]
    function = Function("sinh(0.49626006974993764 * x) + " * 9 + "x")
    long = replace(row, candidate=replace(row.candidate, functions=(function,)))
    shown = repr(replace(planted, table=(long,))).splitlines()[-2]
    assert shown.startswith("sinh(0.49626 * x) + sinh(0.49626 * x) + sinh(0.49626 * x)...  ")


def test_the_folder_holds_all_there_is(kept, planted):
    result, folder = kept
    assert told(result) == told(planted)
    assert {RESULT, PAGE, MODULE, "settings.json", "runs"} <= {path.name for path in folder.iterdir()}
    assert "class Found(nn.Module)" in (folder / MODULE).read_text()
    assert result.verdict in (folder / PAGE).read_text()
    assert not [*folder.rglob("*.part")]


def test_a_finished_search_returns_at_once(kept, monkeypatch):
    result, folder = kept
    monkeypatch.setattr(Judge, "score", lambda *_, **__: pytest.fail("trained again"))
    assert search(**arguments(), method="random", out=folder) == result


def test_a_folder_is_for_one_search(kept):
    _, folder = kept
    with pytest.raises(UsageError, match=r"has epochs=4, now it is 5; give the same arguments to go on, or another"):
        search(**arguments(epochs=5), method="random", out=folder)
    with pytest.raises(UsageError, match=r"goes by method='random', now it is 'evolve'; give the same to go on, or"):
        search(**arguments(), method="evolve", out=folder)


def test_more_budget_goes_on_from_what_is_there(kept, tmp_path):
    _, folder = kept
    copied = shutil.copytree(folder, tmp_path / "more")
    result = search(**arguments(budget=22.0), method="random", out=copied)
    straight = told(search(**arguments(budget=22.0), method="random"))
    again = ("the test data had been read before, with a budget of 18 runs",)
    assert told(result) == {**straight, "notes": straight["notes"] + again}


@pytest.mark.parametrize("method", ["evolve", pytest.param("random", marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_to_the_same_end(tmp_path, method):
    expected = search(**arguments(), method=method)
    for number in range(1, 3):
        with process(slow_search, tmp_path / "out", method) as child:
            # From when it has something to lose: more with each life.
            await_(lambda number=number: len([*(tmp_path / "out" / "runs").glob("*.json")]) >= 7 * number, child)
    assert not (tmp_path / "out" / RESULT).exists()
    assert told(search(**arguments(), method=method, out=tmp_path / "out")) == told(expected)


def test_interrupted_by_the_keyboard_it_stops_and_can_go_on(tmp_path, planted):
    count = 0

    def impatient(model, batch):
        nonlocal count
        count += 1
        if count == 400:
            raise KeyboardInterrupt
        return train_step(model, batch)

    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        search(**arguments(train_step=impatient), method="random", out=tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert told(search(**arguments(), method="random", out=tmp_path)) == told(planted)


def test_interrupted_in_a_notebook_the_same_object_goes_on(planted):
    count = 0

    def impatient(model, batch):
        nonlocal count
        count += 1
        # In the search, and in the finals.
        if count in {400, 700}:
            raise KeyboardInterrupt
        return train_step(model, batch)

    going = Search(**arguments(train_step=impatient))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            going.run("random")
    with pytest.raises(UsageError, match=r"the search goes by method='random', a proposal comes too late; give the"):
        going.tell("x * x")
    with pytest.raises(UsageError, match=r"goes by method='random', now it is 'evolve'; .* or a new Search$"):
        going.run("evolve")
    assert told(going.run("random")) == told(planted)


def test_the_callers_random_state_is_left_alone(planted):
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    search(**arguments(budget=14.0), method="halving")
    assert_close(torch.randn(3), expected)


def test_progress_is_told_in_texts():
    said: list[str] = []
    result = search(**arguments(budget=14.0), method="random", progress=said.append)
    spent = [
        text for text in said if re.fullmatch(r"(baselines|random|select|verify): \d+\.\d of 14 training runs", text)
    ]
    others = [text for text in said if text not in spent]
    assert others[:2] == ["baseline 1 of 2: relu", "baseline 2 of 2: gelu"]
    assert re.fullmatch(r"random: \d+\.\d training runs to search with", others[2])
    assert others[-1] == result.verdict
    assert spent[-1] == f"verify: {result.cost.spent:.1f} of 14 training runs"
    assert len({text for text in spent if text.startswith("random")}) > 1


def test_when_every_baseline_fails_the_search_says_so():
    def failing(model, batch):
        loss = train_step(model, batch)
        return loss * (math.nan if "relu" in repr(model).lower() and "Sequential" in repr(model) and loss < 3 else 1)

    with pytest.raises(UsageError, match="every baseline failed, so there is nothing to beat; ReLU: the training loss"):
        search(**arguments(train_step=failing, baselines=("relu",), budget=14.0), method="random")


def test_what_is_found_again_is_named_as_the_baseline_it_is():
    space = Space(unary=("max0", "gelu"), binary=("left",), cores=1)
    result = search(**arguments(space=space, budget=14.0), method="random")
    assert result.verdict.startswith("nothing new was found; use ")
    assert result.best.is_baseline


def test_a_damaged_result_says_what_to_do(kept, tmp_path):
    copied = shutil.copytree(kept[1], tmp_path / "damaged")
    (copied / RESULT).write_text("{")
    with pytest.raises(DataError, match=r"result.json is damaged; delete it, and it is made again"):
        search(**arguments(), method="random", out=copied)
