"""The sentences say what the numbers say, and nothing when they do not."""

from __future__ import annotations

import fabricate as fabrication
import pytest
from fabricate import Plan, fabricate

from softknee._bench.study import Study
from softknee._bench.study_findings import findings, spread_sentences

NAMES = ("relu", "tanh", "gelu")


def study_with(folder, monkeypatch, skills, **plan):
    """Fabricate a study in which the activations have the given accuracies under the four conditions."""
    monkeypatch.setattr(fabrication, "SKILLS", skills)
    return Study.load(fabricate(folder, Plan(activations=tuple(skills), cells=4, endings=(), **plan)))


def sentences(study):
    return spread_sentences(study.files, study.table)


def test_most_of_a_gap_goes_away_where_it_does(tmp_path, monkeypatch):
    skills = {"relu": (80, 87, 88, 88), "tanh": (70, 86.5, 87, 88), "gelu": (75, 87, 88, 88)}
    claim, where = sentences(study_with(tmp_path, monkeypatch, skills))
    assert claim.startswith("Most of the ")
    assert "remains" not in claim
    assert all(title in claim for title in ("matched gain, given rate", "default init, tuned rate"))
    assert where.startswith("With default init, given rate, mean accuracies reach from tanh to relu, ")


def test_nothing_goes_away_where_it_does_not(tmp_path, monkeypatch):
    skills = {"relu": (80, 87, 88, 88), "tanh": (70, 77, 78, 78), "gelu": (75, 80, 83, 83)}
    claim, _ = sentences(study_with(tmp_path, monkeypatch, skills))
    assert claim.startswith("At least half of the ")
    assert "goes away" not in claim


def test_both_are_said_where_conditions_disagree(tmp_path, monkeypatch):
    skills = {"relu": (80, 87, 88, 88), "tanh": (70, 77, 88, 88), "gelu": (75, 80, 88, 88)}
    claim, _ = sentences(study_with(tmp_path, monkeypatch, skills))
    first, second = claim.split("; at least half of it remains with ")
    assert "default init, tuned rate" in first
    assert second.startswith("matched gain, given rate (")


def test_no_gap_is_explained_where_there_is_none(tmp_path, monkeypatch):
    skills = dict.fromkeys(NAMES, (85, 85, 85, 85))
    study = study_with(tmp_path, monkeypatch, skills, test_size=4000)
    study.files.manifest["margin"] = 3.0
    assert sentences(study)[0] == "There is hardly a gap between the activations to explain."


def test_a_gap_that_may_be_chance_is_called_that(tmp_path, monkeypatch):
    skills = {"relu": (80, 87, 88, 88), "tanh": (78, 87, 88, 88), "gelu": (81, 87, 88, 88)}
    claim, _ = sentences(study_with(tmp_path, monkeypatch, skills, test_size=100, seeds=2))
    assert claim.startswith("The gap between activations may be chance: none differs significantly from relu.")
    assert "goes away" not in claim


def test_those_without_a_valid_match_are_left_out_by_name(tmp_path, monkeypatch):
    skills = {"relu": (80, 87, 88, 88), "tanh": (70, 86.5, 87, 88), "sigmoid": (10, 60, 30, 80)}
    _, where = sentences(study_with(tmp_path, monkeypatch, skills))
    assert "; sigmoid, which no single weight scale fits, left out (" in where


def test_one_activation_cannot_spread(tmp_path, monkeypatch):
    study = study_with(tmp_path, monkeypatch, {"relu": (80, 87, 88, 88)})
    assert "cannot be compared" in sentences(study)[0]
    assert "relu is the only activation" in study.summary()


def test_a_simple_study_leads_with_the_comparison(tmp_path):
    study = Study.load(fabricate(tmp_path, Plan(seeds=4)))
    full, brief = findings(study.files, study.table), findings(study.files, study.table, brief=True)
    assert full[0].startswith("Of 14 activations compared with relu: ")
    assert full[0].endswith(" and sigmoid).")
    assert "sigmoid" not in brief[0]
    assert full[1].startswith("trainable_elu has the highest mean test accuracy, ")


@pytest.mark.parametrize(
    "said",
    [
        "The study is unfinished: 4 of 330 runs still missing.",
        "4 runs diverged: recorded, and left out of every mean.",
        "8 runs failed: recorded, and left out of every mean.",
        "The best learning rate of sigmoid is the smallest or largest tried, so a better one may exist.",
    ],
)
def test_what_limits_a_study_is_said(fair_study, said):
    assert said in fair_study.summary()


@pytest.fixture(scope="module")
def fair_study(tmp_path_factory):
    return Study.load(fabricate(tmp_path_factory.mktemp("fair"), Plan(cells=4)))
