from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from softknee._cli import run


def bench_arguments(out, *more):
    return ["bench", "fashion-mlp", "-a", "relu", "-a", "identity", "--seeds", "1", "--out", str(out), *more]


def softknee(*arguments):
    return [sys.executable, "-m", "softknee", *map(str, arguments)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study, made as a user makes it."""
    out = tmp_path_factory.mktemp("study")
    done = subprocess.run(softknee(*bench_arguments(out, "--epochs", "1")), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_bench_prints_the_table_and_writes_three_files(finished):
    out, printed = finished
    assert "relu" in printed
    assert "identity" in printed
    assert str(out / "report.html") in printed.replace("\n", "")
    assert {"report.html", "results.csv", "results.md", "study.json", "runs"} == {path.name for path in out.iterdir()}


def test_report_renders_again_without_torch(finished, tmp_path):
    out, _ = finished
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    program = (
        "import sys; sys.modules['torch'] = None; from softknee._cli import run; "
        f"status = run(['report', {str(out)!r}]); "
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").read_text() == page


def test_importing_softknee_loads_next_to_nothing():
    program = "import sys, softknee; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'pydantic', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "fashion-mlp", "-a", "gleu"], "no activation named 'gleu'; did you mean"),
        (["bench", "fashion", "-a", "relu"], "no protocol named 'fashion'; did you mean 'fashion-mlp'"),
        (["bench", "fashion-mlp", "-a", "relu", "--seeds", "0"], "seeds must be an integer of at least 1, got 0"),
        (["bench", "fashion-mlp", "-a", "relu", "--seeds", "many"], "--seeds"),
        (["bench", "fashion-mlp"], "Missing option"),
        (["bench", "fashion-mlp", "-a", "x*tanh("], "this is no formula"),
        (["bench", "fashion-mlp", "-a", "relu", "--data", "/nowhere"], "/nowhere: no such folder"),
        (["bench", "fashion-mlp", "-a", "relu", "--save-epochs", "a"], "--save-epochs takes whole numbers"),
        (["report", "/nowhere"], "/nowhere"),
        (["show", "gleu"], "did you mean"),
        (["list", "--family", "nonsense"], "nonsense"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_bad_command_line_exits_with_2_and_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("softknee: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_list_and_show(capsys, tmp_path):
    assert run(["list"]) == 0
    assert "hardswish" in capsys.readouterr().out
    assert run(["show", "swish[beta=1.5]"]) == 0
    printed = capsys.readouterr().out
    assert "exp(-beta * x)" in printed
    assert "1.5" in printed
    assert run(["show", "x*tanh(exp(x))", "--plot", str(tmp_path / "curve.svg")]) == 0
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_leave_no_child_and_a_study_that_goes_on(tmp_path, sent, status):
    arguments = bench_arguments(tmp_path, "--epochs", "60")
    process = subprocess.Popen(softknee(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(sent)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == status
    assert "goes on where this one stopped" in complaint
    assert not children_of(process.pid)
    assert json.loads((tmp_path / "study.json").read_text())["epochs"] == 60
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))


def children_of(pid):
    """Workers whose command line names softknee's worker and whose session was started by `pid`'s children."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if "softknee._bench.worker" in line and f" {pid} " in line]


@pytest.mark.parametrize(
    ("missing", "program"),
    [("typer", "from softknee.__main__ import main; main()"), ("pydantic", "import softknee; softknee.bench")],
)
def test_a_missing_extra_is_named(missing, program):
    program = f"import sys; sys.modules[{missing!r}] = None; {program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{missing} is not installed; `pip install 'softknee[bench]'` brings it" in done.stderr
