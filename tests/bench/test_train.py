from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from softknee._bench import data
from softknee._bench.course import execute
from softknee._bench.model import build_mlp
from softknee._bench.protocol import Recipe
from softknee._bench.record import confusion_matrix, per_class_scores
from softknee._bench.runs import CHECKPOINT, Job, RunSpec, read_result
from softknee._bench.streams import Stream, stream_generator
from softknee._bench.tasks import load_tensors
from softknee._catalogue import parse_choice

TIMES = ("seconds", "step_seconds")
SMALL = Recipe(widths=(784, 32, 16, 10))


def make_job(folder, **changes):
    fields = {
        "protocol": "fashion-mlp",
        "recipe": SMALL,
        "activation": "relu",
        "definition": "",
        "seed": 0,
        "initialization": "default",
        "learning_rate": 0.01,
        "epochs": 2,
        "split": "test",
        "data": load_tensors("mini", "test").fingerprint,
    }
    spec = RunSpec(**{**fields, **changes})
    return Job(spec=spec, source="mini", folder=folder / spec.key)


def ignore(epoch, accuracy):
    pass


def numbers(job):
    """The result without what may differ between two identical runs: the times they took."""
    return {name: value for name, value in read_result(job.folder).items() if name not in TIMES}


class Stop(BaseException):
    """Stands for a killed process: no handler of the run sees it."""


def test_training_is_the_plain_loop(tmp_path):
    """An independent loop: per-image normalization, plain SGD arithmetic written out, no fused optimizer."""
    job = make_job(tmp_path, epochs=1)
    assert execute(job, ignore) == "done"
    images = data.load("mini")
    model = build_mlp(SMALL, parse_choice("relu"), seed=0)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    order = torch.randperm(10_000, generator=stream_generator(0, Stream.ORDER, 1))
    losses = []
    for start in range(0, 10_000, 128):
        chosen = order[start : start + 128].numpy()
        x = torch.stack([(torch.tensor(images.train_images[i]).float() / 255 - 0.5) / 0.5 for i in chosen]).flatten(1)
        y = torch.tensor(images.train_labels[chosen]).long()
        losses += F.cross_entropy(model(x), y, reduction="none").tolist()
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        with torch.no_grad():
            for parameter, speed, gradient in zip(model.parameters(), velocity, gradients, strict=True):
                speed.mul_(0.9).add_(gradient)
                parameter.sub_(0.01 * speed)
    result = read_result(job.folder)
    assert result["train_loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    test = (torch.tensor(images.test_images).flatten(1) / 255 - 0.5) / 0.5
    expected = (model(test).argmax(1).numpy() == images.test_labels).mean()
    assert result["test_accuracy"][0] == pytest.approx(100 * expected, abs=0.1)


def test_a_result_holds_what_the_report_needs_and_agrees_with_itself(tmp_path):
    job = make_job(tmp_path, activation="prelu", save_epochs=(1,))
    seen = []
    assert execute(job, lambda epoch, accuracy: seen.append((epoch, accuracy))) == "done"
    result = read_result(job.folder)
    assert seen == [(1, result["test_accuracy"][0]), (2, result["test_accuracy"][1])]
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["test_size"] == 2000
    correct = np.unpackbits(np.frombuffer(base64.b64decode(result["correct"]), np.uint8))[:2000]
    assert correct.sum() == np.trace(confusion)
    assert result["test_accuracy"][-1] == pytest.approx(100 * correct.mean())
    assert result["best_test_accuracy"] == max(result["test_accuracy"])
    assert result["per_class"]["recall"] == pytest.approx((np.diag(confusion) / 200).tolist())
    slopes = result["trajectories"]["activation_0.slope"]["values"]
    assert slopes[0] == [0.25]
    assert len(slopes) == 3
    assert slopes[2] != slopes[0]
    shape = result["shapes"]["activation_0"]
    assert shape["before"][0] == pytest.approx(0.25 * shape["x"][0])
    assert shape["after"][0] == pytest.approx(slopes[2][0] * shape["x"][0], rel=1e-5)
    assert sorted(path.name for path in job.folder.iterdir()) == ["epoch-001.pt", "result.json"]
    assert set(torch.load(job.folder / "epoch-001.pt", weights_only=True)) >= {"linear_0.weight", "activation_0.slope"}


@pytest.mark.parametrize("activation", ["relu", "rrelu", "staf"])
def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path, activation):
    """Also with noise in the forward pass, and momentum that must survive."""
    whole = make_job(tmp_path / "whole", activation=activation, epochs=3)
    execute(whole, ignore)

    def stop_after_the_first(epoch, accuracy):
        if epoch == 1:
            raise Stop

    cut = make_job(tmp_path / "cut", activation=activation, epochs=3)
    with pytest.raises(Stop):
        execute(cut, stop_after_the_first)
    assert (cut.folder / CHECKPOINT).is_file()
    torch.rand(7)  # whatever else the process does in between
    epochs = []
    execute(cut, lambda epoch, accuracy: epochs.append(epoch))
    assert epochs == [2, 3]
    assert numbers(cut) == numbers(whole)
    assert not (cut.folder / CHECKPOINT).exists()


def test_a_finished_run_is_not_touched(tmp_path):
    job = make_job(tmp_path, epochs=1)
    execute(job, ignore)
    before = (job.folder / "result.json").stat().st_mtime_ns
    assert execute(job, lambda *_: pytest.fail("it trained again")) == "done"
    assert (job.folder / "result.json").stat().st_mtime_ns == before


def test_a_run_that_leaves_the_finite_numbers_is_diverged(tmp_path):
    job = make_job(tmp_path, learning_rate=1e6, epochs=4)
    assert execute(job, ignore) == "diverged"
    result = read_result(job.folder)
    assert len(result["test_accuracy"]) == result["diverged_at"] - 1
    assert "correct" not in result
    assert result["best_test_accuracy"] is None or result["best_test_accuracy"] == max(result["test_accuracy"])


def test_an_exception_in_a_run_is_its_result_and_it_is_tried_again(tmp_path, monkeypatch):
    job = make_job(tmp_path, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(F, "cross_entropy", lambda *_: 1 / 0)
        assert execute(job, ignore) == "failed"
    error = read_result(job.folder)["error"]
    assert error["type"] == "ZeroDivisionError"
    assert "Traceback" in error["traceback"]
    assert execute(job, ignore) == "done"
    assert read_result(job.folder)["error"] is None


def test_a_function_without_a_gain_cannot_be_matched_and_says_why(tmp_path):
    assert execute(make_job(tmp_path, activation="0*x", initialization="matched"), ignore) == "failed"


def test_runs_are_paired_in_data_order_and_noise_but_not_between_seeds(tmp_path):
    first, again, other = (make_job(tmp_path / str(i), epochs=1, seed=s) for i, s in enumerate((0, 0, 1)))
    for job in (first, again, other):
        execute(job, ignore)
    assert numbers(first) == numbers(again)
    assert numbers(first)["train_loss"] != numbers(other)["train_loss"]


def test_the_callers_random_state_and_threads_stay_as_they_were(tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    execute(make_job(tmp_path, activation="rrelu", epochs=1), ignore)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_confusion_and_scores_on_a_case_done_by_hand():
    confusion = confusion_matrix(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]), classes=3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    scores = per_class_scores(confusion)
    assert scores["precision"] == pytest.approx([1 / 2, 2 / 3, 0])
    assert scores["recall"] == pytest.approx([1 / 2, 1, 0])
    assert scores["f1"] == pytest.approx([1 / 2, 4 / 5, 0])


def test_identity_makes_a_linear_network():
    model = build_mlp(SMALL, parse_choice("identity"), seed=0)
    x, y = torch.randn(2, 5, 784, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = model.double()
    torch.testing.assert_close(model(x + y), model(x) + model(y) - model(torch.zeros_like(x)))
    assert isinstance(model, nn.Sequential)


def test_a_damaged_checkpoint_costs_epochs_and_not_the_run(tmp_path):
    whole, damaged = make_job(tmp_path / "whole"), make_job(tmp_path / "damaged")
    damaged.folder.mkdir(parents=True)
    (damaged.folder / CHECKPOINT).write_bytes(b"PK garbage")
    execute(whole, ignore)
    assert execute(damaged, ignore) == "done"
    assert numbers(damaged) == numbers(whole)


def test_an_exception_of_the_listener_is_not_the_runs(tmp_path):
    def fail(epoch, accuracy):
        raise RuntimeError("mine")

    job = make_job(tmp_path)
    with pytest.raises(RuntimeError, match="mine"):
        execute(job, fail)
    assert read_result(job.folder) is None
    assert execute(job, ignore) == "done"


def test_an_activation_that_becomes_infinite_somewhere_is_recorded_as_it_is(tmp_path):
    job = make_job(tmp_path, activation="where(x > 4.9, 1 / (x - x), b * x)[b=1]", epochs=1, learning_rate=1e-4)
    status = execute(job, ignore)
    assert status in {"done", "diverged"}
    if status == "done":
        assert None in read_result(job.folder)["shapes"]["activation_0"]["after"]


def test_weights_asked_for_after_an_interruption_are_kept_all_the_same(tmp_path):
    def stop_after_the_second(epoch, accuracy):
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        execute(make_job(tmp_path, epochs=3), stop_after_the_second)
    job = make_job(tmp_path, epochs=3, save_epochs=(1, 3))
    assert (job.folder / CHECKPOINT).is_file()
    assert execute(job, ignore) == "done"
    assert {path.name for path in job.folder.iterdir()} == {"epoch-001.pt", "epoch-003.pt", "result.json"}


def test_a_checkpoint_from_before_there_were_other_metrics_goes_on(tmp_path):
    """Its history has accuracies under their own names, and no times of steps."""
    whole, old = make_job(tmp_path / "whole", epochs=3), make_job(tmp_path / "old", epochs=3)
    execute(whole, ignore)

    def stop_after_the_second(epoch, accuracy):
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        execute(old, stop_after_the_second)
    state = torch.load(old.folder / CHECKPOINT, weights_only=True)
    history = json.loads(state["history"])
    del history["step_seconds"]
    assert {"train_accuracy", "test_accuracy"} <= set(history)
    torch.save({**state, "history": json.dumps(history)}, old.folder / CHECKPOINT)
    epochs = []
    execute(old, lambda epoch, accuracy: epochs.append(epoch))
    assert epochs == [3]
    assert numbers(old) == numbers(whole)
    assert read_result(old.folder)["step_seconds"] > 0
