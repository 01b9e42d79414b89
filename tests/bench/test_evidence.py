"""What the seeds of a fabricated study can bear, against plain arithmetic on its files."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from fabricate import Plan, fabricate
from scipy import stats

from softknee._bench.leaderboard import read_leaderboard
from softknee._bench.leaderboard_files import write_leaderboard
from softknee._bench.page import study_page
from softknee._bench.page_evidence import evidence_blocks
from softknee._bench.study import Study
from softknee._bench.study_evidence import build_evidence
from softknee._report.page import render_page
from softknee._statistics.power import power

NAMES = ("relu", "gelu", "prelu", "tanh", "mish", "silu")
ENDINGS = (("gelu", 1, "diverged"), ("mish", 2, "failed"), ("silu", 0, "missing"))


def made(folder, **options):
    options = {"activations": NAMES, "seeds": 5, "epochs": 3, "test_size": 400, "endings": ENDINGS} | options
    return Study.load(fabricate(folder, Plan(**options)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made(tmp_path_factory.mktemp("study"), test_size=4000)


def evidence(study, label):
    (found,) = study.evidence
    return next(row for row in found.rows if row.activation == label)


def scores(study, label):
    """Last test accuracy by seed; minus infinity where the run diverged."""
    found = [json.loads(path.read_text()) for path in sorted(study.folder.glob("runs/*/result.json"))]
    ended = [one for one in found if one["activation"] == label and one["status"] in {"done", "diverged"}]
    return {one["seed"]: one["test_accuracy"][-1] if one["status"] == "done" else -inf for one in ended}


def note(study):
    (_, note) = evidence_blocks(study.files, study.evidence[0])
    return note.text


@pytest.mark.parametrize("label", NAMES[1:])
def test_the_probability_of_improvement_is_that_of_mann_and_whitney(study, label):
    own, other = (list(scores(study, name).values()) for name in (label, "relu"))
    found = evidence(study, label).improvement
    expected = stats.mannwhitneyu(own, other).statistic / (len(own) * len(other))
    assert found.probability == pytest.approx(expected)
    assert found.low <= found.probability <= found.high


def test_the_seeds_needed_have_the_power_that_is_promised(study):
    own, other = scores(study, "mish"), scores(study, "relu")
    needed = evidence(study, "mish").needed
    assert needed.sd == pytest.approx(statistics.stdev([own[seed] - other[seed] for seed in own]), rel=1e-3)
    found = [
        power(study.files.margin, seeds=seeds, sd=needed.sd, paired=True, example_error=needed.example_error)
        for seeds in (needed.seeds - 1, needed.seeds)
    ]
    assert found[0] < 0.8 <= found[1]
    assert needed.cautious > needed.seeds


def test_resampling_gives_an_interval_of_its_own_where_seeds_are_few(study, tmp_path):
    (table,) = study.table
    for label in ("prelu", "tanh"):
        found, row = evidence(study, label).resampled, table.row(label)
        assert found.mean == pytest.approx(row.difference, abs=1e-4)
        width = row.difference_high - row.difference_low
        assert 0.4 * width < found.high - found.low < 1.6 * width
    many = made(tmp_path, activations=("relu", "prelu"), seeds=21, endings=(), test_size=100)
    assert evidence(many, "prelu").resampled is None
    assert evidence(many, "prelu").needed is not None
    (blocks, _) = evidence_blocks(many.files, many.evidence[0])
    assert [column.title for column in blocks.columns if "resampled" in column.title] == []


def test_an_interval_without_ends_is_said_and_the_page_written(study):
    (cell,) = study.evidence
    rows = [replace(row, resampled=row.resampled and replace(row.resampled, low=-inf)) for row in cell.rows]
    endless = replace(cell, rows=tuple(rows))
    (table, _) = evidence_blocks(study.files, endless)
    (row,) = (row for row in table.rows if row[0].text == "prelu")
    assert row[3].text == "no ends"
    assert '"low":null' in render_page(study_page(study.files, study.table, [endless]))


def test_too_few_test_examples_are_said_in_words(tmp_path):
    few = made(tmp_path, test_size=100)
    assert evidence(few, "prelu").needed.seeds is None
    (table, _) = evidence_blocks(few.files, few.evidence[0])
    (row,) = (row for row in table.rows if row[0].text == "prelu")
    assert row[4].text == "too few test examples"
    assert "no number of seeds finds less than" in row[4].hint


def test_the_ranking_drawn_anew_is_that_of_drawn_means(study):
    """By drawing seeds here; two of 20,000 draws each differ by less than 0.02."""
    (found,) = study.evidence
    labels = [row.activation for row in found.rows if row.first is not None]
    values = np.array([[scores(study, label)[seed] for seed in range(5)] for label in labels])
    assert labels == ["prelu", "tanh", "relu", "gelu"]
    drawn = np.random.default_rng(1).integers(5, size=(20_000, 5))
    means = values[:, drawn].mean(axis=2)
    first = [np.mean(means.argmax(axis=0) == place) for place in range(len(labels))]
    assert [row.first for row in found.rows[: len(labels)]] == pytest.approx(first, abs=0.03)
    above = (means[1:] > means[:-1]).mean(axis=1) + 0.5 * (means[1:] == means[:-1]).mean(axis=1)
    assert [row.overtaken for row in found.rows[: len(labels) - 1]] == pytest.approx(above, abs=0.03)
    assert found.rows[len(labels) - 1].overtaken is None


def test_a_diverged_run_loses_and_what_failed_or_is_missing_is_left_out(study):
    (found,) = study.evidence
    assert (found.diverged, found.left_out) == (("gelu",), ("mish", "silu"))
    assert [row.activation for row in found.rows][-3:] == ["gelu", "mish", "silu"]
    assert "Last in it, because a run that diverged loses against every other: gelu." in note(study)
    assert "Not in it, because runs failed or are missing: mish and silu." in note(study)


def test_an_activation_that_always_diverges_never_improves(tmp_path):
    endings = tuple(("gelu", seed, "diverged") for seed in range(5))
    found = evidence(made(tmp_path, endings=endings), "gelu")
    assert (found.improvement.probability, found.first, found.needed) == (0.0, 0.0, None)


def test_where_nearly_all_diverged_there_is_no_ranking(tmp_path):
    endings = tuple((label, seed, "diverged") for seed, label in enumerate(NAMES[1:]))
    study = made(tmp_path, endings=endings)
    (found,) = study.evidence
    assert (found.halves, found.seeds, [row.activation for row in found.rows]) == (None, 0, study.table[0].order)
    assert {row.first for row in found.rows} == {None}
    assert evidence(study, "prelu").improvement.probability == pytest.approx(0.8)
    assert note(study).startswith("No ranking is drawn anew: fewer than two activations ")
    assert "drawn anew" not in study.summary()


def test_a_seed_that_few_have_finished_does_not_cost_the_others(tmp_path):
    endings = tuple((label, 4, "missing") for label in NAMES if label != "relu")
    (found,) = made(tmp_path, endings=endings).evidence
    assert (found.seeds, found.left_out) == (4, ())


def test_seeds_that_no_activation_has_finished_all_make_no_ranking(tmp_path):
    names = NAMES[:3]
    endings = tuple((label, seed, "failed") for seed, label in enumerate(names))
    (found,) = made(tmp_path, activations=names, seeds=3, endings=endings).evidence
    assert (found.halves, len(found.left_out)) == (None, 3)
    assert found.known


def test_it_is_the_same_each_time(study):
    assert build_evidence(study.files, study.table) == study.evidence


def test_one_seed_bears_nothing(tmp_path):
    single = made(tmp_path, seeds=1, endings=())
    assert not single.evidence[0].known
    assert evidence_blocks(single.files, single.evidence[0]) == []
    assert "drawn anew" not in single.summary()
    single.to_html(tmp_path / "report.html")
    assert 'id="evidence"' not in (tmp_path / "report.html").read_text()


def test_the_summary_says_it_in_one_sentence(study, tmp_path):
    sentences = study.summary().split(". ")
    (said,) = (sentence for sentence in sentences if "drawn anew" in sentence)
    assert said.startswith("With its 5 seeds drawn anew, prelu would be first in ")
    assert "comparisons with relu would find a difference of 0.5 points with 80 % power" in said
    enough = sum(
        row.needed.seeds is not None and row.needed.seeds <= study.table[0].row(row.activation).pairs
        for row in study.evidence[0].rows
        if row.needed
    )
    assert f"; {enough} of 5 comparisons" in said
    study.to_markdown(tmp_path / "results.md")
    assert said in (tmp_path / "results.md").read_text()


def test_several_conditions_have_one_sentence_and_a_table_each(tmp_path):
    four = made(tmp_path / "study", cells=4, endings=(), activations=NAMES[:3])
    assert "the first would stay first in " in four.summary()
    assert [found.cell for found in four.evidence] == [table.cell.name for table in four.table]
    four.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<caption>With other seeds</caption>") == 4


def test_a_leaderboard_has_it_in_columns(study, tmp_path):
    write_leaderboard(read_leaderboard([study.folder]), tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        rows = {row["activation"]: row for row in csv.DictReader(file)}
    prelu, mish = evidence(study, "prelu"), evidence(study, "mish")
    assert float(rows["prelu"]["improvement"]) == prelu.improvement.probability
    assert float(rows["prelu"]["first"]) == prelu.first
    needed = int(rows["mish"]["seeds_needed"]), int(rows["mish"]["seeds_needed_cautious"])
    assert needed == (mish.needed.seeds, mish.needed.cautious)
    assert (rows["relu"]["improvement"], rows["mish"]["first"], rows["mish"]["paired"]) == ("", "", "True")
