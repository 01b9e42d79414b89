"""`softknee diagnose`: finds what is named, prints ten lines, writes a report, and exits as it is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softknee._cli import run
from softknee._diagnose.trial.run import Trainer

PROJECT = """
import torch
from torch import nn

def make_model():
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4))

def deep_model():
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))

def dead_model():
    model = make_model()
    nn.init.constant_(model[0].bias, -1e4)
    return model

def make_loader():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(32, 12, generator=generator), torch.randint(4, (32,), generator=generator)) for _ in range(2)
    ]

class Zoo:
    model = make_model()
    scores = staticmethod(lambda outputs, target: outputs.square().mean())

def broken():
    raise RuntimeError("no weights here")

def vector(outputs, target):
    return outputs.sum(1)

empty = []
number = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a module that is not installed."""
    (tmp_path / "my_project.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    return tmp_path


def arguments(*more, model="my_project:make_model", data="my_project:make_loader"):
    return ["diagnose", model, "--data", data, *more]


def test_it_prints_ten_lines_at_most_and_the_path(project, capsys):
    assert run(arguments("--loss", "cross_entropy")) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) <= 11
    assert lines[-1] == "report: report/report.html"
    assert "1 site and 64 samples" in lines[0]
    stored = json.loads((project / "report" / "report.json").read_text())
    assert stored["data"]["loss"] == "cross_entropy"
    assert (project / "report" / "report.html").read_text().lstrip().startswith("<!doctype html>")


def test_models_loaders_and_losses_may_have_dotted_names(project, capsys):
    assert run(arguments("--loss", "my_project:Zoo.scores", "--level", "full", model="my_project:Zoo.model")) == 0
    stored = json.loads((project / "report" / "report.json").read_text())
    assert stored["method"]["not_measured"] == {}
    assert stored["gradients"]["loss"] > 0


def test_json_is_what_was_written(project, capsys):
    assert run(arguments("--json", "--out", "elsewhere", "--samples", "40", "--seed", "7")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((project / "elsewhere" / "report.json").read_text())
    assert printed["data"]["samples"] == 40
    assert printed["data"]["seed"] == 7


@pytest.mark.parametrize(
    ("model", "limit", "status"),
    [
        ("dead_model", "critical", 1),
        ("dead_model", "warn", 1),
        ("dead_model", "never", 0),
        ("deep_model", "critical", 0),
        ("deep_model", "warn", 1),
        ("make_model", "warn", 0),
    ],
)
def test_findings_decide_on_the_exit_status_if_they_are_to(project, capsys, model, limit, status):
    assert run(arguments("--fail-on", limit, model=f"my_project:{model}")) == status
    assert (project / "report" / "report.html").is_file()


def test_a_silenced_rule_does_not_fail(project, capsys):
    quiet = [part for rule in ("gain-mismatch", "saturated-units") for part in ("--silence", rule)]
    assert run(arguments("--fail-on", "warn", *quiet, model="my_project:deep_model")) == 0
    assert json.loads((project / "report" / "report.json").read_text())["method"]["silenced"] == quiet[1::2]


TRIAL = ("--loss", "cross_entropy", "--level", "trial", "--lr", "0.1", "--budget", "1s")


def test_level_trial_trains_and_says_what_came_out(project, capsys):
    assert run(arguments(*TRIAL)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("Trials: ") for line in lines) == 1
    stored = json.loads((project / "report" / "report.json").read_text())
    assert stored["method"]["not_measured"] == {}
    assert [one["kind"] for one in stored["trials"][:3]] == ["no change", "matched gain", "new seed"]
    assert stored["trials_about"]["verdict"] in "\n".join(lines)
    assert "same activation, matched gain" in (project / "report" / "report.html").read_text()


def test_ctrl_c_ends_trials_and_keeps_the_diagnosis(project, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "__call__", lambda *_: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    assert run(arguments(*TRIAL)) == 0
    assert signal.getsignal(signal.SIGINT) is handler
    stored = json.loads((project / "report" / "report.json").read_text())
    assert stored["trials_about"]["ended"] == "interrupted"
    assert stored["curvature"]


def test_ctrl_c_before_trials_stops_and_writes_nothing(project, capsys, monkeypatch):
    monkeypatch.setattr("softknee._diagnose.flow.signal.signal", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert run(arguments(*TRIAL)) == 130
    assert capsys.readouterr().err == "softknee: stopped\n"
    assert list(project.glob("report/*")) == []


def test_explain_needs_no_model(capsys):
    assert run(["diagnose", "--explain", "dead-units"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("dead-units: dead units\n")
    assert "softknee.calibrate" in printed
    assert run(["diagnose", "--explain", "dead-unit"]) == 2
    assert "did you mean 'dead-units'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["diagnose"], "diagnose takes a model and --data, each as package.module:name"),
        (["diagnose", "my_project:make_model"], "diagnose takes a model and --data"),
        (arguments(model="my_project.make_model"), "the model must be given as package.module:name"),
        (arguments(model="my_project:nothing"), "the model: my_project has no 'nothing'"),
        (arguments(model="no_such:thing"), "the model: importing no_such failed: ModuleNotFoundError"),
        (arguments(model="my_project:broken"), "making the model failed: RuntimeError: no weights here"),
        (arguments(model="my_project:number"), "model must be a torch.nn.Module, got 3"),
        (arguments(data="my_project:broken"), "--data: my_project:broken failed: RuntimeError: no weights here"),
        (arguments(data="my_project:empty"), "the loader is empty"),
        (arguments(data="my_project:number"), "the loader must be an iterable of batches"),
        (arguments("--loss", "cross"), "no loss named 'cross'"),
        (arguments("--loss", "my_project:vector"), "the loss must be one number"),
        (arguments("--loss", "my_project:none"), "--loss: my_project has no 'none'"),
        (arguments("--level", "fast"), "--level"),
        (arguments("--samples", "0"), "samples must be a whole number of at least 1"),
        (arguments("--silence", "dead"), "no rule named 'dead'"),
        (arguments("--level", "trial"), "needs its learning rate"),
        (arguments("--level", "trial", "--lr", "0.1"), "level 'trial' trains the model and needs a loss"),
        (arguments("--lr", "0.1", "--momentum", "1"), "momentum must be at least 0 and under 1, got 1.0"),
        (arguments("--momentum", "0.9"), "momentum is that of SGD at a learning rate; give lr too"),
        (arguments("--budget", "soon"), "budget must be a time in seconds"),
        (arguments("--budget", "5m"), "budget is the time for trials, which level 'quick' has not; ask"),
        (arguments("--history", "none.json"), "none.json"),
        (arguments("--out", "/proc/nowhere"), "/proc/nowhere"),
    ],
)
def test_a_bad_command_line_exits_with_2_and_one_line(project, capsys, given, message):
    assert run(given) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (project / "report").exists()


def test_a_new_process_finds_modules_in_the_current_folder(project):
    done = subprocess.run(
        [sys.executable, "-m", "softknee", *arguments()], capture_output=True, text=True, check=False, cwd=project
    )
    assert done.returncode == 0, done.stderr
    assert Path(project, "report", "report.json").is_file()
