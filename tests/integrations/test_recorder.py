"""The recorder: which activations, which steps, what of them, and nothing left behind."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee import integrations
from softknee.integrations import ActivationRecorder, Histogram, JsonLines


class Kept:
    def __init__(self):
        self.steps = []

    def log(self, values, step):
        self.steps.append((step, values))


def small_model():
    return nn.Sequential(
        nn.Linear(8, 6), sk.nn.Swish(beta=1.5, trainable=True), nn.Linear(6, 6), sk.nn.PReLU(per_channel=6), nn.ReLU()
    )


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_every_nth_step_is_recorded():
    model, kept = small_model(), Kept()
    recorder = ActivationRecorder(model, every=3, logger=kept)
    for step in range(8):
        with recorder.step(step):
            model(torch.randn(4, 8))
            assert hooks_of(model) == (6 if step % 3 == 0 else 0)
        assert hooks_of(model) == 0
    assert [step for step, _ in kept.steps] == [0, 3, 6]


def test_gradients_are_those_at_the_end_of_the_step():
    model, kept = small_model(), Kept()
    with ActivationRecorder(model, logger=kept).step(0):
        model(torch.randn(4, 8)).square().sum().backward()
    ((_, values),) = kept.steps
    slope = model[3].slope.grad.double()
    assert values["activations/3/slope_gradient"] == pytest.approx(slope.square().mean().sqrt().item())
    assert values["activations/1/beta_gradient"] == pytest.approx(abs(model[1].beta.grad.item()))


def test_gradients_that_were_noted_stay_when_they_are_gone():
    model = small_model()
    recorder = ActivationRecorder(model)
    recorder.begin(0)
    model(torch.randn(4, 8)).square().sum().backward()
    expected = abs(model[1].beta.grad.item())
    recorder.note_gradients()
    model.zero_grad()
    assert recorder.end()["activations/1/beta_gradient"] == pytest.approx(expected)
    recorder.begin(0)
    model(torch.randn(4, 8))
    assert "activations/1/beta_gradient" not in recorder.end()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_are_those_that_the_step_began_with(dtype):
    model, kept = small_model().to(dtype), Kept()
    with torch.no_grad():
        model[3].slope.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.9]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with ActivationRecorder(model, logger=kept).step(0):
        model(torch.randn(4, 8, dtype=dtype)).sum().backward()
        optimizer.step()
    ((_, values),) = kept.steps
    assert model[1].beta.item() != 1.5
    assert values["activations/1/beta"] == 1.5
    seen = [values[f"activations/3/slope_{which}"] for which in ("min", "mean", "max")]
    assert_close(seen, [0.1, 0.4, 0.9], rtol=1e-6, atol=0)
    # Nothing else is trained.
    metrics = {"dead", "zero", "nonfinite", "mean", "std", "samples", "inputs"}
    assert set(values) == {
        *(f"activations/{name}/{metric}" for name in ("1", "3", "4") for metric in metrics),
        *("activations/1/beta", "activations/1/beta_gradient"),
        *(f"activations/3/slope_{which}" for which in ("min", "mean", "max", "gradient")),
    }


def test_the_outermost_activations_of_all_kinds_are_recorded():
    model = nn.ModuleDict(
        {
            "mix": sk.nn.ConvexMix(["relu", "tanh"]),
            "gated": sk.nn.SwiGLU(),
            "network": sk.create("meta_acon", channels=4),
            "torch": nn.Hardtanh(),
            "torch_gated": nn.GLU(),
            "attention": nn.MultiheadAttention(4, 1),
        }
    )
    model["network"].add_module("part", nn.ReLU())
    recorder = ActivationRecorder(model)
    recorder.begin(0)
    for name, module in model.items():
        if name != "attention":
            module(torch.randn(3, 4))
    model["network"].part(torch.randn(3, 4))
    values = recorder.end()
    assert {tag.split("/")[1] for tag in values} == {"mix", "gated", "network", "torch", "torch_gated"}
    # Where outputs depend on several inputs there is no slope to be 0.
    assert {tag.split("/")[1] for tag in values if tag.endswith("/dead")} == {"mix", "torch"}


@pytest.mark.parametrize("activation", [nn.RReLU(), sk.nn.RReLU()])
def test_the_slopes_of_random_activations_are_known_in_evaluation_only(activation):
    recorder = ActivationRecorder(activation)
    for training in (True, False):
        recorder.begin(0)
        # Trainers change the mode after a step has begun.
        activation.train(training)(torch.randn(3, 4))
        assert ("activations/RReLU/dead" in recorder.end()) == (not training)


def test_modules_of_other_libraries_go_by_where_they_are_kept():
    class GELU(nn.Module):
        def forward(self, x):
            return nn.functional.gelu(x)

    with pytest.raises(sk.UsageError, match="no activation module"):
        ActivationRecorder(GELU())
    GELU.__module__ = "timm.layers.activations"
    recorder = ActivationRecorder(GELU())
    recorder.begin(0)
    recorder.model(torch.randn(3, 4))
    assert recorder.end()["activations/GELU/dead"] == 0.0


def test_activations_may_be_replaced_while_training():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    recorder = ActivationRecorder(model, every=1)
    recorder.begin(0)
    model(torch.randn(2, 3))
    assert "activations/1/beta" not in recorder.end()
    model[1] = sk.nn.Swish(trainable=True)
    recorder.begin(1)
    model(torch.randn(2, 3))
    assert recorder.end()["activations/1/beta"] == 1.0


def test_nothing_is_left_behind_by_an_exception():
    model, kept = small_model(), Kept()
    recorder = ActivationRecorder(model, every=1, logger=kept)
    with pytest.raises(RuntimeError, match="mat1"), recorder.step(0):
        model(torch.randn(4, 9))
    assert hooks_of(model) == 0
    with recorder.step(1):
        model(torch.randn(4, 8))
    ((step, values),) = kept.steps
    assert (step, values["activations/1/samples"]) == (1, 4)


def test_a_step_that_is_recorded_can_be_copied_and_saved():
    model = small_model()
    recorder = ActivationRecorder(model)
    recorder.begin(0)
    for other in (copy.deepcopy(recorder), pickle.loads(pickle.dumps(recorder))):
        assert not other.is_recording
        assert other.end() == {}
    recorder.cancel()
    assert hooks_of(model) == 0


def test_a_training_that_is_recorded_is_the_same_training():
    states = []
    for every in (1, 10**6):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 6), sk.nn.PReLU(per_channel=6), nn.Dropout(), nn.Linear(6, 1), nn.RReLU())
        recorder = ActivationRecorder(model, every=every)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, 5):
            with recorder.step(step):
                optimizer.zero_grad()
                model(torch.randn(16, 8)).square().mean().backward()
                optimizer.step()
        states.append([*model.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(mine, its) for mine, its in zip(*states, strict=True))


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(
        sk.UsageError, match=r"no activation module .* to record; calls of functions.* by softknee.swap"
    ):
        ActivationRecorder(nn.Linear(2, 2))
    for every in (0, -1, 2.5, True, "10"):
        with pytest.raises(sk.UsageError, match="every must be an integer of at least 1, got"):
            ActivationRecorder(nn.ReLU(), every=every)
    compiled = nn.Sequential(nn.ReLU())
    compiled.compile(backend="eager")
    for model in (compiled, torch.compile(nn.Sequential(nn.ReLU()), backend="eager")):
        with pytest.raises(sk.UsageError, match="the model is compiled, and hooks that are added later do not fire"):
            ActivationRecorder(model)


def test_a_step_in_which_nothing_was_seen_warns():
    model = nn.Sequential(nn.ReLU())
    recorder = ActivationRecorder(model)
    with pytest.warns(UserWarning, match="no activation ran in the recorded step"), recorder.step(0):
        torch.func.vmap(model)(torch.randn(4, 3))


def test_json_lines_are_appended(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    model = small_model()
    for _ in range(2):
        recorder = ActivationRecorder(model, every=1, logger=JsonLines(path))
        for step in range(2):
            with recorder.step(step):
                model(torch.full((4, 8), math.nan if step else 1.0))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 0, 1]
    assert lines[0]["activations/1/beta"] == 1.5
    restored = Histogram(**lines[0]["activations/1/inputs"])
    assert (restored.count, len(restored.counts)) == (24, len(restored.edges) + 1)
    # There is no mean of nothing, and JSON has no word for that.
    assert lines[1]["activations/1/nonfinite"] == 1.0
    assert lines[1]["activations/1/mean"] is None
    assert lines[1]["activations/1/inputs"]["minimum"] is None


def test_sharded_parameters_are_summarized_as_a_whole(tmp_path):
    pytest.importorskip("torch.distributed.fsdp", reason="needs torch.distributed")
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo", store=distributed.FileStore(str(tmp_path / "store")), rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        model = nn.Sequential(nn.Linear(3, 4), sk.nn.PReLU(per_channel=4))
        with torch.no_grad():
            model[1].slope.copy_(torch.arange(4.0))
        fully_shard(model, mesh=mesh)
        recorder = ActivationRecorder(model)
        recorder.begin(0)
        model(torch.randn(2, 3)).sum().backward()
        values = recorder.end()
    finally:
        distributed.destroy_process_group()
    assert [values[f"activations/1/slope_{which}"] for which in ("min", "mean", "max")] == [0.0, 1.5, 3.0]
    assert values["activations/1/samples"] == 2


def test_no_optional_library_is_imported_before_it_is_used():
    script = """
import sys
from softknee import integrations
assert "torch" not in sys.modules
integrations.ActivationRecorder, integrations.JsonLines, integrations.lightning, integrations.tensorboard
integrations.transformers
loaded = {"transformers", "lightning", "pytorch_lightning", "tensorboard"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_namespace_lists_what_it_has():
    assert {"ActivationRecorder", "JsonLines", "lightning"} <= set(dir(integrations))
    with pytest.raises(AttributeError, match="module 'softknee.integrations' has no attribute 'nope'"):
        _ = integrations.nope


def test_a_missing_library_is_named_with_its_extra(monkeypatch, tmp_path):
    for name in ("tensorboard", "lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "transformers.activations", None)
    for extra, use in {
        "tensorboard": lambda: integrations.tensorboard.TensorBoard(tmp_path),
        "transformers": lambda: integrations.transformers.register(),
        # The class itself may have been made by now.
        "lightning": lambda: integrations.lightning._monitor.__wrapped__(("lightning.pytorch",)),
    }.items():
        with pytest.raises(sk.MissingExtra, match=rf"is not installed; `pip install 'softknee\[{extra}\]'` brings it"):
            use()
