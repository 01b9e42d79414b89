"""A file that defines an activation, from the request to the report."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re

import pytest
from submissions import LAZY, write
from test_compare import stored

from softknee import _cli_print
from softknee._bench import plan
from softknee._bench.compare import bench
from softknee._bench.metric import METRICS
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.runs import CHECKPOINT
from softknee._bench.submission import Submission, parse_entry
from softknee._bench.submission_check import Checked
from softknee._bench.submission_run import LOG, log_lines
from softknee._catalogue import parse_choice
from softknee._cli import run as softknee
from softknee._errors import OptionError, SoftkneeError, UsageError

ACCURACY = METRICS["accuracy"]


@pytest.fixture
def unchecked(monkeypatch):
    """Spares the check's process where something else is tested."""
    monkeypatch.setattr(plan, "check_submission", lambda protocol, submission, gigabytes: Checked(protocol.name))


def run(out, *files, others=("relu",), **options):
    asked = [*(f"submission:{file}" for file in files), *others]
    return bench("digits-cnn", asked, **{"seeds": 1, "epochs": 1, "out": out, "executor": "here", **options})


def result_of(out, label):
    (found,) = (one for one in stored(out).values() if one["activation"] == label)
    return found


def log_of(out, result):
    return (out / "runs" / result["key"] / LOG).read_text().splitlines()


def test_a_submission_is_known_by_its_content(tmp_path):
    one = write(tmp_path, name="my act (1)")
    found = parse_entry(f"submission:{one}", tmp_path)
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert found.label == f"submission:my_act__1_@{digest[:8]}"
    assert found.definition == f"sha256:{digest}"
    with pytest.raises(
        UsageError, match=f"{found.label} is not in .*, which should hold it as submission-{digest[:8]}.py"
    ):
        parse_entry(found.label, tmp_path / "study")
    found.keep(tmp_path / "study")
    assert parse_entry(found.label, tmp_path / "study") == found
    (tmp_path / "study" / f"submission-{digest[:8]}.py").write_text("import this")
    with pytest.raises(UsageError, match=f"was changed: its checksum begins with .*, not with {digest[:8]}"):
        parse_entry(found.label, tmp_path / "study")
    assert parse_entry("gelu", tmp_path) == parse_choice("gelu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("submission:nowhere.py", "nowhere.py: no such file; a submission is one that defines CustomActivation"),
        ("submission:mine.txt", "a file whose name ends in .py, got 'mine.txt'"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        bench("digits-cnn", [text], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_trains_late_parameters_beside_the_baselines_and_runs_the_file_elsewhere(tmp_path):
    pids = tmp_path / "pids"
    top = f"with open({str(pids)!r}, 'a') as file:\n    print(os.getpid(), file=file)\nprint('noise')"
    study = run(tmp_path / "out", write(tmp_path, **LAZY, top=top), epochs=10)
    assert str(os.getpid()) not in pids.read_text().split()
    assert len(set(pids.read_text().split())) == 2  # of the check, and of the run
    label, reference = study.files.activations
    result = result_of(tmp_path / "out", label)
    assert (result["status"], reference) == ("done", "relu")
    assert result["counts"]["activation_parameters"] == 16 + 32 + 2
    slopes = result["trajectories"]["activation_1.slope"]["values"]
    assert slopes[0] == pytest.approx([0.1] * 32)
    assert max(abs(after - before) for before, after in zip(slopes[0], slopes[-1], strict=True)) > 1e-4
    assert result["test_accuracy"][-1] > 80
    assert log_of(tmp_path / "out", result)[-2:] == [
        f"epoch=10 test_acc={result['test_accuracy'][9]:.2f}",
        f"TEST_METRICS: test_acc={max(result['test_accuracy']):.2f}",
    ]
    study.to_html(tmp_path / "report.html")
    assert label in (tmp_path / "report.html").read_text()


def test_relu_as_a_file_gives_relus_numbers(tmp_path, unchecked):
    """Weights, batches and noise are paired as those of any other activation."""
    study = run(tmp_path, write(tmp_path), epochs=2)
    mine, relu = (result_of(tmp_path, label) for label in study.files.activations)
    assert mine["train_loss"] == pytest.approx(relu["train_loss"], rel=1e-5)
    assert mine["test_accuracy"] == pytest.approx(relu["test_accuracy"], abs=0.21)


def test_an_edited_file_is_another_activation_and_the_first_stays(tmp_path, unchecked):
    out = tmp_path / "out"
    run(out, write(tmp_path), others=())
    (first,) = json.loads((out / "study.json").read_text())["activations"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    study = run(out, write(tmp_path, "return torch.tanh(x)"), others=())
    assert study.files.activations[0] == first
    assert len(study.files.activations) == len(list(out.glob("submission-*.py"))) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_run_that_fails_is_told_and_the_others_are_done(tmp_path, unchecked):
    """The check, which evaluates no thousand examples, does not find it."""
    study = run(tmp_path, write(tmp_path, "if len(x) > 100:\n    os._exit(7)\nreturn x"), write(tmp_path, name="good"))
    bad, good, relu = (result_of(tmp_path, label) for label in study.files.activations)
    assert [one["status"] for one in (bad, good, relu)] == ["failed", "done", "done"]
    assert bad["error"]["message"] == "it ended its process with status 7"
    assert log_of(tmp_path, bad) == ["failed: SubmissionStopped: it ended its process with status 7"]


def test_a_full_disk_is_no_fault_of_the_submission(tmp_path, unchecked):
    body = f"if len(x) > 100:\n    raise OSError({errno.ENOSPC}, 'No space left on device', 'checkpoint.pt')\nreturn x"
    with pytest.raises(SoftkneeError, match="cannot write in .*: No space left on device; what is finished is kept"):
        run(tmp_path / "out", write(tmp_path, body))
    assert not list((tmp_path / "out").glob("runs/*/result.json"))


def test_an_epoch_that_takes_too_long_is_stopped(tmp_path, unchecked):
    path = write(tmp_path, "if len(x) > 100:\n    time.sleep(600)\nreturn x")
    study = run(tmp_path, path, others=(), time_limit=0.05)
    assert result_of(tmp_path, *study.files.activations)["error"]["message"] == "it took longer than 3 seconds"


def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, unchecked):
    def interrupt(progress):
        if progress.done == 1:
            raise KeyboardInterrupt

    path = write(tmp_path, **LAZY)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", path, others=(), epochs=2, progress=interrupt)
    assert len(list(tmp_path.glob(f"cut/runs/*/{CHECKPOINT}"))) == 1
    label = run(tmp_path / "cut", path, others=(), epochs=2).files.activations[0]
    run(tmp_path / "whole", path, others=(), epochs=2)
    cut, whole = (result_of(tmp_path / name, label) for name in ("cut", "whole"))
    assert cut["train_loss"] == whole["train_loss"]
    assert cut["trajectories"] == whole["trajectories"]


@pytest.mark.parametrize("limit", ["time_limit", "memory_limit"])
def test_limits_are_positive(tmp_path, limit):
    with pytest.raises(UsageError, match=f"{limit} must be a positive number, got 0"):
        run(tmp_path / "out", write(tmp_path), **{limit: 0})
    assert not (tmp_path / "out").exists()


def test_a_study_that_matches_gains_takes_none(tmp_path):
    with pytest.raises(OptionError, match="failed the checks of fashion-mlp-fair: nobody knows its gain"):
        bench("fashion-mlp-fair", [f"submission:{write(tmp_path)}"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_budget_holds_for_everything(tmp_path, monkeypatch):
    small = PROTOCOLS["digits-cnn"].model_copy(update={"budget": 1.005})  # 6,090 parameters: 30 may come
    monkeypatch.setattr(plan, "get_protocol", lambda name: small)
    counts = (
        "the model has 6,138 parameters with it, 48 of them the activations', and the budget of this protocol is 6,120"
    )
    with pytest.raises(OptionError, match=f"prelu.per_channel. is too large for digits-cnn: {counts}"):
        run(tmp_path / "out", others=("prelu[per_channel]",))
    with pytest.raises(
        OptionError, match="mine@.* failed the checks of digits-cnn: the model has 6,140 parameters .* 50 of"
    ):
        run(tmp_path / "out", write(tmp_path, **LAZY))
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", others=("prelu",))


def test_the_log_is_that_of_the_public_harness():
    """Lines are as in a published excerpt, whose last epoch had 92.65 and whose last line 92.67."""
    scores = [90.0] * 200
    scores[179], scores[193], scores[199] = 92.14, 92.67, 92.65
    result = {"status": "done", "test_accuracy": scores, "counts": None}
    lines = log_lines(result, ACCURACY, "test")
    assert len(lines) == 20 + 1
    assert lines[17] == "epoch=180 test_acc=92.14"
    assert lines[19:] == ["epoch=200 test_acc=92.65", "TEST_METRICS: test_acc=92.67"]
    assert log_lines(result, ACCURACY, "validation")[-1] == "DEV_METRICS: dev_acc=92.67"
    assert log_lines({**result, "status": "diverged"}, ACCURACY, "test")[-1] == "diverged"


def test_the_command_line_compares_with_relu_and_counts_what_it_read(tmp_path, capsys):
    arguments = ["bench", "digits-cnn", "--submission", str(write(tmp_path)), "--seeds", "1", "--epochs", "1"]
    assert softknee([*arguments, "--out", str(tmp_path / "out"), "--executor", "here"]) == 0
    printed = capsys.readouterr().out
    label, reference = json.loads((tmp_path / "out" / "study.json").read_text())["activations"]
    first, second, *_ = printed.splitlines()
    assert first == f"{label} under digits-cnn, seed 0:"
    assert re.fullmatch(r"TEST_METRICS: test_acc=\d+\.\d\d", second)
    assert "Test sets were read 2 times" in printed
    assert reference == "relu"


def test_the_command_line_says_in_a_line_how_runs_went_wrong(tmp_path, capsys, unchecked):
    file = write(tmp_path, "if len(x) > 100:\n    raise ValueError('[red]no[/red]\\nand no')\nreturn x")
    arguments = ["bench", "digits-cnn", "--submission", str(file), "--seeds", "1", "--epochs", "1"]
    assert softknee([*arguments, "--out", str(tmp_path / "out"), "--executor", "here"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"submission:mine@\w{8} under digits-cnn, seed 0: failed: ValueError: \[red\]no\[/red\]", first)
    assert not second


def test_check_only_prints_counts_and_exits_with_2_where_a_check_fails(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "digits-cnn", "--check-only", "--submission"]
    assert softknee([*arguments, str(write(tmp_path, **LAZY))]) == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("digits-cnn"))
    assert row == ["digits-cnn", "2", "6,140", "50", "48", "–", "passed"]
    assert softknee([*arguments, str(write(tmp_path, "return x[:1]"))]) == 2
    assert "digits-cnn: at activation_0 it changed the shape" in capsys.readouterr().out
    assert softknee(["bench", "digits-cnn", "-a", "relu", "--check-only"]) == 2
    assert "give its file as --submission" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.slow
def test_check_only_counts_the_public_settings(tmp_path, capsys, monkeypatch):
    """The budgets are those published, and leave 19, 158 and 7 parameters for each channel."""
    monkeypatch.setattr(_cli_print.console, "_width", 120)
    arguments = ["bench", "mls", "--check-only", "--submission"]
    assert softknee([*arguments, str(write(tmp_path, **LAZY))]) == 0
    rows = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("mls-")]
    assert [row[0] for row in rows] == ["19", "14", "35"]
    assert [row[4] for row in rows] == ["286,097", "15,784,511", "2,348,516"]
    assert [row[3] for row in rows] == ["688", "4,736", "15,552"]
    counts = [[int(cell.replace(",", "")) for cell in row[:5]] for row in rows]
    assert [(budget - parameters + own) // late for _, parameters, own, late, budget in counts] == [19, 158, 7]


def test_submissions_differ_by_name_too(tmp_path):
    one, two = (parse_entry(f"submission:{write(tmp_path, name=name)}", tmp_path) for name in ("one", "two"))
    assert isinstance(one, Submission)
    assert one != two
    assert one.digest == two.digest
