"""`softknee search` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from softknee._cli import run
from softknee._search.page_words import brief

QUICK = ("--method", "random", "--budget", "15", "--seeds", "2", "--epochs", "2")


def arguments(out, *more):
    return ["search", "digits-cnn", *QUICK, "--out", str(out), *more]


def surroundings(**others):
    """Return the environment for other processes, with as many threads as here: sums are rounded by their number."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **others}


def stored(out):
    """Return what a search found, without what differs from one time to another."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in TIMES}
        return [timeless(one) for one in value] if isinstance(value, list) else value

    return timeless(json.loads((out / "result.json").read_text()))


TIMES = {"seconds", "functions", "found", "price", "cost"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    command = [sys.executable, "-m", "softknee", *arguments(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings(COLUMNS="300"))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_prints_the_verdict_the_finals_and_where_the_rest_is(finished):
    out, printed = finished
    found = json.loads((out / "result.json").read_text())
    assert " ".join(found["verdict"].split()) in " ".join(printed.split())
    finalists = [row for row in found["table"] if row["final"]]
    assert len(finalists) >= 2
    assert all(brief(row["name"]) in printed for row in finalists)
    returned = next(row["name"] for row in finalists if row["key"] == found["best"])
    assert f"returned  {returned}\n" in printed
    assert f"{found['cost']['spent']:.1f} of 15 training runs" in printed
    assert found["cost"]["spent"] <= 15
    assert f"report: {out / 'report.html'}" in printed
    assert (out / "report.html").read_text().lstrip().startswith("<!doctype html>")
    compile((out / "best.py").read_text(), "best.py", "exec")


def test_the_same_again_returns_at_once(finished, capsys):
    out, printed = finished
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*.json")}
    start = time.monotonic()
    assert run(arguments(out)) == 0
    assert time.monotonic() - start < 10
    assert capsys.readouterr().out.splitlines()[-3:] == printed.splitlines()[-3:]
    assert len(times) > 20
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*.json")} == times


def test_ctrl_c_leaves_a_search_that_goes_on_to_the_same_result(finished, tmp_path):
    out, _ = finished
    command = [sys.executable, "-m", "softknee", *arguments(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=surroundings()
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*"))) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == "softknee: stopped; the same command goes on where this one stopped\n"
    assert not (tmp_path / "result.json").exists()
    assert run(arguments(tmp_path)) == 0
    assert stored(tmp_path) == stored(out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["digit-cnn"], "no protocol named 'digit-cnn'; did you mean 'digits-cnn'"),
        (["digits-cnn", "--data", "mini"], "digits ships with softknee; leave data out, got 'mini'"),
        (["text-char", "--data", "nowhere"], "no such folder; --data takes a folder with texts"),
        (["digits-cnn", "--method", "gradient"], "no search method named 'gradient'"),
        (["digits-cnn", "--budget", "5"], "a budget of 5 runs is too small for one verification; the smallest"),
        (["digits-cnn", "--seeds", "1"], "seeds must be a whole number from 2"),
        (["digits-cnn", "--epochs", "0"], "epochs must be a whole number"),
        (["digits-cnn", "--space", "all"], "'all' is not one of 'one-core', 'grafs'"),
        (["digits-cnn", "--scope", "layer"], "'layer' is not one of 'all', 'site'"),
        ([], "Missing argument 'protocol'"),
    ],
)
def test_a_bad_request_exits_with_2_and_one_line_and_writes_nothing(changed, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["search", *changed]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("softknee: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not list(tmp_path.iterdir())


def test_another_search_in_the_same_folder_is_refused(finished, capsys):
    out, _ = finished
    before = (out / "result.json").read_text()
    assert run(["search", "digits-cnn", "--out", str(out)]) == 2
    assert str(out) in capsys.readouterr().err
    assert (out / "result.json").read_text() == before
