"""Studies of many runs, and studies that another version wrote: what is kept, what is drawn, what is said."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from fabricate import STAF, Plan, fabricate, invented

from softknee._bench.page_figures import learning_galleries
from softknee._bench.page_shapes import shape_gallery
from softknee._bench.page_tables import LINES
from softknee._bench.study import Study
from softknee._bench.study_files import read_study
from softknee._errors import UsageError


def rewritten(path, **fields):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | fields))


@pytest.fixture
def study(tmp_path):
    return fabricate(tmp_path / "study", Plan(activations=("relu", "prelu"), endings=(), epochs=3, test_size=400))


def test_a_run_takes_little_memory(tmp_path):
    """Ten thousand such runs then take 200 MB of the 500 that a report may."""
    plan = Plan(invented(30), 4, epochs=15, test_size=10_000, endings=(), specification=(("threads", 1),))
    folder = fabricate(tmp_path, plan)
    tracemalloc.start()
    files = read_study(folder)
    taken = tracemalloc.get_traced_memory()[0] / len(files.runs)
    tracemalloc.stop()
    assert taken < 20_000


def test_numbers_are_kept_exactly_and_shared_where_they_are_the_same(study):
    files = read_study(study)
    for run in files.runs:
        said = json.loads(run.path.read_text())
        assert list(run.get("test_accuracy")) == said["test_accuracy"]
        assert [list(row) for row in run.get("confusion")] == said["confusion"]
        for site, shape in said["shapes"].items():
            assert list(run.get("shapes")[site]["after"]) == shape["after"]
    first, second = (run.get("shapes")["activation_0"] for run in files.of("default-given", "prelu")[:2])
    assert first["x"] is second["x"]
    assert first["after"] is not second["after"]


def test_pictures_stay_on_the_disk_until_they_are_asked_for(study):
    path = next(study.glob("runs/*/result.json"))
    rewritten(path, drawn=[0.5, None, 0.25])
    run = next(run for run in read_study(study).runs if run.path == path)
    assert "drawn" not in run.result
    assert run.get("drawn") == [0.5, None, 0.25]


def test_of_many_seeds_some_are_drawn_and_all_are_averaged(tmp_path):
    seeds = LINES + 5
    plan = Plan(("relu", STAF), seeds, epochs=3, test_size=400, endings=(("relu", seeds - 1, "diverged"),))
    many = Study.load(fabricate(tmp_path / "study", plan))
    files, (table,) = many.files, many.table
    relu = next(f for f in learning_galleries(files, table)[0].figures if f.caption == "relu").picture
    assert sum(f"<title>seed {seed}, test</title>" in relu for seed in range(seeds)) == LINES
    assert f"<title>seed {seeds - 1}, test (diverged)</title>" in relu
    staf = next(f for f in shape_gallery(files, table).figures if f.caption == STAF).picture
    assert staf.count("activation_0 after training") == LINES
    many.to_html(tmp_path / "report.html")
    said = f"Of more than {LINES} seeds the first {LINES} are drawn; the mean is over all."
    assert (tmp_path / "report.html").read_text().count(said) == 2


@pytest.mark.parametrize(
    ("environment", "writer"), [({"softknee": "9.1.0"}, "softknee 9.1.0"), ({}, "a newer softknee")]
)
def test_a_newer_study_says_who_wrote_it_and_what_to_do(study, environment, writer):
    rewritten(study / "study.json", schema=2, environment=environment)
    with pytest.raises(UsageError) as caught:
        Study.load(study)
    assert str(caught.value) == (
        f"'{study / 'study.json'}' has schema 2; this version of softknee reads schema 1; "
        f"{writer} wrote it: read it with that version or a later one"
    )


def test_a_metric_from_the_future_is_named(study):
    rewritten(study / "study.json", metric="wisdom")
    with pytest.raises(
        UsageError, match=r"ranks by 'wisdom'; this version of softknee knows accuracy, r2, saving; a newer softknee"
    ):
        Study.load(study)


def test_a_status_from_the_future_is_named(study):
    rewritten(next(study.glob("runs/*/result.json")), status="paused")
    with pytest.raises(UsageError, match=r"has the status 'paused'; this version of softknee knows done, diverged, "):
        Study.load(study)


def test_fields_from_the_future_do_no_harm(study):
    manifest = json.loads((study / "study.json").read_text())
    runs = [{**run, "machine": "far away"} for run in manifest["runs"]]
    rewritten(study / "study.json", runs=runs, cells=[{**cell, "colour": "red"} for cell in manifest["cells"]])
    assert Study.load(study).table[0].row("relu").done == 3


def test_half_a_manifest_and_half_a_result_are_damaged(study):
    path = next(study.glob("runs/*/result.json"))
    rewritten(path, test_accuracy=[])
    with pytest.raises(UsageError, match=r"is damaged \(a finished run without test_accuracy\); delete it and run"):
        Study.load(study)
    (study / "study.json").write_text('{"schema": 1, "runs": []}')
    with pytest.raises(UsageError, match=r"study.json' is damaged \(it has no protocol, data, epochs, "):
        Study.load(study)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"protocol": {"title": "no name"}}, "it has no protocol: name"),
        ({"data": []}, "it has no data: name, data: fingerprint, data: test, data of the right form"),
        ({"runs": [7]}, "runs of the right form"),
        ({"cells": [{"name": "a"}]}, "it has no cells: title, cells: initialization, cells: rate"),
        ({"metric": ["accuracy"]}, r"ranks by \['accuracy'\]"),
    ],
)
def test_a_study_with_a_part_of_another_shape_is_named(study, fields, said):
    rewritten(study / "study.json", **fields)
    with pytest.raises(UsageError, match=said):
        read_study(study)


def test_a_finished_run_that_lacks_what_is_compared_is_named(study):
    path = next(study.glob("runs/*/result.json"))
    rewritten(path, correct=None)
    with pytest.raises(UsageError, match=r"result.json.*a finished run without correct"):
        read_study(study)
