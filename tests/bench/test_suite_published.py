"""Published figures stand in a section of their own, and are copied right."""

from __future__ import annotations

import json
import statistics

from fabricate import Plan, fabricate

from softknee._bench.suite import SUITES
from softknee._bench.suite_files import SUITE
from softknee._bench.suite_published import PUBLISHED, TITLE
from softknee._bench.suite_study import SuiteStudy


def test_reports_of_the_suite_have_them_and_others_do_not(tmp_path):
    for name in ("mls", "transfer"):
        content = {"schema": 1, "suite": SUITES[name].model_dump(mode="json"), "studies": ["one"]}
        fabricate(tmp_path / name / "one", Plan(activations=("relu", "gelu"), endings=(), epochs=3, test_size=50))
        (tmp_path / name / SUITE).write_text(json.dumps(content))
        study = SuiteStudy.load(tmp_path / name)
        study.to_html(tmp_path / name / "report.html")
        study.to_markdown(tmp_path / name / "results.md")
        for file in ("report.html", "results.md"):
            text = (tmp_path / name / file).read_text()
            assert (TITLE in text) == (name == "mls")
            assert ("71.46 ± 0.20" in text) == (name == "mls")


def test_relus_means_are_those_of_the_seeds_of_its_sources():
    seeds = {
        ("cosine", 0): (93.03, 92.78, 92.68),
        ("cosine", 2): (94.70, 94.76, 94.76),
        ("Kaiming-normal", 1): (73.38, 74.20, 73.49),
        ("Kaiming-normal", 2): (94.49, 94.55, 94.70),
    }
    rows = {row.source.rpartition(", ")[2]: row for row in PUBLISHED["mls"].rows if row.name == "relu"}
    for (source, setting), scores in seeds.items():
        said = f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}"
        assert rows[source].scores[setting] == said


def test_every_row_has_a_place_for_every_setting():
    settings = SUITES["mls"].members(final=True)
    assert len(PUBLISHED["mls"].settings) == len(settings)
    assert all(len(row.scores) == len(settings) for row in PUBLISHED["mls"].rows)
