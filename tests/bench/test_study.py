"""A fabricated study, read back: the numbers against plain arithmetic on the files."""

from __future__ import annotations

import base64
import csv
import html
import json
import statistics
import subprocess
import sys

import numpy as np
import pytest
from fabricate import HOSTILE, SKILLS, Plan, fabricate
from scipy import stats

from softknee._bench.page_costs import cost_table
from softknee._bench.study import Study
from softknee._errors import UsageError
from softknee._report.table import ABSENT
from softknee._statistics.intervals import paired_difference


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study.load(fabricate(tmp_path_factory.mktemp("study"), Plan(seeds=4)))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return Study.load(fabricate(tmp_path_factory.mktemp("four"), Plan(cells=4)))


def results(study, label):
    found = [json.loads(path.read_text()) for path in sorted(study.files.folder.glob("runs/*/result.json"))]
    return [one for one in found if one["activation"] == label and one["split"] == "test"]


def test_a_row_says_what_the_files_say(study):
    row = study.table[0].row("prelu")
    accuracies = [one["test_accuracy"][-1] for one in results(study, "prelu")]
    assert row.mean == pytest.approx(statistics.fmean(accuracies))
    assert row.sd == pytest.approx(statistics.stdev(accuracies))
    assert row.best_mean == pytest.approx(
        statistics.fmean(max(one["test_accuracy"]) for one in results(study, "prelu"))
    )
    assert row.low < row.mean < row.high
    assert (row.parameters, row.activation_parameters, row.learning_rates) == (307_178, 0, (0.001,))
    assert (row.done, row.diverged, row.failed, row.missing, row.pairs) == (4, 0, 0, 0, 4)


def test_differences_are_paired_by_seed_over_the_runs_both_finished(study):
    row = study.table[0].row("gelu")  # its seed 1 diverged
    last = {
        label: {one["seed"]: one["test_accuracy"][-1] for one in results(study, label) if one["status"] == "done"}
        for label in ("gelu", "relu")
    }
    shared = [last["gelu"][seed] - last["relu"][seed] for seed in (0, 2, 3)]
    assert (row.done, row.diverged, row.pairs) == (3, 1, 3)
    assert row.difference == pytest.approx(statistics.fmean(shared), abs=1e-4)


def test_intervals_are_at_least_as_wide_as_the_seeds_alone_make_them(study):
    for row in study.table[0].rows:
        from_seeds = stats.t.ppf(0.975, row.done - 1) * row.sd / np.sqrt(row.done)
        assert (row.high - row.low) / 2 >= from_seeds - 1e-3


def test_runs_that_did_not_finish_are_counted_and_never_averaged(study):
    counts = {row.activation: (row.done, row.diverged, row.failed, row.missing) for row in study.table[0].rows}
    assert counts["mish"] == (3, 0, 1, 0)
    assert counts["silu"] == (3, 0, 0, 1)
    assert counts["rrelu"] == (3, 0, 1, 0)
    assert counts["relu"] == (4, 0, 0, 0)


def test_ranks_follow_the_last_epoch(study):
    rows = study.table[0].rows
    assert [row.rank for row in rows] == list(range(1, len(SKILLS) + 1))
    assert [row.mean for row in rows] == sorted((row.mean for row in rows), reverse=True)


def test_verdicts_of_clear_cases(study):
    verdicts = {row.activation: row.verdict for row in study.table[0].rows}
    assert verdicts["relu"] == "reference"
    assert verdicts["sigmoid"] == "worse"
    assert verdicts["trainable_elu"] == "better"
    assert verdicts["leaky_relu"] == "undecided"


def answers(study, label, seeds):
    """Which test examples the runs got right, unpacked without the library: `(seeds, examples)` of 0 and 100."""
    packed = {one["seed"]: base64.b64decode(one["correct"]) for one in results(study, label) if one["status"] == "done"}
    bits = ["".join(f"{byte:08b}" for byte in packed[seed])[:1000] for seed in seeds]
    return 100.0 * np.array([[int(bit) for bit in row] for row in bits])


def test_p_values_are_those_of_the_answers_adjusted_over_the_condition(study):
    finished = {row.activation: {0, 1, 2, 3} for row in study.table[0].rows if row.verdict != "reference"}
    for label, seed in (("gelu", 1), ("mish", 2), ("silu", 0), ("rrelu", 1)):
        finished[label].remove(seed)
    raw = {
        label: paired_difference(answers(study, label, seeds), answers(study, "relu", seeds), margin=0.5)
        for label, seeds in finished.items()
    }
    for field in ("p", "p_equivalence"):
        adjusted, worst = {}, 0.0
        for place, label in enumerate(sorted(raw, key=lambda name: getattr(raw[name], field))):
            worst = max(worst, min(1.0, (len(raw) - place) * getattr(raw[label], field)))
            adjusted[label] = worst
        shown = {row.activation: getattr(row, field) for row in study.table[0].rows if row.verdict != "reference"}
        assert shown == pytest.approx(adjusted)


def test_an_alias_of_the_reference_is_equivalent_and_two_seeds_are_too_few(tmp_path):
    plan = Plan(activations=("relu", "tanh"), endings=(("tanh", 2, "missing"),))
    folder = fabricate(tmp_path, plan)
    assert Study.load(folder).table[0].row("tanh").verdict == "too few seeds"
    manifest = json.loads((folder / "study.json").read_text())
    manifest["activations"] = ["relu", "twin"]
    manifest["runs"] = [run for run in manifest["runs"] if run["activation"] == "relu"]
    manifest["runs"] += [{**run, "activation": "twin"} for run in manifest["runs"]]
    (folder / "study.json").write_text(json.dumps(manifest))
    assert Study.load(folder).table[0].row("twin").verdict == "equivalent"


def test_spreads_come_with_and_without_those_that_have_no_valid_match(four):
    for table in four.table:
        means = {row.activation: row.mean for row in table.rows}
        assert table.spread.points == pytest.approx(max(means.values()) - min(means.values()))
        assert table.spread.lowest == "sigmoid"
        without = [mean for label, mean in means.items() if label != "sigmoid"]
        assert table.spread_matched.points == pytest.approx(max(without) - min(without))


def test_spreads_compare_the_same_activations_under_every_condition(tmp_path):
    folder = fabricate(tmp_path, Plan(activations=("relu", "tanh", "silu", "gelu"), cells=4, endings=()))
    manifest = json.loads((folder / "study.json").read_text())
    for run in manifest["runs"]:
        if run["cell"] == "matched-tuned" and run["activation"] == "silu":
            (folder / "runs" / run["key"] / "result.json").unlink()
    assert [table.spread.count for table in Study.load(folder).table] == [3, 3, 3, 3]
    assert all("silu" not in {table.spread.highest, table.spread.lowest} for table in Study.load(folder).table)


def test_csv_has_a_row_for_every_run(four, tmp_path):
    four.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(four.files.runs) + len(four.files.tuning_runs) == 15 * 4 * 3 + 15 * 2 * 5
    done = [row for row in rows if row["cell"] == "default-given" and row["activation"] == HOSTILE]
    expected = [one["test_accuracy"][-1] for one in results(four, HOSTILE) if one["key"].startswith("0")]
    assert [float(row["test_accuracy"]) for row in done] == expected
    assert {row["status"] for row in rows} == {"done", "diverged", "failed", "lost", "missing"}
    assert {row["split"] for row in rows if not row["cell"]} == {"validation"}


def test_markdown_tables_have_as_many_cells_as_heads(four, tmp_path):
    four.to_markdown(tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 6
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert f"`{HOSTILE}`" in text


def test_a_notebook_shows_the_finding_and_escapes_names(study):
    shown = study._repr_html_()
    assert html.escape(study.summary().split(".")[0]) in shown
    assert "<img" not in shown


def test_a_study_without_any_result_can_be_reported(tmp_path):
    every = tuple((label, seed, "missing") for label in ("relu", "tanh") for seed in range(3))
    empty = Study.load(fabricate(tmp_path / "empty", Plan(activations=("relu", "tanh"), endings=every)))
    assert empty.summary().startswith("No run has finished yet")
    empty.to_html(tmp_path / "report.html")
    empty.to_csv(tmp_path / "results.csv")
    empty.to_markdown(tmp_path / "results.md")
    assert "6 of 6 runs still missing" in (tmp_path / "report.html").read_text()


def test_an_unfinished_fair_study_can_be_reported_before_tuning_is_over(tmp_path):
    folder = fabricate(tmp_path / "study", Plan(activations=("relu", "tanh"), cells=4))
    manifest = json.loads((folder / "study.json").read_text())
    for search in manifest["tuning"]:
        search.update(chosen=None, trials=[], at_edge=False)
    manifest["runs"] = [run for run in manifest["runs"] if run["cell"].endswith("given")]
    (folder / "study.json").write_text(json.dumps(manifest))
    early = Study.load(folder)
    early.to_html(tmp_path / "report.html")
    assert [table.row("relu").done for table in early.table] == [3, 3, 0, 0]


def test_no_study_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(UsageError, match=r"no study in '.*nowhere': it holds no study.json; give the output folder"):
        Study.load(tmp_path / "nowhere")


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    folder = fabricate(tmp_path, Plan(activations=("relu",), endings=()))
    (folder / "runs" / "00000" / "result.json").write_text('{"schema": 1, ')
    with pytest.raises(UsageError, match=r"00000/result.json' is damaged .*; delete it and run the study again"):
        Study.load(folder)
    (folder / "runs" / "00000" / "result.json").write_text('{"schema": 9}')
    with pytest.raises(UsageError, match=r"has schema 9; this version of softknee reads schema 1"):
        Study.load(folder)


def test_reporting_imports_no_torch(study):
    program = (
        "import sys; from softknee._bench.study import Study; "
        f"Study.load({str(study.files.folder)!r}).summary(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_study_from_before_there_were_other_metrics_is_about_accuracy(study, tmp_path):
    """Fabricated ones name no metric, and have neither pictures nor times of steps."""
    assert not {"metric", "picture"} & set(study.files.manifest)
    assert (study.files.metric.name, study.files.margin) == ("accuracy", 0.5)
    study.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "10,000 training and 1,000 test examples" in page
    assert 'id="pictures"' not in page
    costs = cost_table(study.files, study.table[0])
    (relu,) = (row for row in costs.rows if row[0].text == "relu")
    assert [cell.text for cell in relu[1:]] == ["307,178", "0", "306,560", ABSENT, ABSENT]
