"""The search by gradients: what it trains by what, and that it can be stopped anywhere."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from search_task import task
from torch import nn
from torch.testing import assert_close

import softknee as sk
from softknee._errors import OptionError, UsageError
from softknee._search.candidate import Candidate
from softknee._search.gradient import TRAJECTORY, find
from softknee._search.grafs import LOOKED_AT, Search, Settings, is_evaluated
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import FORWARD, Meter
from softknee._search.method import method_of
from softknee._search.schedule import TICKS, drops
from softknee._search.space import space_of

EPOCHS = 12
ONE = space_of("one-core")


def problem(**changes):
    return task(**{"epochs": EPOCHS, "make_model": lambda: plain(), **changes})


def plain():
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def search_of(problem, *, bilevel="clean", relaxation="drnas", steps=60, **changes):
    return Search(problem, ONE, Settings(bilevel, relaxation, 0.05, steps), 1000, seed=3, **changes)


def judge_of(problem, folder=None, budget=10.0):
    return Judge(problem, Meter(problem.run_steps, budget), Ledger(folder))


def found_by(judge, runs=2.5, **options):
    return find(judge, ONE, [], runs, np.random.default_rng(0), **options)


def begin(search):
    """Leave the warm start behind."""
    search.model.train()
    search.mixture.warm = False
    return next(search._training(0)), search._validation()


def test_clean_steps_leave_no_validation_gradient_in_the_weights():
    """The step of the weights is that of a network that never saw the validation batch."""
    one, other = search_of(problem()), search_of(problem())
    batch, validation = begin(one)
    one.mixture.requires_grad_(True)
    one._architecture_step(next(validation), joint=False)
    assert all(weight.grad is None for weight in one.weights)
    # The same mixture, and the same samples of it, without that step of the architecture.
    other.mixture.load_state_dict(one.mixture.state_dict())
    other.mixture.draws, other.mixture.warm = one.mixture.draws, False
    for search in (one, other):
        search.model.train()
        search.mixture.requires_grad_(False)
        search._gradients(search.task.loss(search.model, batch), search.weights, keep=False)
    assert_close([weight.grad for weight in one.weights], [weight.grad for weight in other.weights], atol=0, rtol=0)
    assert all(weight.grad is None for weight in one.architecture)


def test_joint_steps_add_what_the_other_left_behind_as_published():
    search = search_of(problem(), bilevel="joint")
    batch, validation = begin(search)
    held = next(validation)
    reference = search_of(problem(), bilevel="joint")
    begin(reference)
    search._architecture_step(held, joint=True)
    left = [weight.grad.clone() for weight in search.weights]
    search._gradients(search.task.loss(search.model, batch), search.weights, keep=True)
    both = [weight.grad for weight in search.weights]
    # The training gradient alone, by the same mixture and sample.
    reference.mixture.load_state_dict(search.mixture.state_dict())
    reference.mixture.draws = search.mixture.draws - 1
    alone = torch.autograd.grad(reference.task.loss(reference.model, batch), reference.weights)
    assert_close(both, [one + other for one, other in zip(left, alone, strict=True)])
    assert any(one.grad is not None and bool(one.grad.any()) for one in search.architecture)


def test_a_warm_start_freezes_what_decides_about_the_function():
    search = search_of(problem())
    before = [one.clone() for one in search.architecture]
    search.mixture.warm = True
    batch, validation = next(search._training(0)), search._validation()
    search._step(batch, validation)
    assert_close(before, [one.detach() for one in search.architecture], atol=0, rtol=0)
    assert search.validated == 0
    search.mixture.warm = False
    search._step(batch, validation)
    assert not torch.equal(before[0], search.architecture[0])
    assert search.validated == 1


def test_a_warm_start_is_with_what_the_model_had():
    of = problem()
    search = search_of(of)
    search.mixture.warm = True
    x = next(of.batches(0, 0))[0]
    assert_close(search.model(x), of.fresh(1000)(x), atol=0, rtol=0)
    search.mixture.warm = False
    assert not torch.equal(search.model(x), of.fresh(1000)(x))


def test_the_optimizer_that_was_published_trains_all_that_decides():
    search = search_of(problem())
    (group,) = search.architecture_optimizer.param_groups
    assert isinstance(search.architecture_optimizer, torch.optim.Adam)
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.05, (0.5, 0.999), 1e-3)
    assert set(map(id, group["params"])) == set(map(id, search.mixture.parameters()))
    held = {id(one) for group in search.optimizer.param_groups for one in group["params"]}
    assert held.isdisjoint(map(id, group["params"]))


def test_a_step_that_is_not_finite_is_left_out_and_counted():
    search = search_of(problem())
    batch, validation = begin(search)
    weights = [one.detach().clone() for one in search.weights]
    search._step((batch[0] * float("nan"), batch[1]), validation)
    assert search.notes.skipped == 1
    assert_close(weights, [one.detach() for one in search.weights], atol=0, rtol=0)


def test_a_joint_step_takes_nothing_from_one_that_was_left_out():
    search, reference = search_of(problem(), bilevel="joint"), search_of(problem(), bilevel="joint")
    batch, _ = begin(search)
    begin(reference)
    search._architecture_step((batch[0] * float("nan"), batch[1]), joint=True)
    # The same sample of the mixture, without that step before.
    reference.mixture.draws = search.mixture.draws
    for one in (search, reference):
        one._gradients(one.task.loss(one.model, batch), one.weights, keep=True)
    assert_close([one.grad for one in search.weights], [one.grad for one in reference.weights], atol=0, rtol=0)
    assert search.notes.skipped == 1


@pytest.mark.parametrize("all_of_it", [True, False], ids=["all batches", "training batches"])
def test_a_search_that_goes_nowhere_is_given_up(all_of_it):
    search = search_of(problem())
    batch, validation = begin(search)
    broken = (batch[0] * float("nan"), batch[1])
    held = iter([broken] * 50) if all_of_it else validation
    for _ in range(10):
        search._step(broken, held)
    search._step(batch, validation)
    for _ in range(19):
        search._step(broken, held)
    with pytest.raises(UsageError, match="had no finite loss in 20 steps; lower the learning rate"):
        search._step(broken, held)


@pytest.mark.parametrize("bilevel", ["clean", "joint"])
@pytest.mark.parametrize("relaxation", ["drnas", "darts"])
def test_it_ends_with_one_function_and_tells_how_it_got_there(bilevel, relaxation):
    judge = judge_of(problem())
    found = found_by(judge, bilevel=bilevel, relaxation=relaxation)
    assert found
    assert all(isinstance(one, Candidate) and one.origin == "grafs" for one in found)
    trajectory = judge.ledger.read(TRAJECTORY)
    assert [slot[0] for slot in trajectory["slots"]] == ["U0", "U1", "B0"]
    assert len(trajectory["ticks"]) == TICKS
    last = trajectory["ticks"][-1]["weights"]
    assert [[share for share in slot if share is not None] for slot in last] == [[1.0]] * 3
    assert len(trajectory["drops"]) == ONE.slots - 3
    counts = [sum(drop[0] == tick for drop in trajectory["drops"]) for tick in range(TICKS)]
    assert tuple(counts) == drops(ONE.slots - 3)
    assert [tick["validation"] is not None for tick in trajectory["ticks"]] == [*map(is_evaluated, range(TICKS))]
    for one in found:
        sk.create(one.functions[0].text)
    json.dumps(trajectory, allow_nan=False)


def test_it_charges_for_both_passes_and_for_looking():
    judge = judge_of(problem())
    found_by(judge)
    steps, looks = judge.task.run_steps, sum(map(is_evaluated, range(TICKS)))
    warm = -(-steps // TICKS)
    wanted = 2 * steps - warm + looks * FORWARD * judge.task.val_steps
    assert judge.meter.phases["grafs"].runs * steps == pytest.approx(wanted)
    assert judge.meter.spent <= 2.5


def test_a_larger_budget_searches_several_times():
    judge = judge_of(problem())
    found_by(judge, runs=5.1)
    assert 4 < judge.meter.spent <= 5.1


def test_groups_find_a_function_each():
    judge = judge_of(task(epochs=EPOCHS, scope="site"))
    found = found_by(judge)
    assert all(len(one.functions) == 2 for one in found)
    slots = [slot[0] for slot in judge.ledger.read(TRAJECTORY)["slots"]]
    assert slots[0].endswith(": U0")
    assert len(set(slots)) == 6


class Stopped(Exception):
    """Somebody stops the search."""


@cache
def undisturbed(bilevel):
    """What is found, how, and at what cost."""
    judge = judge_of(problem())
    return found_by(judge, bilevel=bilevel), judge.ledger.read(TRAJECTORY), judge.meter.spent


@pytest.mark.parametrize(("at", "bilevel"), [(1, "clean"), (27, "clean"), (TICKS, "clean"), (9, "joint")])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, at, bilevel):
    stopped = judge_of(problem(), tmp_path / "stopped")
    keep, calls = stopped.ledger.keep_state, []

    def stop(*given):
        keep(*given)
        calls.append(given)
        if len(calls) == at:
            raise Stopped

    monkeypatch.setattr(stopped.ledger, "keep_state", stop)
    with pytest.raises(Stopped):
        found_by(stopped, bilevel=bilevel)
    again = judge_of(problem(), tmp_path / "stopped")
    found, trajectory, spent = undisturbed(bilevel)
    assert found_by(again, bilevel=bilevel) == found
    assert again.ledger.read(TRAJECTORY) == trajectory
    assert again.meter.spent == pytest.approx(spent)


def test_a_second_request_is_answered_from_the_ledger(tmp_path):
    first = judge_of(problem(), tmp_path)
    found = found_by(first)
    second = judge_of(problem(make_model=lambda: plain()), tmp_path)
    assert found_by(second) == found
    assert second.meter.spent == first.meter.spent


def test_it_is_chosen_with_options_in_brackets():
    judge = judge_of(problem())
    method = method_of("grafs[bilevel=joint,rate=0.1]")
    assert method.options == (("bilevel", "joint"), ("rate", 0.1))
    assert method.find(judge, ONE, [], 2.5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grafs[bilvel=joint]", "'bilvel=joint' is no option of this search method; it has bilevel, relaxation, rate"),
        ("random[rate=1]", "'rate=1' is no option of this search method; it has none"),
        ("graffs", "no search method named 'graffs'; did you mean 'grafs'?"),
    ],
    ids=["misspelt", "none", "no method"],
)
def test_bad_choices(text, message):
    with pytest.raises((OptionError, UsageError), match=message):
        method_of(text)


def test_runs_too_short_are_refused_before_any_training():
    with pytest.raises(UsageError, match="needs runs of at least 50 steps, these have 15"):
        method_of("grafs").check(task(), ONE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bilevel": "both"}, "bilevel must be one of clean, joint, got 'both'"),
        ({"relaxation": "gdas"}, "relaxation must be one of drnas, darts, got 'gdas'"),
        ({"rate": 0.0}, "rate must be a positive number, got 0.0"),
        ({"runs": 1.2}, "a search by gradients needs at least 50 steps, and [0-9]+ may be spent"),
    ],
    ids=["bilevel", "relaxation", "rate", "runs"],
)
def test_bad_requests(options, message):
    with pytest.raises((OptionError, UsageError), match=message):
        found_by(judge_of(problem()), **options)


def normed():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 1))


def test_a_function_is_evaluated_with_batch_norms_set_for_it():
    search = search_of(problem(make_model=normed))
    norm = next(one for one in search.model.modules() if isinstance(one, nn.BatchNorm1d))
    with torch.no_grad():
        norm.running_mean.fill_(100.0)
    state = {name: one.clone() for name, one in search.model.state_dict().items()}
    modes = [one.training for one in search.model.modules()]
    loss = search._evaluated()
    batches = [batch[0] for batch in search.task.batches(search.run, 0)][:LOOKED_AT]
    hidden = [search.model[0](batch) for batch in batches]
    mean = torch.stack([one.mean(0) for one in hidden]).mean(0)
    variance = torch.stack([one.var(0) for one in hidden]).mean(0)
    assert_close(dict(search.model.state_dict()), state, atol=0, rtol=0)
    assert [one.training for one in search.model.modules()] == modes
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    assert float(search.task.evaluate(search.model, search.task.val_batches).mean()) == pytest.approx(loss, rel=1e-4)


def test_looking_at_batches_is_charged():
    plainly, normally = (search_of(problem(make_model=make)) for make in (plain, normed))
    for search in (plainly, normally):
        search._evaluated()
    assert normally.notes.charged - plainly.notes.charged == pytest.approx(
        FORWARD * min(LOOKED_AT, normally.task.steps)
    )
