"""Devices, precision tiers and compiled steps: what they are, what they leave alone, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from imitate_cifar import draw, publish
from test_train import SMALL, Stop, ignore, make_job, numbers
from torch import nn
from torch.nn import functional as F

from softknee._bench import data, image_sets
from softknee._bench import device as device_module
from softknee._bench.cifar_sets import CIFAR10
from softknee._bench.compare import bench
from softknee._bench.course import execute
from softknee._bench.device import Bfloat16, forward_of, rounding
from softknee._bench.model import build_mlp
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.runs import Job, read_result
from softknee._bench.streams import Stream, stream_generator
from softknee._bench.tasks import load_tensors
from softknee._catalogue import parse_choice
from softknee._cli import run
from softknee._errors import StudyMismatch, UsageError

MEANS = ("device", "precision", "compiled")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_usual_means_are_in_no_key_and_no_result_and_others_in_both(tmp_path):
    """A changed key would orphan every result a user has; that of the usual ones is in `test_runs`."""
    usual, other = make_job(tmp_path), make_job(tmp_path, precision="bfloat16", compiled=True)
    assert not set(MEANS) & set(json.loads(usual.spec.model_dump_json()))
    assert {"precision", "compiled"} <= set(json.loads(other.spec.model_dump_json()))
    assert Job.model_validate_json(other.model_dump_json()) == other
    changes = dict(zip(MEANS, ("cuda", "tf32", True), strict=True))
    keys = {usual.spec.model_copy(update={name: value}).key for name, value in changes.items()}
    assert len({*keys, usual.spec.key, other.spec.key}) == 5


@pytest.mark.parametrize(
    ("asked", "protocol", "words"),
    [
        ({"device": "gpu"}, "gmm-2d", "device must be one of cpu, cuda, got 'gpu'"),
        ({"precision": "float16"}, "gmm-2d", "precision must be one of float32, tf32, bfloat16, got 'float16'"),
        ({"precision": "tf32"}, "gmm-2d", "precision tf32 is there on device cuda alone, got device 'cpu'"),
        ({"compiled": "yes"}, "gmm-2d", "compiled must be True or False, got 'yes'"),
        (
            {"compiled": True},
            "pinn-poisson",
            "compiled steps have no second derivatives, which the loss of poisson takes; leave compiled out",
        ),
        (
            {"device": "cuda", "executor": "slurm", "jobs": 2},
            "gmm-2d",
            "device cuda goes with the executors local and here, got 'slurm'",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, asked, protocol, words):
    with pytest.raises(UsageError) as caught:
        bench(protocol, ["relu"], out=tmp_path / "study", **{"executor": "here", **asked})
    assert str(caught.value) == words
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_here_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"^device cuda was asked for, and PyTorch finds no CUDA device here; leave"):
        bench("gmm-2d", ["relu"], out=tmp_path / "study", device="cuda")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--device", "gpu"], "softknee: device must be one of cpu, cuda, got 'gpu'\n"),
        (["--precision", "tf32"], "softknee: precision tf32 is there on device cuda alone, got device 'cpu'\n"),
        (["--compile"], "softknee: compiled steps have no second derivatives, which the loss of poisson takes; leave "),
    ],
)
def test_the_command_line_hands_them_on(tmp_path, capsys, asked, words):
    assert run(["bench", "pinn-poisson", "-a", "tanh", "--out", str(tmp_path / "study"), *asked]) == 2
    assert capsys.readouterr().err.startswith(words)
    assert not (tmp_path / "study").exists()


def test_without_a_compiler_nothing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "compiler", lambda: None)
    with pytest.raises(UsageError, match=r"^compiled steps need a compiler, and there is none here; install one, or"):
        bench("gmm-2d", ["relu"], out=tmp_path, compiled=True)


def test_a_study_is_of_one_tier(tmp_path):
    asked = {"seeds": 1, "epochs": 1, "out": tmp_path, "executor": "here"}
    study = bench("gmm-2d", ["relu"], **asked, precision="bfloat16")
    assert {one.get("precision") for one in study.files.runs} == {"bfloat16"}
    assert study.files.manifest["precision"] == "bfloat16"
    with pytest.raises(StudyMismatch, match="its precision is bfloat16, asked for float32; give another folder as out"):
        bench("gmm-2d", ["relu"], **asked)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_tf32_is_allowed_where_it_was_declared_and_the_callers_choice_comes_back(precision):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def allowed():
        return matmul.allow_tf32, cudnn.allow_tf32

    before = allowed()
    with rounding("cuda", precision):
        assert allowed() == (precision == "tf32",) * 2
        assert (matmul.fp32_precision == "tf32") == (precision == "tf32")
    assert allowed() == before == (False, True)
    with pytest.raises(ZeroDivisionError), rounding("cuda", "tf32"):
        raise ZeroDivisionError
    assert allowed() == before
    with rounding("cpu", precision):
        assert allowed() == before


def test_bfloat16_is_the_plain_loop_with_casts_written_out(tmp_path):
    """Products in bfloat16; losses, scores, gradients of weights and the optimizer in float32."""
    job, plain = make_job(tmp_path, precision="bfloat16", epochs=1, save_epochs=(1,)), make_job(tmp_path, epochs=1)
    assert execute(job, ignore) == execute(plain, ignore) == "done"
    images = data.load("mini")
    inputs, test = (
        (torch.tensor(part).flatten(1).float() / 255 - 0.5) / 0.5 for part in (images.train_images, images.test_images)
    )
    labels = torch.tensor(images.train_labels).long()
    weights = list(build_mlp(SMALL, parse_choice("relu"), seed=0).parameters())
    optimizer = torch.optim.SGD(weights, lr=0.01, momentum=0.9)

    def forward(x):
        x = x.bfloat16()
        for index in range(0, 6, 2):
            x = F.linear(x, weights[index].bfloat16(), weights[index + 1].bfloat16())
            x = x.relu() if index < 4 else x
        return x.float()

    losses = []
    for batch in torch.randperm(10_000, generator=stream_generator(0, Stream.ORDER, 1)).split(128):
        loss = F.cross_entropy(forward(inputs[batch]), labels[batch])
        losses += [loss.item()] * len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = read_result(job.folder)
    expected = F.cross_entropy(forward(test).double(), torch.tensor(images.test_labels).long()).item()
    assert result["train_loss"][0] == pytest.approx(np.mean(losses), rel=1e-6)
    assert result["test_loss"][0] == pytest.approx(expected, rel=1e-6)
    assert result["test_loss"][0] != pytest.approx(read_result(plain.folder)["test_loss"][0], rel=1e-5)
    kept = torch.load(job.folder / "epoch-001.pt", weights_only=True)
    for ours, theirs in zip(kept.values(), weights, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)


def interrupted(folder, **changes):
    """A run that was stopped after its first epoch and went on."""

    def stop(epoch, score):
        raise Stop

    job = make_job(folder, epochs=3, **changes)
    with pytest.raises(Stop):
        execute(job, stop)
    torch.rand(7)
    assert execute(job, ignore) == "done"
    return job


@pytest.mark.parametrize("activation", ["rrelu", "staf"])
def test_a_run_in_bfloat16_goes_on_bit_by_bit(tmp_path, activation):
    whole = make_job(tmp_path / "whole", activation=activation, precision="bfloat16", epochs=3)
    execute(whole, ignore)
    assert numbers(interrupted(tmp_path / "cut", activation=activation, precision="bfloat16")) == numbers(whole)


@pytest.mark.parametrize("name", ["text-char", "regression-2d", "pinn-poisson", "rnn-digits", "tabular-mlp"])
def test_every_kind_of_task_takes_bfloat16(tmp_path, name):
    """Recurrence, dropout, batch norm, derivatives by inputs, and targets that are no classes."""
    recipe = PROTOCOLS[name].recipe
    small = recipe.model_copy(update={"steps": min(recipe.steps, 3)})
    task = load_tensors("library" if name == "text-char" else "generated", "test", recipe.task)
    changes = {"protocol": name, "recipe": small, "data": task.fingerprint, "activation": "tanh"}
    spec = make_job(tmp_path, precision="bfloat16").spec.model_copy(update=changes)
    job = Job(spec=spec, source="library" if name == "text-char" else "generated", folder=tmp_path / "runs" / spec.key)
    assert execute(job, ignore) == "done"
    assert all(np.isfinite(read_result(job.folder)["train_loss"]))


def test_outputs_in_bfloat16_come_in_float32_and_the_mode_is_the_models(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    called = forward_of(model, make_job(tmp_path, precision="bfloat16").spec, training=False).eval()
    assert isinstance(called, Bfloat16)
    assert not model.training
    outputs = called(x)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, outputs.bfloat16().float())
    assert forward_of(model, make_job(tmp_path).spec, training=True) is model


@pytest.fixture
def few_images(tmp_path, monkeypatch):
    """A folder with 150 + 30 images in the format of CIFAR-10, and nothing that expects others."""
    monkeypatch.setattr(image_sets, "SETS", {"cifar10": publish(CIFAR10, draw(CIFAR10), tmp_path)})
    load_tensors.cache_clear()
    yield tmp_path / "unpacked"
    load_tensors.cache_clear()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_fast_protocol_runs_on_a_few_images(tmp_path, few_images, precision):
    study = bench(
        "fast-resnet20-cifar10",
        ["prelu"],
        seeds=1,
        epochs=2,
        data=few_images,
        out=tmp_path / "study",
        executor="here",
        precision=precision,
    )
    (only,) = study.files.runs
    assert only.status == "done"
    assert read_result(only.path.parent)["counts"]["parameters"] == 272_474 + 19


def test_the_fast_family_is_the_public_networks_with_another_recipe():
    for name in ("resnet20-cifar10", "vgg16bn-cifar100", "mobilenetv2-fmnist"):
        fast, public = PROTOCOLS[f"fast-{name}"], PROTOCOLS[f"mls-{name}"]
        differing = {"batch_size": 512}
        assert fast.recipe == public.recipe.model_copy(update=differing)
        assert (fast.epochs, fast.learning_rate, fast.budget) == (30, 0.2, None)
        assert "do not compare with the public protocol's" in fast.description


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.slow
def test_compiled_steps_train_as_others_do_with_the_weights_of_the_plain_model(tmp_path):
    """A graph for each size of batch, not for each epoch; what went before in the process changes no number."""
    kinds = {"activation": "prelu[per_channel]", "save_epochs": (3,)}
    plain = make_job(tmp_path, epochs=3, **kinds)
    whole = make_job(tmp_path / "whole", epochs=3, compiled=True, **kinds)
    execute(plain, ignore)
    with torch._dynamo.config.patch(cache_size_limit=2):
        for activation in ("gelu", "mish"):
            before = graphs()
            assert execute(make_job(tmp_path, activation=activation, compiled=True), ignore) == "done"
            assert graphs() == before + 2
        assert execute(whole, ignore) == "done"
    ours, theirs = read_result(whole.folder), read_result(plain.folder)
    assert set(ours["engines"].values()) == {"compiled"}
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
    assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-4)
    states = [torch.load(job.folder / "epoch-003.pt", weights_only=True) for job in (whole, plain)]
    assert list(states[0]) == list(states[1])
    for one, other in zip(states[0].values(), states[1].values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    cut = interrupted(tmp_path / "cut", compiled=True, **kinds)
    assert numbers(cut) == numbers(whole)


@pytest.mark.slow
def test_noise_in_compiled_steps_goes_on_bit_by_bit(tmp_path):
    kinds = {"activation": "rrelu", "compiled": True, "precision": "bfloat16"}
    whole = make_job(tmp_path / "whole", epochs=3, **kinds)
    execute(whole, ignore)
    assert numbers(interrupted(tmp_path / "cut", **kinds)) == numbers(whole)


@on_gpu
@pytest.mark.parametrize("activation", ["relu", "prelu[per_channel]", "rrelu", "staf"])
@pytest.mark.parametrize("means", [{}, {"precision": "tf32"}, {"precision": "bfloat16"}, {"compiled": True}])
def test_a_gpu_trains_as_the_processor_does(tmp_path, activation, means):
    """The same weights, orders and examples; noise is drawn there, and sums round otherwise."""
    here = make_job(tmp_path, activation=activation)
    there = make_job(tmp_path, activation=activation, device="cuda", **means)
    before = torch.cuda.get_rng_state()
    assert execute(here, ignore) == execute(there, ignore) == "done"
    assert torch.equal(torch.cuda.get_rng_state(), before)
    ours, theirs = read_result(there.folder), read_result(here.folder)
    close = 2e-2 if activation == "rrelu" or "precision" in means else 1e-3
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=close)
    assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=close)
    assert ours["environment"]["gpu"] == torch.cuda.get_device_name()


@on_gpu
@pytest.mark.parametrize("means", [{}, {"compiled": True}])
def test_a_run_on_a_gpu_goes_on_and_its_weights_are_read_anywhere(tmp_path, means):
    job = interrupted(tmp_path, activation="prelu", device="cuda", save_epochs=(2,), **means)
    assert len(read_result(job.folder)["test_loss"]) == 3
    kept = torch.load(job.folder / "epoch-002.pt", weights_only=True)
    assert {tensor.device.type for tensor in kept.values()} == {"cpu"}


@on_gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_fast_protocol_runs_on_a_gpu(tmp_path, few_images, precision):
    asked = {"seeds": 2, "epochs": 2, "data": few_images, "out": tmp_path / "study", "device": "cuda"}
    study = bench("fast-resnet20-cifar10", ["relu", "mish"], **asked, precision=precision, compiled=True)
    assert {one.status for one in study.files.runs} == {"done"}
