import math
import sys
import time

import numpy as np
import pytest
import search_child
import torch
from search_process import await_, process
from search_task import EPOCHS, candidate, data, make_model, task, train_step

from softknee._errors import UsageError
from softknee._search import train
from softknee._search.judge import VERIFY, Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import BudgetSpent, Cost, Meter

STEPS = 5 * EPOCHS
VALIDATION, TEST = 2 / 3 / STEPS, 3 / 3 / STEPS


@pytest.fixture(params=["memory", "folder"])
def ledger(request, tmp_path):
    return Ledger(None if request.param == "memory" else tmp_path / "search")


def judging(of=None, *, ledger=None, budget=math.inf):
    of = of or task()
    return Judge(of, Meter(of.run_steps, budget), ledger or Ledger())


class Watched:
    """A training step that keeps what it sees, and that fails where it is told to."""

    def __init__(self, fails=lambda model, batch: False):
        self.fails = fails
        self.seen = []

    def __call__(self, model, batch):
        loss = train_step(model, batch)
        if model.training:
            noise = torch.nn.functional.dropout(torch.ones(20))
            self.seen.append((model[0].weight.detach().clone(), batch[0], noise))
        return loss * float("nan") if self.fails(model, batch) else loss

    def task(self, **changes):
        of = task(train_step=self, **changes)
        self.seen.clear()
        return of


def is_tanh(model):
    return "anh" in repr(model[1])


def test_a_score_is_that_of_a_plain_loop():
    of = task(make_model=lambda: make_model(dropout=0.0))
    score = judging(of).score(candidate(), 2, phase="draw")
    model = of.model(2, lambda *_: "tanh")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    before = of.evaluate(model, of.val_batches).mean()
    for epoch in range(EPOCHS):
        for batch in of.batches(2, epoch):
            optimizer.zero_grad()
            train_step(model, batch).backward()
            optimizer.step()
    assert score.losses == tuple(of.evaluate(model, of.val_batches))
    assert score.failure is None
    assert score.loss == pytest.approx(np.mean(score.losses))
    assert score.loss < 0.9 * before


def test_candidates_of_one_run_see_the_same_weights_batches_and_noise():
    step = Watched()
    judge = judging(step.task())
    judge.score(candidate("tanh"), 1, phase="draw")
    one = list(step.seen)
    step.seen.clear()
    judge.score(candidate("x * sigmoid(a * x)", a=1.0), 1, phase="draw")
    assert len(one) == len(step.seen) == STEPS
    assert torch.equal(one[0][0], step.seen[0][0])
    assert not torch.equal(one[1][0], step.seen[1][0])
    for before, after in zip(one, step.seen, strict=True):
        assert torch.equal(before[1], after[1])
        assert torch.equal(before[2], after[2])
    step.seen.clear()
    judge.score(candidate("tanh"), 2, phase="draw")
    assert not torch.equal(one[0][0], step.seen[0][0])
    assert not torch.equal(one[0][1], step.seen[0][1])
    assert not torch.equal(one[0][2], step.seen[0][2])


@pytest.mark.parametrize("parts", [(1 / 3, 1.0), (0.1, 0.4, 0.41, 1.0)], ids=["epochs", "within epochs"])
def test_parts_are_the_same_run_and_nothing_is_trained_twice(parts, ledger):
    step = Watched()
    of = step.task()
    straight = judging(of).score(candidate(), 0, phase="draw")
    one = list(step.seen)
    step.seen.clear()
    judge = judging(of, ledger=ledger)
    scores = [judge.score(candidate(), 0, part, phase="draw") for part in parts]
    assert scores[-1].losses == straight.losses
    assert scores[0].losses != straight.losses
    assert len(step.seen) == STEPS
    assert all(torch.equal(*pair) for both in zip(one, step.seen, strict=True) for pair in zip(*both, strict=True))
    assert [score.part for score in judge.scores] == list(parts)


def test_states_are_kept_only_while_a_run_may_go_on(tmp_path):
    memory, folder = judging(), judging(ledger=Ledger(tmp_path))
    for judge in (memory, folder):
        judge.score(candidate("tanh"), 0, 0.5, phase="draw")
        judge.score(candidate("gelu"), 0, 0.5, phase="draw")
        judge.score(candidate("tanh"), 0, phase="draw")
        judge.release(candidate("gelu"), 0)
    assert not memory.ledger._states
    assert not list((tmp_path / "checkpoints").iterdir())
    # A run that was let go of can still be asked for, with the same result; it is paid for from its start.
    full = memory.score(candidate("gelu"), 0, phase="draw")
    assert full.losses == judging().score(candidate("gelu"), 0, phase="draw").losses
    assert full.cost == pytest.approx(1 + VALIDATION)
    assert memory.meter.spent == pytest.approx(2 * (8 / STEPS + VALIDATION) + 7 / STEPS + VALIDATION + full.cost)


def test_the_meter_adds_up():
    judge = judging()
    assert judge.price(0.5, phase="draw") == pytest.approx(8 / STEPS + VALIDATION)
    assert judge.price(phase="draw", after=0.5) == pytest.approx(7 / STEPS + VALIDATION)
    assert judge.price(phase=VERIFY) == pytest.approx(1 + VALIDATION + TEST)
    half = judge.score(candidate(), 0, 0.5, phase="halving")
    assert half.cost == half.spent == judge.meter.spent == pytest.approx(8 / STEPS + VALIDATION)
    full = judge.score(candidate(), 0, phase="halving")
    assert judge.meter.spent == pytest.approx(1 + 2 * VALIDATION)
    assert judge.score(candidate(), 0, phase="other") == full
    assert judge.meter.spent == pytest.approx(1 + 2 * VALIDATION)
    judge.score(candidate(), 1, phase=VERIFY)
    runs, seconds = judge.meter.phases[VERIFY]
    assert runs == pytest.approx(1 + VALIDATION + TEST)
    assert seconds > 0
    assert list(judge.meter.phases) == ["halving", VERIFY]
    assert sum(one.cost for one in judge.scores) == pytest.approx(judge.meter.spent)
    halving = judge.meter.phases["halving"].seconds
    assert judge.meter.pace == pytest.approx((halving + seconds) / judge.meter.spent)


def test_every_evaluation_is_counted_in_seconds():
    def step(model, batch):
        if not model.training:
            time.sleep(0.02)
        return train_step(model, batch)

    judge = judging(task(train_step=step))
    scores = [judge.score(candidate(), 0, part, phase="draw") for part in (0.2, 0.4, 1.0)]
    # Two batches of validation each.
    assert judge.meter.phases["draw"].seconds >= 3 * 2 * 0.02
    assert scores[0].seconds >= 2 * 0.02


def test_limits_of_the_meter():
    meter = Meter(10, budget=5.0)
    assert meter.pace is None
    with meter.limited(2.0):
        meter.allow(20)
        meter.charge("one", 15, 0.5)
        with meter.limited(3.0):
            assert meter.left == pytest.approx(0.5)
        with pytest.raises(BudgetSpent, match=r"0.6 runs are needed, and 0.5 are left"):
            meter.allow(6)
        meter.charge("one", 5, 0.5)
        assert meter.left == 0
    assert meter.left == pytest.approx(3.0)
    with meter.limited(100.0):
        assert meter.left == pytest.approx(3.0)
    assert meter.phases == {"one": Cost(2.0, 1.0)}


def test_nothing_is_trained_beyond_the_budget():
    step = Watched()
    judge = judging(step.task(), budget=1.5)
    judge.score(candidate("tanh"), 0, phase="draw")
    step.seen.clear()
    with pytest.raises(BudgetSpent):
        judge.score(candidate("gelu"), 0, phase="draw")
    assert not step.seen
    assert judge.meter.spent == pytest.approx(1 + VALIDATION)
    judge.score(candidate("gelu"), 0, 0.4, phase="draw")


def test_a_search_that_goes_on_takes_the_same_decisions_without_training(tmp_path):
    def decide(of):
        judge = judging(of, ledger=Ledger(tmp_path), budget=5.0)
        judge.score(candidate("tanh"), 0, 0.5, phase="halving")
        judge.score(candidate("x * 1e30"), 0, phase="halving")
        judge.score(candidate("tanh"), 0, phase="halving")
        judge.score(candidate("tanh"), 1, phase=VERIFY)
        with pytest.raises(BudgetSpent):
            [judge.score(candidate("gelu"), run, phase=VERIFY) for run in range(1, 4)]
        return judge

    first = decide(task())
    step = Watched()
    second = decide(step.task())
    assert not step.seen
    assert second.scores == first.scores
    assert second.meter.phases == first.meter.phases
    assert (second.test(candidate("tanh"), 1) == first.test(candidate("tanh"), 1)).all()


def test_runs_that_diverge_fail_with_their_reason_and_are_charged_for_what_ran(ledger):
    judge = judging(ledger=ledger)
    part = judge.score(candidate("x * 1e30"), 0, 0.7, phase="draw")
    assert part.failure in {f"the training loss was {value} at step 5" for value in ("inf", "nan")}
    assert part.losses == ()
    assert part.loss == math.inf
    assert judge.meter.spent == pytest.approx(5 / STEPS)
    full = judge.score(candidate("x * 1e30"), 0, phase="draw")
    assert full.failure == part.failure
    assert full.part == 1.0
    assert judge.meter.spent == pytest.approx(5 / STEPS)
    assert (part.cost, full.cost) == (pytest.approx(5 / STEPS), 0)
    # Nor is it paid again once it was let go of.
    judge.release(candidate("x * 1e30"), 0)
    assert judge.score(candidate("x * 1e30"), 0, 0.9, phase="draw").failure == part.failure
    assert judge.meter.spent == pytest.approx(5 / STEPS)
    assert ledger.state("anything") is None


def test_a_loss_that_is_not_finite_is_seen_within_a_few_steps():
    judge = judging(task(train_batches=[data(16, 0).tensors] * 200, epochs=1))
    assert judge.score(candidate("x * 1e30"), 0, phase="draw").failure.endswith(f"at step {train.LOOKS}")


def test_losses_of_the_evaluation_must_be_finite():
    step = Watched(lambda model, batch: not model.training and is_tanh(model))
    judge = judging(step.task())
    score = judge.score(candidate("tanh"), 0, phase="draw")
    assert score.failure == f"the validation loss was nan after step {STEPS}"
    assert score.loss == math.inf
    assert judge.meter.spent == pytest.approx(1 + VALIDATION)

    step = Watched(lambda model, batch: len(batch[0]) == 7 and is_tanh(model))
    judge = judging(step.task(test_batches=[data(7, 3).tensors]))
    assert judge.score(candidate("tanh"), 0, phase="draw").failure is None
    assert judge.score(candidate("tanh"), 1, phase=VERIFY).failure == f"the test loss was nan after step {STEPS}"
    assert judge.score(candidate("gelu"), 1, phase=VERIFY).failure is None


def test_test_losses_are_there_after_a_verified_run_only():
    of = task()
    judge = judging(of)
    judge.score(candidate(), 0, phase="draw")
    with pytest.raises(UsageError, match="tanh was not evaluated on test data in run 0"):
        judge.test(candidate(), 0)
    judge.score(candidate(), 1, phase=VERIFY)
    training = train.Training(of, candidate(), 1)
    training.advance(STEPS, lambda state: None)
    assert (judge.test(candidate(), 1) == of.evaluate(training.model, of.test_batches)).all()


def test_a_run_of_another_phase_is_verified_by_training_it_again():
    judge = judging()
    before = judge.score(candidate(), 0, phase="draw")
    after = judge.score(candidate(), 0, phase=VERIFY)
    assert after.losses == before.losses
    assert len(judge.test(candidate(), 0)) == 3
    assert judge.meter.phases[VERIFY].runs == pytest.approx(1 + VALIDATION + TEST)
    assert judge.score(candidate(), 0, phase=VERIFY).spent == judge.meter.spent


def test_without_test_data_runs_are_verified_on_validation_data_alone():
    judge = judging(task(test_batches=None))
    assert judge.price(phase=VERIFY) == pytest.approx(1 + VALIDATION)
    judge.score(candidate(), 0, phase=VERIFY)
    with pytest.raises(UsageError, match="was not evaluated on test data"):
        judge.test(candidate(), 0)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions take notes since Python 3.11")
def test_errors_of_the_step_come_with_a_note_of_candidate_and_step():
    def step(model, batch):
        if is_tanh(model) and model.training:
            calls.append(1)
            if len(calls) == 7:
                raise FloatingPointError("overflow in my code")
        return train_step(model, batch)

    calls = []
    judge = judging(task(train_step=step))
    with pytest.raises(FloatingPointError, match="overflow in my code") as raised:
        judge.score(candidate("tanh"), 3, phase="draw")
    assert raised.value.__notes__ == ["while training tanh, run 3, step 7"]
    assert judge.meter.spent == 0


def test_parts_have_whole_steps():
    of = task(train_batches=[data(4, 0).tensors] * 10, epochs=10)
    assert 0.07 * 100 > 7
    assert [of.steps_of(part) for part in (0.001, 0.01, 0.07, 0.7, 0.701, 1.0)] == [1, 1, 7, 70, 71, 100]


def test_what_is_asked_must_fit():
    judge = judging()
    with pytest.raises(UsageError, match="tanh has 2 functions for 1 groups of sites"):
        judge.score(candidate(groups=2), 0, phase="draw")
    with pytest.raises(UsageError, match="part must be above 0 and at most 1, got 0"):
        judge.score(candidate(), 0, 0.0, phase="draw")
    with pytest.raises(UsageError, match="part must be above 0 and at most 1, got 1.5"):
        judge.price(1.5, phase="draw")
    with pytest.raises(UsageError, match="no activation named 'tonh'"):
        judge.score(candidate("tonh"), 0, phase="draw")
    assert judge.meter.spent == 0


def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path):
    def step(model, batch):
        trained.append(model.training)
        return train_step(model, batch)

    trained = []
    checkpoints = tmp_path / "checkpoints"
    for _ in range(2):
        before = _written(checkpoints)
        with process(search_child.score_and_save, tmp_path) as child:
            await_(lambda before=before: _written(checkpoints) != before, child)
    scores, judge = search_child.score(tmp_path, step)
    assert 0 < sum(trained) < 5 * search_child.EPOCHS
    whole, _ = search_child.score(None, train_step)
    assert [score.losses for score in scores] == [score.losses for score in whole]
    assert not list(checkpoints.glob("*.pt"))
    assert judge.meter.spent == pytest.approx(1 + 2 * 2 / 3 / (5 * search_child.EPOCHS))


def _written(folder):
    return max((path.stat().st_mtime_ns for path in folder.glob("*.pt")), default=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_models_on_a_gpu():
    def step(model, batch):
        return train_step(model, [one.cuda() for one in batch])

    of = task(make_model=lambda: make_model().cuda(), train_step=step)
    before = torch.cuda.get_rng_state()
    straight = judging(of).score(candidate(), 0, phase="draw")
    judge = judging(of)
    parts = [judge.score(candidate(), 0, part, phase="draw") for part in (0.4, 1.0)]
    assert parts[-1].losses == straight.losses
    assert torch.equal(torch.cuda.get_rng_state(), before)
