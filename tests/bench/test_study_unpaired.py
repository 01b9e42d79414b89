"""Runs that do not repeat make no pairs; few seeds are said to be few, and diverged runs are never hidden."""

from __future__ import annotations

import json
import statistics

import pytest
from fabricate import Plan, fabricate
from rich.console import Console
from scipy import stats

from softknee import _cli_print
from softknee._bench.leaderboard import read_leaderboard
from softknee._bench.leaderboard_page import leaderboard_page
from softknee._bench.page_costs import cost_table
from softknee._bench.page_tables import cell_table, spread_table
from softknee._bench.study import Study
from softknee._bench.study_findings import warnings
from softknee._bench.suite_files import SuiteFiles
from softknee._bench.suite_page import overview_table, suite_warnings
from softknee._report.table import ABSENT, markdown_table

CUDA = (("device", "cuda"),)
CPU = (("device", "cpu"),)
DIVERGED = (("gelu", 1, "diverged"),)


def made(folder, **options):
    options = {"activations": ("relu", "gelu", "tanh"), "seeds": 4, "epochs": 3, "test_size": 400} | options
    return Study.load(fabricate(folder, Plan(**({"endings": DIVERGED} | options))))


def changed(study, change):
    """Let `change` edit each result; return the study as it then is."""
    for path in study.folder.glob("runs/*/result.json"):
        result = json.loads(path.read_text())
        change(result)
        path.write_text(json.dumps(result))
    return Study.load(study.folder)


def last(study, label, field="test_accuracy"):
    found = [json.loads(path.read_text()) for path in sorted(study.folder.glob("runs/*/result.json"))]
    return [one[field][-1] for one in found if one["activation"] == label and one["status"] == "done"]


def test_without_pairs_a_difference_rests_on_all_runs(tmp_path):
    study = made(tmp_path, specification=CUDA)
    row = study.table[0].row("gelu")
    expected = statistics.fmean(last(study, "gelu")) - statistics.fmean(last(study, "relu"))
    assert row.difference == pytest.approx(expected, abs=1e-4)
    assert (row.done, row.pairs, study.files.paired) == (3, 0, False)
    same_seeds = made(tmp_path / "cpu", specification=CPU).table[0].row("gelu")
    assert same_seeds.pairs == 3
    assert abs(same_seeds.difference - expected) > 0.01


def test_without_pairs_and_examples_it_is_the_test_of_welch(tmp_path):
    study = made(tmp_path, specification=CUDA, activations=("relu", "gelu"))

    def rename(result):
        for name in ("test", "train", "best_test"):
            if f"{name}_accuracy" in result:
                result[f"{name}_r2"] = result.pop(f"{name}_accuracy")

    manifest = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(manifest | {"metric": "r2"}))
    study = changed(study, rename)
    welch = stats.ttest_ind(last(study, "gelu", "test_r2"), last(study, "relu", "test_r2"), equal_var=False)
    row = study.table[0].row("gelu")
    assert row.p == pytest.approx(welch.pvalue)
    interval = welch.confidence_interval(0.95)
    assert (row.difference_low, row.difference_high) == pytest.approx((interval.low, interval.high))


def test_one_run_on_another_device_takes_the_pairs_from_all(tmp_path):
    def move(result):
        if (result["activation"], result["seed"]) == ("tanh", 2):
            result["device"] = "cuda"

    study = changed(made(tmp_path, specification=CPU), move)
    assert study.files.devices == ("cpu", "cuda")
    assert {row.pairs for row in study.table[0].rows} == {0}


@pytest.mark.parametrize(("specification", "word"), [(CUDA, "unpaired"), (CPU, "paired")])
def test_the_words_say_whether_there_are_pairs(tmp_path, specification, word):
    study = made(tmp_path / "study", specification=specification)
    hints = [column.hint for column in cell_table(study.files, study.table[0]).columns]
    assert f"mean {word} difference to relu, percentage points" in hints
    study.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"the {word} difference is" in page
    assert f"{word.capitalize()} differences" in page
    assert ("unpaired" in page) == ("Runs on cuda do not repeat exactly" in page) == (word == "unpaired")
    (section,) = leaderboard_page(read_leaderboard([study.folder]), tmp_path).sections
    assert f"Differences to relu are {word}" in section.lead


def few(study):
    return [text for text in warnings(study.files) if "p value below" in text]


def test_too_few_seeds_are_said_once(tmp_path):
    (said,) = few(made(tmp_path / "few", seeds=5, endings=()))
    assert said.startswith(
        "With 5 seeds an exact Wilcoxon signed-rank test cannot give a p value below 0.0625, or 0.125 "
    )
    assert "it takes 7 seeds" in said
    assert few(made(tmp_path / "enough", seeds=7, endings=())) == []
    assert few(made(tmp_path / "alone", activations=("relu",), endings=())) == []


def test_a_study_is_not_judged_before_its_end(tmp_path):
    assert few(made(tmp_path / "unfinished", endings=(("tanh", 3, "missing"),))) == []
    assert len(few(made(tmp_path / "failed", endings=(("tanh", 3, "failed"),)))) == 1


def test_without_pairs_it_is_the_rank_sum_test_that_cannot(tmp_path):
    (said,) = few(made(tmp_path / "few", seeds=3, endings=(), specification=CUDA))
    assert said.startswith("With 3 seeds an exact Mann-Whitney rank-sum test cannot give a p value below 0.1, or 0.2 ")
    assert "it takes 5 seeds to get below 0.05" in said
    assert few(made(tmp_path / "enough", seeds=5, endings=(), specification=CUDA)) == []


def test_what_holds_for_several_settings_is_said_once(tmp_path):
    studies = [made(tmp_path / name, endings=()) for name in "ab"] + [made(tmp_path / "c")]
    said = suite_warnings(SuiteFiles(tmp_path, {"studies": ["a", "b", "c"]}), studies)
    assert sum("p value below" in text for text in said) == 1
    assert any(text == "MLP on Fashion-MNIST: 1 run diverged: recorded, and left out of every mean." for text in said)


def test_no_table_hides_a_diverged_run(tmp_path, monkeypatch):
    one, four = made(tmp_path / "one"), made(tmp_path / "four", cells=4)
    ranking = cell_table(one.files, one.table[0])
    assert "3 of 4, 1 diverged" in markdown_table(ranking)
    spread = markdown_table(spread_table(four.files, four.table))
    assert spread.count("(1 diverged)") == 4
    assert "(1 diverged)" in markdown_table(overview_table([one]))
    narrow = Console(width=60, record=True)
    monkeypatch.setattr(_cli_print, "console", narrow)
    narrow.print(_cli_print.terminal_table(ranking))
    shown = narrow.export_text()
    assert "diverged" in shown
    assert "Parameters" not in shown


def test_runs_that_were_not_trained_alone_have_no_time_of_a_step(tmp_path):
    study = made(tmp_path, specification=CPU)

    def pack(result, which):
        if result["activation"] in which:
            result["step_seconds"] = None

    part = changed(study, lambda result: pack(result, {"relu"}))
    shown = {row[0].text: [cell.text for cell in row[-2:]] for row in cost_table(part.files, part.table[0]).rows}
    assert shown["relu"] == [ABSENT, ABSENT]
    assert shown["tanh"][0] != ABSENT
    assert shown["tanh"][1] == ABSENT
    every = changed(study, lambda result: pack(result, {"relu", "gelu", "tanh"}))
    titles = [column.title for column in cost_table(every.files, every.table[0]).columns]
    assert titles[-1] == "Activation operations"
    every.to_csv(tmp_path / "results.csv")
    assert "step_seconds" in (tmp_path / "results.csv").read_text()
