"""Every protocol as a user has it: a study, its words and pictures, interruption, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import get_args

import pytest
import torch
from scipy import stats
from test_execute import children  # noqa: F401 (a fixture)
from test_train import TIMES

from softknee._bench import data
from softknee._bench import plan as plan_module
from softknee._bench.compare import bench
from softknee._bench.course import execute
from softknee._bench.execute import run_here, run_in_children
from softknee._bench.protocol import Protocol, TaskName
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.runs import CHECKPOINT, Job, RunSpec, read_result
from softknee._bench.study import Study
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import DataError, OptionError, UsageError

# What makes them quick.
SMALL = {
    "fashion-cnn": {"widths": (784, 2, 2, 2, 10), "batch_size": 100},
    "fashion-resnet8": {"widths": (784, 2, 2, 10), "batch_size": 100},
    "fashion-vit": {"widths": (784, 64, 64, 10), "batch_size": 100},
    "digits-cnn": {"widths": (64, 2, 10), "batch_size": 200},
    "rnn-digits": {"widths": (64, 4, 10), "batch_size": 400},
    "mnist1d": {"widths": (40, 8, 10), "batch_size": 500},
    "mnist1d-cnn": {"widths": (40, 2, 2, 10), "batch_size": 500},
    "tabular-mlp": {"widths": (30, 8, 4, 2)},
    "text-char": {"widths": (64, 64, 64, 256), "batch_size": 4, "steps": 10},
    "gmm-2d": {"widths": (2, 8, 5)},
    "regression-1d": {"widths": (1, 8, 1), "steps": 20},
    "regression-2d": {"widths": (2, 8, 1), "steps": 20},
    "pinn-poisson": {"widths": (2, 8, 1), "steps": 20},
}
GENERATED = ["gmm-2d", "regression-1d", "regression-2d"]
METRICS = {"text-char": "saving", "regression-1d": "r2", "regression-2d": "r2", "pinn-poisson": "r2"}
PICTURES = {"gmm-2d": 1 + 3, "regression-1d": 3, "regression-2d": 1 + 3 + 3, "pinn-poisson": 1 + 3 + 3}


@pytest.fixture(autouse=True, scope="module")
def _few_images():
    """A few of the embedded images, of every class."""
    images = data.load("mini")
    few = replace(
        images,
        train_images=images.train_images[::20],
        train_labels=images.train_labels[::20],
        test_images=images.test_images[::10],
        test_labels=images.test_labels[::10],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda source: few)
        load_tensors.cache_clear()
        yield
    load_tensors.cache_clear()


def small(name):
    protocol = PROTOCOLS[name]
    return protocol.model_copy(update={"recipe": protocol.recipe.model_copy(update=SMALL.get(name, {}))})


@pytest.fixture(autouse=True)
def _small_protocols(monkeypatch):
    monkeypatch.setattr(plan_module, "get_protocol", small)


def run(out, name, activations=("relu", "prelu"), **options):
    return bench(name, activations, **{"seeds": 2, "epochs": 2, "out": out, "executor": "here", **options})


def job_of(folder, name, activation="prelu", **changes):
    protocol = small(name)
    task = TASKS[protocol.recipe.task]
    source = task.source(None)
    fields = {
        "protocol": name, "recipe": protocol.recipe, "activation": activation, "definition": "", "seed": 0,
        "initialization": "default", "learning_rate": protocol.learning_rate, "epochs": 3, "split": "test",
        "data": task.facts(source).fingerprint,
    }  # fmt: skip
    spec = RunSpec(**{**fields, **changes})
    return Job(spec=spec, source=source, folder=folder / spec.key)


def numbers(job):
    return {name: value for name, value in read_result(job.folder).items() if name not in TIMES}


@pytest.fixture(scope="module", params=SMALL)
def study(request, tmp_path_factory):
    """Three activations, one of which changes the width, and three seeds."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "get_protocol", small)
        return run(folder, request.param, ("relu", "prelu", "maxout"), seeds=3)


def test_a_study_has_results_tables_and_files(study, tmp_path):
    metric, protocol = study.files.metric, study.files.manifest["protocol"]["name"]
    assert metric.name == METRICS.get(protocol, "accuracy")
    (table,) = study.table
    assert [row.done for row in table.rows] == [3, 3, 3]
    for row in table.rows:
        finals = [run.get(f"test_{metric.name}")[-1] for run in study.files.of(table.cell.name, row.activation)]
        assert row.mean == pytest.approx(sum(finals) / 3)
        assert row.step_seconds > 0
        assert row.low <= row.mean <= row.high
    assert table.row("maxout").parameters > table.row("relu").parameters
    assert table.row("prelu").activation_parameters > 0
    study.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {f"test_{metric.name}", f"best_test_{metric.name}", "step_seconds", "multiply_adds"} <= set(rows[0])
    assert all(float(row["multiply_adds"]) > 0 for row in rows)


def test_its_page_speaks_of_its_own_metric(study, tmp_path):
    study.to_html(tmp_path / "report.html")
    page = re.sub(r"<style.*?</style>", "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    study.to_markdown(tmp_path / "results.md")
    text = page + (tmp_path / "results.md").read_text() + study.summary()
    others = {"r2": "test R²", "saving": "test saving"}
    if study.files.metric.name in others:
        assert others[study.files.metric.name] in text
        assert not re.search(r"accurac|percentage|points of|confusion|new test examples", text, flags=re.IGNORECASE)
        assert "new seeds: Student" in text
    else:
        assert "test accuracy" in text
        assert "R²" not in text
    assert "Activation operations" in text
    pictures = re.search(r'id="pictures".*?</section>', page, flags=re.DOTALL)
    expected = PICTURES.get(study.files.manifest["protocol"]["name"], 0)
    assert (pictures[0].count('class="chart') if pictures else 0) == expected


@pytest.mark.parametrize("study", ["regression-1d", "regression-2d"], indirect=True)
def test_intervals_and_p_values_of_r2_are_students_over_the_seeds(study):
    (table,) = study.table
    scores = {
        label: [run.get("test_r2")[-1] for run in study.files.of(table.cell.name, label)] for label in table.order
    }
    raw = {}
    for label in ("prelu", "maxout"):
        row = table.row(label)
        low, high = stats.t.interval(0.95, 2, row.mean, stats.sem(scores[label]))
        assert (row.low, row.high) == pytest.approx((low, high))
        paired = stats.ttest_rel(scores[label], scores["relu"])
        interval = paired.confidence_interval(0.95)
        assert (row.difference_low, row.difference_high) == pytest.approx((interval.low, interval.high))
        raw[label] = paired.pvalue
    smaller, larger = sorted(raw, key=raw.get)
    assert table.row(smaller).p == pytest.approx(min(2 * raw[smaller], 1))
    assert table.row(larger).p == pytest.approx(max(raw[larger], min(2 * raw[smaller], 1)))


@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path, name):
    """Also in the middle of Adam's averages and of points that are drawn."""
    whole, cut = job_of(tmp_path / "whole", name), job_of(tmp_path / "cut", name)
    run_here([whole], lambda event: None)

    def stop(epoch, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(cut, stop)
    assert (cut.folder / CHECKPOINT).is_file()
    torch.rand(3)
    epochs = []
    execute(cut, lambda epoch, score: epochs.append(epoch))
    assert epochs == [2, 3]
    assert numbers(cut) == numbers(whole)
    assert [path.name for path in cut.folder.iterdir()] == ["result.json"]


# Children that are replaced are tried in `test_execute`, and runs that go on above, in this process.
@pytest.mark.slow
def test_a_killed_child_is_replaced_and_gives_the_same_numbers(tmp_path, children):  # noqa: F811
    job, seen = job_of(tmp_path / "killed", "regression-2d"), []

    def kill_once(event):
        seen.append(event)
        if len(seen) == 1:
            os.kill(children[0].pid, signal.SIGKILL)

    run_in_children([job], kill_once, slots=1)
    undisturbed = job_of(tmp_path / "undisturbed", "regression-2d")
    run_here([undisturbed], lambda event: None)
    assert len(children) == 2
    assert numbers(job) == numbers(undisturbed)
    assert seen[0].score == numbers(job)["test_r2"][0]


# One for each metric, and for data that are made; studies of images are interrupted in `test_compare`.
@pytest.mark.parametrize("name", ["text-char", *GENERATED])
def test_an_interrupted_study_reports_what_it_has_and_goes_on_to_the_same_numbers(tmp_path, name):
    def interrupt(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", name, progress=interrupt)
    left = sorted(path.name for path in (tmp_path / "cut" / "runs").glob("*/*"))
    assert left == ["attempt-00001.json", "checkpoint.pt", "result.json"]
    part = Study.load(tmp_path / "cut")
    assert "unfinished: 3 of 4 runs still missing" in part.summary()
    part.to_html(tmp_path / "part.html")
    run(tmp_path / "cut", name)
    run(tmp_path / "whole", name)

    def stored(folder):
        results = (json.loads(path.read_text()) for path in folder.glob("runs/*/result.json"))
        return {one["key"]: {k: v for k, v in one.items() if k not in TIMES} for one in results}

    assert stored(tmp_path / "cut") == stored(tmp_path / "whole")


def test_ctrl_c_on_the_command_line_keeps_the_epochs(tmp_path):
    command = [sys.executable, "-m", "softknee", "bench", "regression-2d", "-a", "relu", "--seeds", "1", "--jobs", "1"]
    command += ["--out", str(tmp_path), "--epochs"]
    process = subprocess.Popen([*command, "100"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f"runs/*/{CHECKPOINT}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert "the same command goes on" in process.stderr.read()
    checkpoint = torch.load(next(tmp_path.glob(f"runs/*/{CHECKPOINT}")), weights_only=True)
    assert len(json.loads(checkpoint["history"])["test_r2"]) >= 1
    assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.parametrize("name", GENERATED)
def test_a_call_on_the_same_folder_adds_and_finished_runs_stay(tmp_path, name):
    run(tmp_path, name, ("relu",), seeds=1, epochs=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    study = run(tmp_path, name, ("silu",), seeds=2, epochs=1)
    assert study.files.activations == ["relu", "silu"]
    assert len(study.files.runs) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert Study.load(tmp_path).summary() == study.summary()


def test_a_diverged_regression_is_recorded_and_gets_its_report(tmp_path):
    study = run(tmp_path, "regression-2d", ("relu", "exp(exp(9 + x))"), epochs=1)
    assert {run.status for run in study.files.runs if run.activation != "relu"} == {"diverged"}
    study.to_html(tmp_path / "report.html")
    assert "diverged" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("regression-2d", {"data": "full"}, UsageError, "regression-2d makes its data itself; leave data out"),
        (
            "regression-1d",
            {"split": "dev"},
            UsageError,
            "regression-1d has no part to hold out; leave split out, got 'dev'",
        ),
        ("digits-cnn", {"data": "mini"}, UsageError, "digits ships with softknee; leave data out, got 'mini'"),
        ("text-char", {"data": "nowhere"}, DataError, "nowhere: no such folder; --data takes a folder with texts"),
        ("text-char", {"margin": 0}, UsageError, "margin must be a positive number of bits, got 0"),
        ("regression-1d", {"margin": 0}, UsageError, "margin must be a positive number of R², got 0"),
        ("gmm-2d", {"margin": 0}, UsageError, "margin must be a positive number of percentage points, got 0"),
        ("gmm-2d", {"activations": ("frelu",)}, OptionError, "frelu does not fit the model of gmm-2d: FReLU"),
        ("gmm-2d", {"activations": ("maxmin[group=3]",)}, OptionError, "maxmin has no parameter 'group'"),
        ("fashion-mlp-fair", {"activations": ("maxout",)}, OptionError, "maxout does not fit .*no forward gain"),
        ("fashion-vit", {"activations": ("frelu",)}, OptionError, "frelu does not fit the model of fashion-vit"),
        ("fashion-cnn", {"activations": ("prelu[per_channel=3]",)}, OptionError, "does not fit .* 3 channels"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, name, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "out", name, **options)
    assert not (tmp_path / "out").exists()


def test_margins_go_with_the_metric(tmp_path):
    margins = {name: run(tmp_path / name, name, ("relu",), seeds=1, epochs=1).files.margin for name in GENERATED}
    assert margins == {"gmm-2d": 0.5, "regression-1d": 0.01, "regression-2d": 0.01}


def test_another_function_is_another_study(tmp_path):
    run(tmp_path, "regression-2d", ("relu",), seeds=1, epochs=1)
    with pytest.raises(UsageError, match="its protocol is regression-2d, asked for gmm-2d"):
        run(tmp_path, "gmm-2d", ("relu",), seeds=1, epochs=1)
    manifest = json.loads((tmp_path / "study.json").read_text())
    manifest["data"]["fingerprint"] = "0" * 64
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"its data is new \+ 10,201 examples \(00000000\)"):
        run(tmp_path, "regression-2d", ("relu",), seeds=1, epochs=1)


def test_the_published_regression_is_as_published():
    protocol = PROTOCOLS["regression-2d"]
    recipe = protocol.recipe
    assert (recipe.widths, recipe.batch_size, recipe.optimizer, protocol.learning_rate) == (
        (2, 50, 1),
        98,
        "adam",
        5e-3,
    )
    assert recipe.steps * protocol.epochs == 10_000


def test_adam_is_the_textbooks(tmp_path):
    """One step from the initial weights, written out: the first step moves each weight by the rate, but for epsilon."""
    from softknee._bench.model import build_model
    from softknee._bench.streams import Stream, stream_generator
    from softknee._catalogue import parse_choice

    protocol = small("regression-2d")
    recipe = protocol.recipe.model_copy(update={"steps": 1})
    job = job_of(tmp_path, "regression-2d", "relu", recipe=recipe, epochs=1, save_epochs=(1,))
    execute(job, lambda *_: None)
    model = build_model(recipe, parse_choice("relu"), seed=0)
    ((x, y),) = load_tensors("generated", "test", "regression-2d").batches(stream_generator(0, Stream.ORDER, 1), 98, 1)
    ((model(x) - y) ** 2).mean().backward()
    trained = torch.load(job.folder / "epoch-001.pt", weights_only=True)
    for name, parameter in model.named_parameters():
        expected = parameter - 5e-3 * parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(trained[name], expected.detach(), atol=1e-6, rtol=1e-5)


def test_recipes_name_the_tasks_there_are():
    assert set(TASKS) == set(get_args(TaskName))
    assert {protocol.recipe.task for protocol in PROTOCOLS.values()} == set(TASKS)


def test_recipes_leave_later_fields_out_where_they_say_nothing():
    for protocol in PROTOCOLS.values():
        assert Protocol.model_validate_json(protocol.model_dump_json()) == protocol
    assert set(PROTOCOLS["fashion-mlp"].recipe.model_dump()) == {
        "widths",
        "shared_activation",
        "batch_size",
        "momentum",
    }
    assert PROTOCOLS["regression-2d"].recipe.model_dump()["task"] == "regression-2d"
    assert PROTOCOLS["fashion-cnn"].recipe.model_dump()["model"] == "cnn"
