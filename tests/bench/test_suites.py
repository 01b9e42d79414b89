"""Several protocols under one name: who gets what was asked for, what is written, and what one folder may hold."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from softknee._bench import compare
from softknee._bench.compare import bench
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.study_files import MANIFEST
from softknee._bench.suite import SUITES, Suite
from softknee._bench.suite_files import SUITE, read_suite, write_suite
from softknee._bench.suite_plan import suite_plans
from softknee._bench.suite_study import SuiteStudy
from softknee._cli import run as softknee
from softknee._errors import OptionError, StudyMismatch, UsageError

SMALL = Suite(
    name="small", title="Small", description="For tests.", protocols=("rnn-digits", "gmm-2d"), hidden=("tabular-mlp",)
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(compare, "SUITES", {"small": SMALL})


def run(out, *activations, **options):
    return bench("small", activations, **{"seeds": 1, "epochs": 1, "out": out, "executor": "here", **options})


def planned(suite, folder, *, data=None, final=False, **options):
    """What each protocol is asked for."""

    def asked(name, **given):
        return {"name": name, **given}

    return suite_plans(suite, folder, asked, data=data, final=final, options=options)


def test_every_suite_is_of_protocols_that_there_are():
    for name, suite in SUITES.items():
        assert name == suite.name
        assert {*suite.members(final=True)} <= {*PROTOCOLS}
        assert len(suite.members(final=True)) == len(suite.members(final=False)) + len(suite.hidden)
    assert SUITES["mls"].members(final=False) == ("mls-resnet20-cifar10", "mls-vgg16bn-cifar100")
    assert SUITES["mls"].hidden == ("mls-mobilenetv2-fmnist",)


def test_a_suite_from_the_request_to_the_report_and_the_hidden_protocol_at_the_end(tmp_path, small):
    told = []
    study = run(tmp_path, "relu", "tanh", progress=told.append)
    assert [one.name for one in study.studies] == ["rnn-digits", "gmm-2d"]
    assert {path.name for path in tmp_path.iterdir()} == {"suite.json", "rnn-digits", "gmm-2d"}
    assert (told[-1].done, told[-1].total) == (4, 4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/runs/*/result.json")}
    assert len(before) == 4
    final = run(tmp_path, "relu", final=True)
    assert [one.name for one in final.studies] == ["rnn-digits", "gmm-2d", "tabular-mlp"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(tmp_path.glob("*/runs/*/result.json"))) == 5

    for name, write in (("results.csv", final.to_csv), ("results.md", final.to_markdown), ("r.html", final.to_html)):
        write(tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["protocol"], row["activation"]) for row in rows] == [
        *(("rnn-digits", "relu"), ("rnn-digits", "tanh"), ("gmm-2d", "relu"), ("gmm-2d", "tanh")),
        ("tabular-mlp", "relu"),
    ]
    text = (tmp_path / "results.md").read_text()
    assert [line for line in text.splitlines() if line.startswith(("# ", "## "))] == [
        "# Small",
        *(f"## {PROTOCOLS[name].title}" for name in SMALL.members(final=True)),
    ]
    assert "| # | Activation |" in text
    assert all(PROTOCOLS[name].title in (tmp_path / "r.html").read_text() for name in SMALL.members(final=True))
    assert all((tmp_path / name / "report.html").is_file() for name in SMALL.members(final=True))


def test_an_unfinished_suite_is_reported_as_such(tmp_path, small):
    run(tmp_path, "relu", "tanh", split="dev")
    shutil.rmtree(tmp_path / "gmm-2d")
    part = SuiteStudy.load(tmp_path)
    assert "The suite is unfinished: gmm-2d not begun." in part.summary()
    part.to_html(tmp_path / "part.html")
    part.to_markdown(tmp_path / "part.md")
    page, text = ((tmp_path / name).read_text() for name in ("part.html", "part.md"))
    assert "Dev scores in all settings" in page
    assert "Published figures" not in page + text
    assert "held out" in page
    shutil.rmtree(tmp_path / "rnn-digits")
    with pytest.raises(UsageError, match="no study of the suite in .* has begun"):
        SuiteStudy.load(tmp_path)


def test_the_command_line_renders_a_suite_again(tmp_path, small, capsys):
    run(tmp_path, "relu")
    assert softknee(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Test sets were read 2 times" in printed
    assert f"report: {tmp_path / 'report.html'}" in printed


def test_data_go_to_the_protocols_that_can_be_told(tmp_path):
    plans = planned(SUITES["transfer"], tmp_path, data="full")
    assert {name: plan["data"] for name, plan in plans.items()} == {"digits-cnn": None, "fashion-resnet8": "full"}
    assert plans["digits-cnn"]["out"] == tmp_path / "digits-cnn"
    with pytest.raises(
        UsageError, match="the protocols of small make their data themselves; leave data out, got 'full"
    ):
        planned(SMALL, tmp_path, data="full")


def test_options_go_to_the_protocols_that_have_them(tmp_path):
    plans = planned(SUITES["mls"], tmp_path, final=True, shortcut="padding", head_dropout=0.2)
    assert [plan["options"] for plan in plans.values()] == [{"shortcut": "padding"}, {}, {"head_dropout": 0.2}]
    with pytest.raises(OptionError, match="'shortcuts' is no option of mls; it has normalization, shortcut"):
        planned(SUITES["mls"], tmp_path, shortcuts="padding")
    with pytest.raises(OptionError, match="'head_dropout' is no option of mls"):  # of the hidden protocol alone
        planned(SUITES["mls"], tmp_path, head_dropout=0.2)


def test_without_a_hidden_protocol_there_is_no_final(tmp_path):
    with pytest.raises(UsageError, match="final is for suites with hidden protocols; transfer has none"):
        planned(SUITES["transfer"], tmp_path, final=True)
    with pytest.raises(UsageError, match="final is for suites with hidden protocols, which digits-cnn is not"):
        bench("digits-cnn", ["relu"], out=tmp_path / "out", final=True)
    assert not (tmp_path / "out").exists()


def test_what_one_protocol_cannot_do_stops_the_suite_before_it_begins(tmp_path, small):
    with pytest.raises(OptionError, match="does not fit the model of gmm-2d"):
        run(tmp_path / "out", "prelu[per_channel=32]")  # as many as the first protocol has units
    assert not (tmp_path / "out").exists()


def test_a_folder_is_of_one_suite_and_of_no_single_study(tmp_path):
    write_suite(tmp_path / "suite", SMALL, ["gmm-2d"])
    write_suite(tmp_path / "suite", SMALL, ["rnn-digits"])
    assert read_suite(tmp_path / "suite").manifest["studies"] == ["rnn-digits", "gmm-2d"]
    with pytest.raises(
        StudyMismatch, match="holds another suite: small, asked for transfer; give another folder as out"
    ):
        write_suite(tmp_path / "suite", SUITES["transfer"], [])
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(
        StudyMismatch, match="holds a single study, asked for the suite small; give another folder as out"
    ):
        write_suite(tmp_path, SMALL, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"schema": 1}, "is damaged: it lacks its suite or its studies"),
        ({"schema": 9, "suite": {}, "studies": []}, "has schema 9; this version of softknee reads schema 1"),
    ],
)
def test_a_suite_that_cannot_be_read_says_why(tmp_path, content, message):
    with pytest.raises(UsageError, match=f"no suite in .*: it holds no {SUITE}"):
        read_suite(tmp_path)
    (tmp_path / SUITE).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"{SUITE}' {message}"):
        read_suite(tmp_path)
