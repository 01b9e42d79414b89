"""Protocols of one's own, from files and from Python: what they may be, what is refused and in which words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from softknee._bench.compare import bench
from softknee._bench.model import build_model
from softknee._bench.own import FITS, GOES_WITH, check_protocol, read_protocol
from softknee._bench.protocol import ModelName, Protocol, Recipe, TaskName
from softknee._bench.protocols import PROTOCOLS, get_protocol, with_options
from softknee._bench.suite import SUITES
from softknee._bench.tasks import TASKS, load_tensors
from softknee._catalogue import parse_choice
from softknee._errors import DataError, OptionError, StudyMismatch, UnknownProtocol, UsageError

pytest.importorskip("tomllib")

MINE = """
name = "mine"
title = "My own"
description = "A small perceptron on digits."
learning_rate = 0.01
epochs = 2

[recipe]
task = "digits"
widths = [64, 8, 10]
batch_size = 200
"""
PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
DOWNLOADED = {"cifar10", "cifar100"}
TUNED = {"cells": [{"name": "a", "title": "", "rate": "tuned"}]}


def written(folder, text=MINE, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def own(**changes):
    recipe = {"task": "digits", "widths": (64, 8, 10)}
    fields = {"name": "mine", "title": "My own", "description": "A small perceptron.", "recipe": recipe}
    return Protocol.model_validate({**fields, **changes})


def test_a_file_is_the_protocol_it_describes(tmp_path):
    recipe = Recipe(task="digits", widths=(64, 8, 10), batch_size=200)
    expected = Protocol(
        name="mine",
        title="My own",
        description="A small perceptron on digits.",
        recipe=recipe,
        learning_rate=0.01,
        epochs=2,
    )
    path = written(tmp_path)
    assert get_protocol(path) == get_protocol(str(path)) == get_protocol(expected) == expected


def test_a_study_of_a_file_and_of_its_protocol_are_the_same(tmp_path):
    path, out = written(tmp_path), tmp_path / "out"
    study = bench(str(path), ["relu", "tanh"], seeds=2, out=out, executor="here")
    assert [row.done for row in study.table[0].rows] == [2, 2]
    assert study.files.manifest["protocol"]["title"] == "My own"
    before = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")}
    assert len(before) == 4
    bench(get_protocol(path), ["relu", "tanh"], seeds=2, out=out, executor="here")
    assert {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")} == before


def test_a_changed_file_is_another_study(tmp_path):
    out = tmp_path / "out"
    bench(str(written(tmp_path)), ["relu"], seeds=1, out=out, executor="here")
    changed = written(tmp_path, MINE.replace("[64, 8, 10]", "[64, 9, 10]"))
    with pytest.raises(StudyMismatch, match="its recipe is another"):
        bench(str(changed), ["relu"], seeds=1, out=out, executor="here")


def test_tuned_cells_may_be_ones_own(tmp_path):
    cells = '\n[[cells]]\nname = "tuned"\ntitle = "tuned"\nrate = "tuned"\n[tuning]\ngrid = [0.01, 0.1]\ntrials = 2\n'
    study = bench(str(written(tmp_path, MINE + cells)), ["relu"], seeds=1, out=tmp_path / "out", executor="here")
    (search,) = study.files.manifest["tuning"]
    assert search["chosen"] in {0.01, 0.1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "batch_size",
            "batchsize",
            r"mine.toml: recipe.batchsize: no such field; did you mean 'batch_size'\? there are",
        ),
        ("epochs =", "epoch =", r"mine.toml: epoch: no such field; did you mean 'epochs'\? there are name, title"),
        ('title = "My own"\n', "", "mine.toml: title: field required"),
        ("= 200", "= 0", "mine.toml: recipe.batch_size: input should be greater than 0, got 0"),
        ("= 0.01", "= inf", "mine.toml: learning_rate: input should be a finite number, got inf"),
        ("[64, 8, 10]", "[64, 8.5, 10]", r"mine.toml: recipe.widths.1: .*valid integer.*, got 8.5"),
        ("[64, 8, 10]", "64", r"mine.toml: recipe.widths: input should be a list, got 64"),
        ("[recipe]", "[[recipe]]", r"mine.toml: recipe: input should be a table, got \[\{"),
        (
            'task = "digits"',
            'task = "digit"',
            "mine.toml: recipe.task: input should be 'fashion-mnist', .*, got 'digit'",
        ),
        ("epochs = 2", "epochs = ", "mine.toml: no TOML: Invalid value"),
        (
            'name = "mine"',
            'name = "Fashion-MLP"',
            "mine.toml: name: 'Fashion-MLP' is one of softknee's own; give another",
        ),
        ('name = "mine"', 'name = "mls"', "mine.toml: name: 'mls' is one of softknee's own"),
        ('name = "mine"', 'name = "../mine"', "mine.toml: name: up to 64 letters, digits, - and _, .*; got '../mine'"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_what_may_be(tmp_path, old, new, message):
    assert old in MINE
    with pytest.raises(UsageError, match=message) as caught:
        bench(str(written(tmp_path, MINE.replace(old, new, 1))), ["relu"], out=tmp_path / "out", executor="here")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.toml: no such file; .*docs/protocols.md"):
        get_protocol("nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bytes.toml: no TOML: 'utf-8' codec"):
        get_protocol(tmp_path / "bytes.toml")
    with pytest.raises(UnknownProtocol, match="the suites mls, transfer, and files of one's own that end in .toml"):
        get_protocol("mine")
    with pytest.raises(UnknownProtocol, match="no protocol named 'transfr'; did you mean 'transfer'"):
        get_protocol("transfr")
    with pytest.raises(UsageError, match="transfer is a suite, name one of its protocols: digits-cnn, fashion-resnet8"):
        get_protocol("transfer")


def test_without_tomllib_python_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    with pytest.raises(UsageError, match=r"with Python 3.11 or later; make a softknee.Protocol instead"):
        get_protocol(written(tmp_path))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"model": "cnn-1d"}, "recipe.model: digits is for mlp or normed-mlp or cnn .*, got 'cnn-1d'"),
        ({"widths": (784, 8, 10)}, r"recipe.widths: for digits it begins with 64 and ends with 10, got \[784, 8, 10\]"),
        ({"widths": ()}, r"recipe.widths: for digits it begins with 64 and ends with 10, got \[\]"),
        ({"widths": (64, 10)}, r"recipe.widths: three or more for mlp, got \[64, 10\]"),
        ({"widths": (64, 8, 8, 10), "model": "gru"}, "recipe.widths: three for gru"),
        ({"model": "cnn", "widths": (64, 2, 2, 2, 2, 10)}, r"no cnn can be built of \[64, 2, 2, 2, 2, 10\]: "),
        ({"model": "vit", "widths": (64, 20, 10)}, r"no vit can be built of \[64, 20, 10\]: "),
        ({"steps": 5}, "recipe.steps: an epoch of digits goes through all examples; leave it out"),
        ({"task": "poisson", "widths": (2, 8, 1)}, "recipe.steps: poisson draws new examples for every step; say how"),
        ({"dropout": 0.1}, "recipe.dropout: goes with model normed-mlp; leave it out"),
        ({"place": "gates"}, "recipe.place: goes with model gru; leave it out"),
        ({"augmented": True}, "recipe.augmented: goes with model resnet20 or vgg16-bn or mobilenetv2; leave it out"),
        ({"normalization": "common"}, "recipe.normalization: goes with task cifar10; leave it out"),
        ({"optimizer": "adam", "momentum": 0.5}, "recipe.momentum: goes with optimizer sgd; leave it out"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(recipe, message):
    with pytest.raises(UsageError, match=f"^protocol 'mine': .*{message}"):
        get_protocol(own(recipe={"task": "digits", "widths": (64, 8, 10), **recipe}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": ()}, "cells: at least one"),
        ({"cells": [{"name": "a", "title": ""}] * 2}, r"cells: .* each with a name of its own; got \['a', 'a'\]"),
        ({"cells": [{"name": "a", "title": "", "rate": "tuned"}]}, "tuning: goes with a cell whose rate is tuned"),
        ({"tuning": {}}, "tuning: goes with a cell whose rate is tuned"),
        ({"options": ("dropuot",)}, "options: 'dropuot' is no field of a recipe; there are task, model"),
        ({"seeds": (3, 4, 3)}, r"seeds: each of them once, got \[3, 4, 3\]"),
        ({"budget": 0.5}, "budget: at least 1, .*; got 0.5"),
        ({"tuning": {"grid": ()}, **TUNED}, r"tuning.grid: two rates or more, ascending; got \[\]"),
        ({"tuning": {"grid": (0.1, 0.01)}, **TUNED}, r"tuning.grid: two rates or more, ascending; got \[0.1, 0.01\]"),
        ({"tuning": {"trials": 4}, **TUNED}, "tuning.trials: at least the 5 of the grid, got 4"),
        ({"tuning": {"seeds": ()}, **TUNED}, r"tuning.seeds: one or more, .*; got \[\]"),
        (
            {"tuning": {"seeds": (0,)}, **TUNED},
            r"tuning.seeds: .* from 1000000 on and none that is evaluated; got \[0\]",
        ),
        ({"tuning": {}, "seeds": (1_000_000,), **TUNED}, r"tuning.seeds: .* none that is evaluated; got \[1000000\]"),
    ],
)
def test_conditions_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UsageError, match=f"^protocol 'mine': {message}"):
        get_protocol(own(**changes))


def test_matched_weights_and_tuned_rates_need_models_and_tasks_that_have_them():
    matched = [{"name": "a", "title": "", "initialization": "matched"}]
    with pytest.raises(UsageError, match="a matched initialization goes with model mlp alone, got 'normed-mlp'"):
        get_protocol(own(cells=matched, recipe={"task": "digits", "model": "normed-mlp", "widths": (64, 8, 10)}))
    with pytest.raises(UsageError, match="regression-1d has no part to hold out, so that rates cannot be tuned on it"):
        get_protocol(own(**TUNED, tuning={}, recipe={"task": "regression-1d", "widths": (1, 8, 1), "steps": 5}))


def test_options_are_checked_with_the_rest_of_the_recipe():
    mine = own(options=("model", "dropout", "widths"))
    assert with_options(mine, {"model": "mlp"}) is mine
    assert with_options(mine, {"model": "normed-mlp", "dropout": "0.3"}).recipe.dropout == 0.3
    with pytest.raises(OptionError, match="'momentum' is no option of mine; it has model, dropout, widths"):
        with_options(mine, {"momentum": 0})
    with pytest.raises(OptionError, match="option 'dropout' got 'much': Input should be a valid number"):
        with_options(mine, {"dropout": "much"})
    with pytest.raises(
        UsageError, match="^mine with dropout=0.3: recipe.dropout: goes with model normed-mlp; leave it"
    ):
        with_options(mine, {"dropout": 0.3})
    with pytest.raises(UsageError, match="^mine with widths=.*: recipe.widths: for digits it begins with 64"):
        with_options(mine, {"widths": (63, 10)})


def test_one_of_ours_is_ours_and_a_changed_one_needs_another_name():
    ours = PROTOCOLS["digits-cnn"]
    assert get_protocol(ours) is ours
    changed = ours.model_copy(update={"epochs": 3})
    with pytest.raises(UsageError, match="protocol 'digits-cnn': name: 'digits-cnn' is one of softknee's own"):
        get_protocol(changed)
    assert get_protocol(changed.model_copy(update={"name": "digits-short"})).epochs == 3


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if not name.startswith("mls-")])
def test_our_own_protocols_pass_the_check(name):
    check_protocol(PROTOCOLS[name], taken=(), where=name)
    assert not {*PROTOCOLS} & {*SUITES}


def test_what_tasks_ask_for_is_what_their_data_are():
    assert set(FITS) == set(get_args(TaskName))
    assert {model for fit in FITS.values() for model in fit.models} == set(get_args(ModelName))
    assert set(GOES_WITH) < set(Recipe.model_fields)
    for name, fit in FITS.items():
        if name in DOWNLOADED:
            continue
        source = TASKS[name].source(None)
        examples = load_tensors(source, "test", name)
        assert examples.prepare(examples.test_inputs[:1]).numel() == fit.inputs
        classes = getattr(examples, "classes", None)
        assert fit.outputs == (len(classes) if classes else 256 if name == "text" else examples.test_targets.shape[1])
        assert fit.drawn == (TASKS[name].facts(source).train is None)
        try:
            TASKS[name].load(source, "validation")
        except DataError:
            assert not fit.held
        else:
            assert fit.held


@pytest.mark.parametrize(("name", "fit"), FITS.items())
def test_every_model_that_a_task_takes_can_be_built_and_run(name, fit):
    hidden = {"gpt": (64,), "vit": (64,), "resnet20": (), "vgg16-bn": (), "mobilenetv2": ()}
    for model in fit.models:
        if model == "vgg16-bn":  # of 15 million parameters
            continue
        steps = 3 if fit.drawn else 0
        widths = (fit.inputs, *hidden.get(model, (8,)), fit.outputs)
        protocol = own(recipe={"task": name, "model": model, "widths": widths, "steps": steps})
        assert check_protocol(protocol, taken=(), where="here") is protocol
        sites = build_model(protocol.recipe, parse_choice("relu"), seed=0)
        assert any("activation" in path for path, _ in sites.named_modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_rates_are_positive_numbers(value):
    with pytest.raises(ValidationError, match="learning_rate"):
        own(learning_rate=value)


def test_the_files_of_the_page_are_protocols_and_its_tables_are_complete(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert len(files) == 2
    for index, text in enumerate(files):
        path = written(tmp_path, text, f"{index}.toml")
        assert get_protocol(path) == read_protocol(path)
    for name in (*PROTOCOLS, *SUITES):
        assert f"`{name}`" in page.replace("`, `-2d`", "`, `regression-2d`"), name
    for field in (*Protocol.model_fields, *Recipe.model_fields, *get_args(ModelName)):
        assert f"`{field}`" in page, field
    for name, fit in FITS.items():
        (row,) = re.findall(
            rf"^\| [^|]*`{name}`[^|]*\| ([^|]*\d[^|]*) \|", page.partition("| task | first")[2], flags=re.MULTILINE
        )
        assert {str(fit.inputs), str(fit.outputs)} <= set(re.findall(r"\d+", row))
