from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from softknee._bench.protocols import GROUPS, PROTOCOLS
from softknee._bench.suite import SUITES
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


def test_every_public_name_is_there():
    import softknee

    assert all(getattr(softknee, name) is not None for name in softknee.__all__)
    assert set(softknee.__all__) <= set(dir(softknee))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = softknee.nonsense


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "fashion-mlp", "-a", "gleu"], "no activation named 'gleu'; did you mean"),
        (["bench", "fashion-mpl", "-a", "relu"], "no protocol named 'fashion-mpl'; did you mean 'fashion-mlp'"),
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
        (["bench", "fashion-mlp", "-a", "relu", "--out", "/proc/nowhere"], "/proc/nowhere"),
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


def test_the_help_of_bench_names_all_there_is(capsys):
    assert run(["bench", "--help"]) == 0
    words = set(re.findall(r"[\w-]+", re.sub(r"-\n *", "-", capsys.readouterr().out)))  # lines break at hyphens
    options = {option for protocol in PROTOCOLS.values() for option in protocol.options}
    assert {*PROTOCOLS, *SUITES, *GROUPS, *options} - words == set()


def test_list_and_show(capsys, tmp_path):
    assert run(["list"]) == 0
    assert "hardswish" in capsys.readouterr().out
    assert run(["show", "swish[beta=1.5]"]) == 0
    printed = capsys.readouterr().out
    assert "exp(-beta * x)" in printed
    assert "1.5" in printed
    assert run(["show", "x*tanh(exp(x))", "--plot", str(tmp_path / "curve.svg")]) == 0
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("sent", "status", "jobs"), [(signal.SIGTERM, 75, 2), (signal.SIGINT, 130, 1), (signal.SIGHUP, 129, 1)]
)
def test_signals_leave_no_child_and_a_study_that_goes_on(tmp_path, sent, status, jobs):
    arguments = bench_arguments(tmp_path, "--epochs", "60", "--jobs", jobs)
    process = subprocess.Popen(softknee(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = children_of(process.pid)
    assert children
    process.send_signal(sent)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == status
    assert "goes on where this one stopped" in complaint
    assert not any(is_running(child) for child in children)
    assert json.loads((tmp_path / "study.json").read_text())["epochs"] == 60
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))
    assert not list(tmp_path.glob("runs/*/result.json"))


def test_workers_end_by_themselves_when_their_parent_is_killed(tmp_path):
    arguments = bench_arguments(tmp_path, "--epochs", "200")
    process = subprocess.Popen(softknee(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = children_of(process.pid)
    process.kill()
    process.wait()
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(child) for child in children)
    assert not list(tmp_path.glob("runs/*/result.json"))


def children_of(pid):
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()[1:]]
    return [child for child, parent in pairs if parent == pid]


def is_running(pid):
    listing = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(listing.strip()) and not listing.strip().startswith("Z")


def test_a_failed_run_makes_the_exit_status_1(tmp_path):
    """The formula has no forward gain, so its matched runs fail; everything else is finished and reported."""
    arguments = ["bench", "fashion-mlp-fair", "-a", "0*x", "--seeds", "1", "--epochs", "1", "--out", str(tmp_path)]
    done = subprocess.run(softknee(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "failed" in done.stdout
    assert (tmp_path / "report.html").is_file()


def test_options_survive_in_narrow_tables(finished, monkeypatch):
    out, _ = finished
    narrow = subprocess.run(
        softknee("report", out), capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert "…" not in narrow.stdout


@pytest.mark.parametrize(
    ("missing", "program"),
    [("typer", "from softknee.__main__ import main; main()"), ("pydantic", "import softknee; softknee.bench")],
)
def test_a_missing_extra_is_named(missing, program):
    program = f"import sys; sys.modules[{missing!r}] = None; {program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{missing} is not installed; `pip install 'softknee[bench]'` brings it" in done.stderr


def test_source_prints_what_looks_at_several_elements_too(capsys):
    for name, title in (("geglu", "GEGLU"), ("sparsemax", "Sparsemax"), ("frelu", "FReLU")):
        assert run(["source", name]) == 0
        assert f"class {title}(nn.Module)" in capsys.readouterr().out
    assert run(["source", "geglue"]) == 2
    assert "no activation named 'geglue'; did you mean" in capsys.readouterr().err
