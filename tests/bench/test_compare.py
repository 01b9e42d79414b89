from __future__ import annotations

import json

import pytest
import torch
from test_train import TIMES

from softknee._bench import plan as plan_module
from softknee._bench.compare import bench
from softknee._bench.protocol import Recipe
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.study import Study
from softknee._errors import DataError, OptionError, StudyMismatch, UnknownActivation, UnknownProtocol, UsageError


@pytest.fixture(autouse=True)
def small_protocols(monkeypatch):
    """The real protocols on a smaller perceptron."""
    recipe = Recipe(widths=(784, 16, 16, 10))
    small = {name: protocol.model_copy(update={"recipe": recipe}) for name, protocol in PROTOCOLS.items()}
    monkeypatch.setattr(plan_module, "get_protocol", small.__getitem__)


def run(out, activations=("relu", "identity"), protocol="fashion-mlp", **options):
    return bench(protocol, activations, **{"seeds": 2, "epochs": 1, "out": out, "executor": "here", **options})


def stored(out):
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("runs/*/result.json")}


def test_a_study_has_a_folder_a_run_and_finished_runs_are_skipped(tmp_path):
    run(tmp_path)
    first = stored(tmp_path)
    assert len(first) == 4
    for key, result in first.items():
        assert result["key"] == key
        assert {"status", "protocol", "activation", "seed", "test_accuracy", "test_loss", "best_test_accuracy"} <= set(
            result
        )
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    run(tmp_path, ("relu", "identity", "gelu"), seeds=3)
    assert len(stored(tmp_path)) == 9
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_activations_written_differently_are_one(tmp_path):
    run(tmp_path, ("swish", "swish[beta=1.0]", "relu", "relu"), seeds=1)
    assert {result["activation"] for result in stored(tmp_path).values()} >= {"relu"}
    assert json.loads((tmp_path / "study.json").read_text())["activations"].count("relu") == 1


def test_the_fair_design_has_four_cells_and_equal_tuning(tmp_path):
    progress = []
    run(tmp_path, ("relu", "identity"), "fashion-mlp-fair", epochs=3, seeds=1, progress=progress.append)
    study = json.loads((tmp_path / "study.json").read_text())
    results = stored(tmp_path)
    assert {run["cell"] for run in study["runs"]} == {cell["name"] for cell in study["cells"]}
    assert len(study["runs"]) == 2 * 4
    assert {run["key"] for run in study["runs"]} <= set(results)
    assert len(study["tuning"]) == 4
    for search in study["tuning"]:
        assert len(search["trials"]) == 7
        best = max(search["trials"], key=lambda trial: trial["accuracy"] if trial["accuracy"] is not None else -1)
        assert search["chosen"] == best["learning_rate"]
        for trial in search["trials"]:
            for key in trial["keys"]:
                assert results[key]["split"] == "validation"
                assert results[key]["epochs"] == 1
                assert results[key]["seed"] >= 1_000_000
    chosen = {(search["activation"], search["initialization"]): search["chosen"] for search in study["tuning"]}
    for entry in study["runs"]:
        result = results[entry["key"]]
        tuned = entry["cell"].endswith("tuned")
        assert result["learning_rate"] == (chosen[entry["activation"], result["initialization"]] if tuned else 1e-3)
    dones = [step.done for step in progress]
    assert dones == sorted(dones)
    assert dones[-1] <= progress[-1].total


def test_a_diverged_run_is_recorded_and_does_not_stop_the_others(tmp_path):
    study = run(tmp_path, ("relu", "exp(exp(9 + x))"), epochs=1)
    statuses = {result["activation"]: result["status"] for result in stored(tmp_path).values()}
    assert statuses.pop("relu") == "done"
    assert set(statuses.values()) == {"diverged"}
    assert "diverged" in (study.to_html(tmp_path / "report.html") or (tmp_path / "report.html").read_text())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"activations": ("gleu",)}, UnknownActivation, "'gleu'; did you mean .*gelu"),
        ({"activations": ()}, UsageError, "activations must name at least one"),
        ({"activations": "relu"}, UsageError, "activations must be a list of texts, got 'relu'"),
        ({"activations": (3,)}, UsageError, "activations must be a list of texts, got .3,."),
        (
            {"activations": ("prelu[per_channel=3]",)},
            OptionError,
            "does not fit the model of fashion-mlp: .* 3 channels",
        ),
        ({"margin": float("inf")}, UsageError, "margin must be a positive number of percentage points, got inf"),
        ({"margin": "x"}, UsageError, "margin must be .*, got 'x'"),
        ({"save_epochs": ("a",)}, UsageError, "save_epochs must be an integer of at least 1, got 'a'"),
        ({"activations": ("swish[bta=1]",)}, OptionError, "bta.*beta"),
        ({"seeds": 0}, UsageError, "seeds must be an integer of at least 1, got 0"),
        ({"epochs": 0}, UsageError, "epochs must be an integer of at least 1, got 0"),
        ({"jobs": 0}, UsageError, "jobs must be an integer of at least 1, got 0"),
        ({"margin": 0.0}, UsageError, "margin must be a positive number of percentage points, got 0"),
        ({"save_epochs": (2,)}, UsageError, "save_epochs must lie between 1 and 1, got 2"),
        ({"reference": "gelu"}, UsageError, r"reference must be one of the compared activations \(relu, identity\)"),
        ({"data": "nowhere"}, DataError, "nowhere: no such folder"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_unknown_protocol_is_refused(tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(UnknownProtocol, match="did you mean 'fashion-mlp"):
        bench("fashion-mlpp", ["relu"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_another_study_is_refused_and_stays_as_it_is(tmp_path):
    run(tmp_path, seeds=1)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(StudyMismatch, match="another study: its number of epochs is 1, asked for 2; give another"):
        run(tmp_path, seeds=1, epochs=2)
    with pytest.raises(StudyMismatch, match="its protocol is fashion-mlp, asked for fashion-mlp-fair"):
        run(tmp_path, seeds=1, protocol="fashion-mlp-fair")
    assert (tmp_path / "study.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="out must be a folder, got the file"):
        run(tmp_path / "file")


def test_an_interrupted_study_can_be_reported_and_goes_on_to_the_same_numbers(tmp_path):
    def interrupt(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", epochs=2, progress=interrupt)
    assert len(stored(tmp_path / "cut")) == 1
    Study.load(tmp_path / "cut").to_html(tmp_path / "partial.html")
    run(tmp_path / "cut", epochs=2)
    run(tmp_path / "whole", epochs=2)

    def without_time(results):
        return {key: {k: v for k, v in result.items() if k not in TIMES} for key, result in results.items()}

    assert without_time(stored(tmp_path / "cut")) == without_time(stored(tmp_path / "whole"))


def test_repeating_a_finished_study_and_stopping_at_once_loses_nothing(tmp_path):
    run(tmp_path, ("relu",), "fashion-mlp-fair", epochs=3, seeds=1)
    before = json.loads((tmp_path / "study.json").read_text())

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ("relu",), "fashion-mlp-fair", epochs=3, seeds=1, progress=interrupt)
    assert json.loads((tmp_path / "study.json").read_text()) == before


def test_an_interrupted_fair_study_says_that_it_is_unfinished(tmp_path):
    def interrupt(progress):
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ("relu",), "fashion-mlp-fair", epochs=2, seeds=1, progress=interrupt)
    assert "unfinished" in Study.load(tmp_path).summary()


def test_a_call_on_the_same_folder_adds_to_the_study(tmp_path):
    run(tmp_path, ("relu",), seeds=2)
    run(tmp_path, ("gelu",), seeds=1)
    study = json.loads((tmp_path / "study.json").read_text())
    assert study["activations"] == ["relu", "gelu"]
    assert study["reference"] == "relu"
    assert study["seeds"] == [0, 1]
    assert len(stored(tmp_path)) == 4


def test_a_lost_tuning_run_is_tried_again_and_never_taken_for_a_bad_rate(tmp_path, monkeypatch):
    from softknee._bench import compare
    from softknee._bench.execute import run_here
    from softknee._bench.runs import write_failure

    def lose_one(jobs, listen):
        for job in jobs:
            if job.spec.split == "validation" and job.spec.learning_rate == 0.01:
                write_failure(job.folder, job.spec, "lost", kind="ProcessDied", message="gone")
            else:
                run_here([job], listen)

    with monkeypatch.context() as patch:
        patch.setattr(compare, "make_executor", lambda name, jobs, pack: lose_one)
        study = run(tmp_path, ("relu",), "fashion-mlp-fair", seeds=1)
    assert "unfinished" in study.summary()
    assert not json.loads((tmp_path / "study.json").read_text())["tuning"]
    whole = run(tmp_path, ("relu",), "fashion-mlp-fair", seeds=1)
    assert "unfinished" not in whole.summary()


@pytest.mark.parametrize("activation", ["log(x)", "sqrt(x)", "1/x", "0*x", "1 + 0*x"])
def test_a_function_that_is_not_finite_everywhere_still_gets_its_report(tmp_path, activation):
    study = run(tmp_path, ("relu", activation), seeds=1)
    study.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_shared_instance_refuses_parameters_per_channel(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real widths, which differ
    with pytest.raises(OptionError, match="prelu.per_channel. does not fit the model of fashion-mlp-chapter"):
        bench("fashion-mlp-chapter", ["prelu[per_channel]"], out=tmp_path / "out")


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    def again(progress):
        with pytest.raises(UsageError, match="another process is working in"):
            run(tmp_path, seeds=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seeds=1, progress=again)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UsageError, match=r"study\.json' is damaged"):
        run(tmp_path)


def test_drawn_activations_are_shown_as_the_first_seed_starts_with_them(tmp_path):
    curves = []
    for folder in ("one", "two"):
        run(tmp_path / folder, ("staf",), seeds=1)
        curves.append(json.loads((tmp_path / folder / "study.json").read_text())["curves"]["staf"])
    assert curves[0] == curves[1]
    (result,) = stored(tmp_path / "one").values()
    assert curves[0]["y"] == pytest.approx(result["shapes"]["activation_0"]["before"])


def test_planning_leaves_the_callers_random_state_alone(tmp_path):
    state = torch.get_rng_state()
    run(tmp_path, ("rrelu", "staf"), seeds=1)
    assert torch.equal(state, torch.get_rng_state())
