"""Boards of several studies: against one study of the same runs, and against plain arithmetic on what is written."""

from __future__ import annotations

import csv
import json
import shutil
import statistics

import pytest
from fabricate import Plan, fabricate

from softknee._bench.leaderboard import CIRCUMSTANCES, read_leaderboard
from softknee._bench.leaderboard_files import write_leaderboard
from softknee._bench.leaderboard_page import board_titles
from softknee._bench.runs import RunSpec
from softknee._bench.study import Study
from softknee._errors import UsageError

NAMES = ("relu", "gelu", "mish", "silu", "rrelu", "prelu")
TODAY = (("kernels", "AVX512"),)
PADDED = {"shortcut": "padding"}


def made(folder, **options):
    options = {"activations": NAMES, "seeds": 3, "epochs": 3, "test_size": 400, "specification": TODAY} | options
    return fabricate(folder, Plan(**options))


def changed(folder, change):
    """Let `change` edit the manifest."""
    manifest = json.loads((folder / "study.json").read_text())
    change(manifest)
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


def part(study, folder, seeds):
    """Copy the runs of some seeds into a study of their own."""
    shutil.copytree(study, folder)

    def keep(manifest):
        manifest["seeds"] = seeds
        manifest["runs"] = [run for run in manifest["runs"] if run["seed"] in seeds]

    return changed(folder, keep)


def test_parts_of_a_study_make_the_table_of_the_whole(tmp_path):
    whole = made(tmp_path / "whole", seeds=7)
    parts = [part(whole, tmp_path / "a", [0, 1, 2, 3]), part(whole, tmp_path / "b", [4, 5, 6])]
    (board,) = read_leaderboard(parts).boards
    assert board.table.rows == Study.load(whole).table[0].rows
    counts = {row.activation: (row.done, row.diverged, row.failed, row.missing) for row in board.table.rows}
    assert counts == {
        "relu": (7, 0, 0, 0),
        "gelu": (6, 1, 0, 0),
        "mish": (6, 0, 1, 0),
        "silu": (6, 0, 0, 1),
        "rrelu": (6, 0, 1, 0),
        "prelu": (7, 0, 0, 0),
    }


def test_every_condition_has_a_board(tmp_path):
    study = made(tmp_path / "fair", cells=4)
    boards = read_leaderboard([study]).boards
    tables = Study.load(study).table
    assert [board.table.rows for board in boards] == [table.rows for table in tables]


def test_a_shared_run_counts_once_and_a_result_before_none(tmp_path):
    whole = made(tmp_path / "whole")
    overlapping = [part(whole, tmp_path / "a", [0, 1]), part(whole, tmp_path / "b", [1, 2])]
    manifest = json.loads((whole / "study.json").read_text())
    relu = next(run["key"] for run in manifest["runs"] if (run["activation"], run["seed"]) == ("relu", 1))
    (overlapping[0] / "runs" / relu / "result.json").unlink()
    for order in (overlapping, overlapping[::-1]):
        (board,) = read_leaderboard(order).boards
        assert board.table.rows == Study.load(whole).table[0].rows


def set_in(*path, to):
    def change(manifest):
        for name in path[:-1]:
            manifest = manifest[name]
        manifest[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "difference",
    [
        set_in("epochs", to=4),
        set_in("data", "fingerprint", to="6f" * 32),
        set_in("protocol", "name", to="another"),
        set_in("protocol", "recipe", to={"momentum": 0.8}),
        set_in("protocol", "learning_rate", to=0.002),
        set_in("cells", 0, "initialization", to="matched"),
    ],
)
def test_other_recipes_are_not_mixed(tmp_path, difference):
    studies = [made(tmp_path / "a"), changed(made(tmp_path / "b", mark="b", first_seed=3), difference)]
    boards = read_leaderboard(studies).boards
    assert [board.studies for board in boards] == [(study,) for study in studies]
    assert [row.done for row in boards[1].table.rows] == [3] * len(NAMES)


@pytest.mark.parametrize("field", CIRCUMSTANCES)
def test_other_circumstances_are_not_mixed(tmp_path, field):
    other = (*TODAY, (field, "another"))
    studies = [made(tmp_path / "a", endings=()), made(tmp_path / "b", mark="b", first_seed=3, specification=other)]
    boards = read_leaderboard(studies).boards
    assert [board.studies for board in boards] == [(study,) for study in studies]
    assert boards[1].circumstances[field] == "another"


@pytest.mark.parametrize(
    "difference",
    [
        set_in("protocol", "title", to="In other words"),
        set_in("protocol", "seeds", to=[42]),
        set_in("cells", 0, "title", to="in other words"),
        set_in("environment", to={"softknee": "0.0.9"}),
        set_in("seeds", to=[3, 4, 5]),
        set_in("reference", to="gelu"),
        set_in("margin", to=0.1),
    ],
)
def test_what_decides_no_number_does_not_divide(tmp_path, difference):
    studies = [made(tmp_path / "a"), changed(made(tmp_path / "b", mark="b", first_seed=3), difference)]
    (board,) = read_leaderboard(studies).boards
    assert board.studies == tuple(studies)
    assert (board.table.row("relu").done, board.files.reference) == (6, "relu")


def test_equivalence_is_concluded_within_the_smallest_margin(tmp_path):
    studies = [made(tmp_path / "a"), changed(made(tmp_path / "b", mark="b", first_seed=3), set_in("margin", to=0.1))]
    (board,) = read_leaderboard(studies).boards
    assert board.files.margin == 0.1


def test_every_part_of_a_specification_is_compared():
    """A new field of a run must be put somewhere: into CIRCUMSTANCES, or here."""
    said_by_the_study = {"protocol", "recipe", "initialization", "epochs", "data"}
    told_apart_by_row_and_run = {"activation", "definition", "learning_rate", "seed"}
    decide_no_number = {"save_epochs"}
    known = said_by_the_study | told_apart_by_row_and_run | decide_no_number | set(CIRCUMSTANCES)
    assert set(RunSpec.model_fields) <= known


def test_one_name_with_two_meanings_has_two_rows(tmp_path):
    other = (*TODAY, ("definition", "another formula"))
    studies = [
        made(tmp_path / "a", endings=()),
        made(tmp_path / "b", mark="b", endings=(), activations=("gelu",), specification=other, reference="gelu"),
    ]
    (board,) = read_leaderboard(studies).boards
    rows = {row.activation: row.done for row in board.table.rows if row.activation.startswith("gelu")}
    assert rows == {"gelu (the formula of gelu)": 3, "gelu (another formula)": 3}


def test_one_activation_with_two_tuned_rates_has_two_rows(tmp_path):
    def retune(manifest):
        for run in manifest["runs"]:
            run["learning_rate"] = {"matched-tuned": 0.02}.get(run["cell"], run["learning_rate"])

    plan = {"activations": ("relu", "gelu"), "cells": 4, "endings": ()}
    studies = [made(tmp_path / "a", **plan), changed(made(tmp_path / "b", mark="b", first_seed=3, **plan), retune)]
    boards = read_leaderboard(studies).boards
    rows = [{row.activation: (row.done, row.learning_rates) for row in board.table.rows} for board in boards]
    assert [len(found) for found in rows] == [2, 2, 2, 4]
    assert rows[3]["gelu (rate 0.02)"] == (3, (0.02,))


def test_a_seed_that_stands_there_twice_counts_once_and_is_named(tmp_path):
    studies = [made(tmp_path / "a", endings=()), made(tmp_path / "b", mark="b", endings=())]
    found = read_leaderboard(studies)
    (board,) = found.boards
    assert {row.done for row in board.table.rows} == {3}
    (note,) = found.notes
    assert note.startswith("Left out: 18 runs of 'fashion-mlp' whose activation and seed another run has, though not ")
    assert note.endswith(f"its key, such as relu, seed 0, in '{studies[1] / 'runs' / 'b00000' / 'result.json'}'.")


def test_a_folder_of_studies_stands_for_them_and_none_is_read_twice(tmp_path):
    studies = [made(tmp_path / "results" / name, mark=name, first_seed=3 * place) for place, name in enumerate("ab")]
    found = read_leaderboard([tmp_path / "results", studies[0]])
    assert found.studies == tuple(studies)


def test_suites_in_a_folder_stand_for_their_studies(tmp_path):
    alone = made(tmp_path / "results" / "alone")
    members = [made(tmp_path / "results" / "mls" / name, mark=name) for name in "ab"]
    (tmp_path / "results" / "mls" / "suite.json").write_text("{}")
    assert read_leaderboard([tmp_path / "results"]).studies == (alone, *members)


def test_boards_that_differ_in_an_open_point_say_so(tmp_path):
    studies = [made(tmp_path / "a"), changed(made(tmp_path / "b", mark="b"), set_in("protocol", "recipe", to=PADDED))]
    titles = board_titles(read_leaderboard(studies).boards)
    assert titles == ["MLP on Fashion-MNIST: default init, given rate", f"{titles[0]} (shortcut padding)"]


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path):
    whole = made(tmp_path / "whole", endings=())
    (whole / "runs" / "00000" / "result.json").write_text('{"schema": 1,')
    newer = changed(made(tmp_path / "newer", mark="b"), lambda manifest: manifest.update(schema=2))
    found = read_leaderboard([newer, tmp_path / "nowhere", whole])
    assert found.studies == (whole,)
    assert [note.split(":")[0] for note in found.notes] == ["Left out", "Left out", "Counted as missing"]
    assert "newer/study.json' has schema 2" in found.notes[0]
    assert "nowhere': it holds no study.json" in found.notes[1]
    assert "00000/result.json' is damaged" in found.notes[2]
    relu = found.boards[0].table.row("relu")
    assert (relu.done, relu.missing) == (2, 1)


def test_of_many_damaged_results_some_are_named(tmp_path):
    study = made(tmp_path / "study", endings=())
    for path in study.glob("runs/*/result.json"):
        path.write_text("nothing")
    found = read_leaderboard([study])
    assert len(found.notes) == 4
    assert found.notes[3] == f"Counted as missing: 15 more results of '{study}' that cannot be read."
    assert {row.missing for row in found.boards[0].table.rows} == {3}


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"^no study could be read: no study in '.*nowhere': it holds no"):
        read_leaderboard([tmp_path / "nowhere"])


def test_runs_whose_rate_is_not_tuned_yet_are_named(tmp_path):
    study = changed(made(tmp_path / "fair", cells=4), lambda manifest: manifest.update(evaluated_runs=75))
    (note,) = read_leaderboard([study]).notes
    assert note.endswith("fair' lacks 3 runs that its tuning has yet to give a learning rate.")


def test_the_tables_say_the_same_as_the_runs(tmp_path):
    studies = [made(tmp_path / "results" / name, mark=name, first_seed=3 * place) for place, name in enumerate("ab")]
    out = tmp_path / "site" / "board"
    write_leaderboard(read_leaderboard(studies), out)
    rows, runs = (list(csv.DictReader((out / name).open(newline=""))) for name in ("leaderboard.csv", "runs.csv"))
    assert len(rows) == len(NAMES)
    assert len(runs) == 6 * len(NAMES)
    for row in rows:
        own = [run for run in runs if run["activation"] == row["activation"]]
        done = [float(run["last"]) for run in own if run["status"] == "done"]
        assert float(row["mean"]) == pytest.approx(statistics.fmean(done))
        assert float(row["sd"]) == pytest.approx(statistics.stdev(done))
        assert int(row["done"]) == len(done)
        counted = [int(row[outcome]) for outcome in ("done", "diverged", "failed", "missing")]
        assert sum(counted) == int(row["asked"]) == len(own)
        for run in own:
            result = out / run["result"]
            assert (run["status"] == "missing") == (run["result"] == "")
            assert not run["result"] or json.loads(result.read_text())["key"] == run["key"]
