"""Runs that are trained side by side have the numbers that each has alone, bit by bit."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from test_train import TIMES

import softknee
from softknee._bench import pack as module
from softknee._bench import packed
from softknee._bench.attempts import Attempt, _write, machine
from softknee._bench.compare import bench
from softknee._bench.execute import run_here, run_in_children
from softknee._bench.pack import shares
from softknee._bench.packed import ONE, STACKED, products_for, shape_of
from softknee._bench.protocols import PROTOCOLS
from softknee._bench.runs import CHECKPOINT, Job, RunSpec, read_result
from softknee._bench.tasks import TASKS
from softknee._catalogue import create

# Of every kind: fixed ones, one with parameters, one with some for each channel, a rational, one that diverges.
ACTIVATIONS = ("relu", "gelu", "gelu", "prelu", "swish[per_channel]", "pau", "x**9")


def make_job(folder, activation="gelu", protocol="gmm-2d", **changes):
    fixed = PROTOCOLS[protocol]
    task = TASKS[fixed.recipe.task]
    source = task.source(None)
    fields = {
        "protocol": protocol, "recipe": fixed.recipe, "activation": activation, "definition": "", "seed": 0,
        "initialization": "default", "learning_rate": fixed.learning_rate, "epochs": 3, "split": "test",
        "data": task.facts(source).fingerprint,
    }  # fmt: skip
    spec = RunSpec(**{**fields, **changes})
    return Job(spec=spec, source=source, folder=folder / "runs" / spec.key)


def numbers(job):
    return {name: value for name, value in read_result(job.folder).items() if name not in TIMES}


def ignore(*_):
    pass


def alone(tmp_path, jobs):
    same = [job.model_copy(update={"folder": tmp_path / "alone" / "runs" / job.spec.key}) for job in jobs]
    run_here(same, ignore)
    return same


@pytest.fixture
def packed_epochs(monkeypatch):
    """How many runs were in each epoch that was trained side by side."""
    found, train = [], module.train_epoch_packed

    def counted(members, *sizes):
        trained = train(members, *sizes)
        found.append(len(members))
        return trained

    monkeypatch.setattr(module, "train_epoch_packed", counted)
    return found


@pytest.mark.parametrize(
    ("protocol", "batch_size", "threads"),
    [("gmm-2d", 100, 1), ("gmm-2d", 77, 3), ("mnist1d", 100, 2), ("fashion-mlp", 500, 1)],
)
def test_numbers_are_those_of_each_alone(tmp_path, packed_epochs, protocol, batch_size, threads):
    smaller = {"widths": (784, 32, 16, 10)} if protocol == "fashion-mlp" else {}
    recipe = PROTOCOLS[protocol].recipe.model_copy(update={"batch_size": batch_size, **smaller})
    given = {"recipe": recipe, "threads": threads, "epochs": 2 if protocol == "gmm-2d" else 1}
    jobs = [
        make_job(tmp_path, text, protocol, seed=seed, learning_rate=rate, **given)
        for seed, (text, rate) in enumerate(zip(ACTIVATIONS, (0.01, 0.01, 0.02, 0.01, 0.01, 0.01, 0.5), strict=True))
    ]
    run_here(jobs, ignore, pack=8)
    assert packed_epochs in ([7], [7, 6], [7, 7])
    single = alone(tmp_path, jobs)
    for job, other in zip(jobs, single, strict=True):
        assert numbers(job) == numbers(other)
        assert read_result(job.folder)["step_seconds"] is None
    assert read_result(single[0].folder)["step_seconds"] > 0


@pytest.mark.slow
def test_the_whole_catalogue_has_the_numbers_of_each_alone(tmp_path, packed_epochs):
    """Also the last batch, which is smaller: its elements fill no vectors."""
    recipe = PROTOCOLS["gmm-2d"].recipe.model_copy(update={"widths": (2, 12, 12, 5), "batch_size": 320})
    jobs = [
        make_job(tmp_path, text, recipe=recipe, seed=seed, epochs=1)
        for text in (*softknee.list(), "prelu[per_channel]", "x*tanh(exp(x))")
        for seed in (0, 1)
    ]
    run_here(jobs, ignore, pack=8)
    assert sum(packed_epochs) > 0.8 * len(jobs)
    for job, other in zip(jobs, alone(tmp_path, jobs), strict=True):
        assert numbers(job) == numbers(other), job.spec.activation


def test_large_perceptrons_are_left_alone(tmp_path):
    jobs = [make_job(tmp_path, protocol="fashion-mlp", seed=seed) for seed in range(2)]
    assert shares(jobs, pack=8, slots=1) == [(job,) for job in jobs]


def test_options_that_look_alike_are_two(tmp_path, packed_epochs):
    recipe = PROTOCOLS["gmm-2d"].recipe.model_copy(update={"widths": (2, 64, 5), "batch_size": 100})
    texts = ("celu[alpha=1.2345678]", "celu[alpha=1.2345699]")
    jobs = [make_job(tmp_path, text, recipe=recipe, epochs=1) for text in texts]
    run_here(jobs, ignore, pack=2)
    assert packed_epochs == [2]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


@pytest.mark.parametrize("threads", [1, 3])
def test_activations_that_are_alike_have_the_bits_of_each(threads):
    """Three threads part 7 x 13,312 elements within vectors; torch's sigmoid has other bits at such ends."""
    before, sites = torch.get_num_threads(), [create("sigmoid") for _ in range(7)]
    x, g = torch.randn(2, 7, 128, 104, generator=torch.Generator().manual_seed(0))
    together, each = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.set_num_threads(threads)
    try:
        outputs = packed._Activations(sites)(together)
        singles = torch.stack([site(part) for site, part in zip(sites, each.unbind(), strict=True)])
        for value in (outputs, singles):
            value.backward(g)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outputs, singles)
    assert torch.equal(together.grad, each.grad)


def test_what_diverges_leaves_the_others(tmp_path, packed_epochs):
    jobs = [make_job(tmp_path, text, learning_rate=1.0) for text in ("relu", "x**9", "tanh")]
    run_here(jobs, ignore, pack=3)
    assert packed_epochs == [3, 2, 2]
    assert [read_result(job.folder)["status"] for job in jobs] == ["done", "diverged", "done"]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


def test_interrupted_packs_go_on_with_other_runs_beside(tmp_path, packed_epochs):
    jobs = [make_job(tmp_path, seed=seed) for seed in range(4)]

    def interrupt(event):
        if event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_here(jobs[:3], interrupt, pack=3)
    sizes = [(job.folder / CHECKPOINT).stat().st_size for job in jobs[:3]]
    assert max(sizes) < 60_000  # nobody's checkpoint holds what the others are views of
    run_here(jobs, ignore, pack=4)
    assert packed_epochs == [3, 3, 2, 2][: len(packed_epochs)]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


@pytest.mark.parametrize("text", ["maxout", "rrelu", "softmax"])
def test_what_cannot_be_packed_is_trained_by_itself(tmp_path, packed_epochs, text):
    jobs = [make_job(tmp_path, one, epochs=1) for one in ("relu", "gelu", text)]
    run_here(jobs, ignore, pack=3)
    assert packed_epochs == [2]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


@pytest.mark.parametrize("protocol", ["regression-1d", "regression-2d"])
def test_points_and_products_of_other_bits(tmp_path, packed_epochs, protocol):
    """Products with one column have other bits in a stack on some machines."""
    recipe = PROTOCOLS[protocol].recipe.model_copy(update={"steps": 20})
    jobs = [make_job(tmp_path, "tanh", protocol, recipe=recipe, seed=seed) for seed in range(3)]
    run_here(jobs, ignore, pack=3)
    assert packed_epochs == [3, 3, 3]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


def test_losses_of_another_kind_are_left_alone(tmp_path, packed_epochs):
    recipe = PROTOCOLS["pinn-poisson"].recipe.model_copy(update={"steps": 5})
    jobs = [make_job(tmp_path, "tanh", "pinn-poisson", recipe=recipe, seed=seed, epochs=1) for seed in range(2)]
    run_here(jobs, ignore, pack=2)
    assert packed_epochs == []
    assert [read_result(job.folder)["status"] for job in jobs] == ["done"] * 2


def test_a_run_that_fails_fails_alone(tmp_path, monkeypatch):
    jobs = [make_job(tmp_path, seed=seed) for seed in range(3)]
    build = module.Course.__init__

    def refuse(self, job):
        build(self, job)
        if job.spec.seed == 1:
            self.model.register_forward_pre_hook(lambda *_: 1 / 0)

    monkeypatch.setattr(module.Course, "__init__", refuse)
    run_here(jobs, ignore, pack=3)
    assert [read_result(job.folder)["status"] for job in jobs] == ["done", "failed", "done"]


def test_shares_hold_what_differs_in_activation_seed_and_rate_alone(tmp_path):
    jobs = [make_job(tmp_path, text, seed=seed) for seed in (0, 1) for text in ("relu", "gelu", "silu")]
    others = [make_job(tmp_path, epochs=5), make_job(tmp_path, recipe=PROTOCOLS["digits-cnn"].recipe)]
    assert shares([*jobs, *others], pack=1, slots=1) == [(job,) for job in (*jobs, *others)]
    found = shares([*jobs, *others], pack=4, slots=1)
    assert sorted(map(len, found)) == [1, 1, 2, 4]
    assert {job for share in found for job in share} == {*jobs, *others}
    assert sorted(map(len, shares(jobs, pack=8, slots=2))) == [3, 3]


def test_what_may_be_the_end_of_its_process_is_alone_in_its_share(tmp_path):
    jobs = [make_job(tmp_path, text) for text in ("relu", "gelu", "silu", "submission:mine.py")]
    jobs[0].folder.mkdir(parents=True)
    _write(jobs[0].folder, Attempt(1, machine(), 2**22 + 1))
    assert shares(jobs, pack=8, slots=1) == [(jobs[0],), (jobs[1], jobs[2]), (jobs[3],)]


def test_a_process_that_dies_loses_nothing_and_its_runs_go_on_by_themselves(tmp_path, monkeypatch):
    from softknee._bench import execute as executor

    jobs, pids, asked = [make_job(tmp_path, seed=seed, epochs=4) for seed in range(3)], [], []
    run = executor._Child.run

    def watched(self, share, put):
        pids.append(self.pid)
        asked.append(len(share))
        return run(self, share, put)

    def kill_once(event):
        if len(pids) == 1:
            os.kill(pids[0], signal.SIGKILL)

    monkeypatch.setattr(executor._Child, "run", watched)
    run_in_children(jobs, kill_once, slots=1, pack=3)
    assert asked == [3, 1, 1, 1]
    assert list(map(numbers, jobs)) == list(map(numbers, alone(tmp_path, jobs)))


def test_a_packed_study_is_that_of_an_unpacked_one_but_for_times(tmp_path):
    given = {"seeds": 2, "epochs": 1, "executor": "here"}
    plain = bench("gmm-2d", ["relu", "gelu"], out=tmp_path / "plain", **given)
    study = bench("gmm-2d", ["relu", "gelu"], out=tmp_path / "packed", pack=4, **given)
    rows = [(row.activation, row.mean, row.low, row.p) for row in study.table[0].rows]
    assert rows == [(row.activation, row.mean, row.low, row.p) for row in plain.table[0].rows]
    assert {row.step_seconds for row in study.table[0].rows} == {None}
    study.to_html(tmp_path / "report.html")


def test_products_are_compared_on_this_machine(monkeypatch):
    products_for.cache_clear()
    assert products_for(3, 8, 16, 5, 1).into_biases is STACKED.into_biases
    other = STACKED._replace(outputs=lambda x, weight, bias: STACKED.outputs(x, weight, bias) * (1 + 2e-7))
    monkeypatch.setattr(packed, "STACKED", other)
    products_for.cache_clear()
    found = products_for(3, 8, 16, 5, 1)
    x, weight, bias = (torch.randn(3, *shape) for shape in ((8, 16), (5, 16), (5,)))
    each = torch.stack([ONE.outputs(*parts) for parts in zip(x, weight, bias, strict=True)])
    assert torch.equal(found.outputs(x, weight, bias), each)
    assert not torch.equal(other.outputs(x, weight, bias), each)
    products_for.cache_clear()


def test_shapes_are_those_of_perceptrons():
    def model(*layers):
        return torch.nn.Sequential(torch.nn.Linear(3, 4), *layers, torch.nn.Linear(4, 2))

    assert shape_of(model(create("prelu"))) == ((3, 4), None, (4, 2))
    assert shape_of(model(create("rrelu"))) is None
    assert shape_of(model(torch.nn.BatchNorm1d(4))) is None
