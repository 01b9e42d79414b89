"""Finals and verdicts on losses that are made up, so that what must be claimed is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from softknee._engine import select
from softknee._errors import UsageError
from softknee._search.candidate import Candidate, Function
from softknee._search.judge import VERIFY, Score
from softknee._search.meter import Meter
from softknee._search.verdict import SEEN, amount, decide, title
from softknee._search.verify import (
    SELECT,
    Final,
    Places,
    check_paid,
    final_runs,
    finals,
    heats,
    places_for,
    price,
    test_losses,
)
from softknee._statistics.intervals import paired_difference

RELU, GELU, SWISH = (Candidate((Function(text),), "baseline") for text in ("relu", "gelu", "swish"))
FOUND, OTHER, THIRD = (Candidate((Function(f"x * tanh({k} * x)"),), "random") for k in (1, 2, 3))
RUNS, BATCHES = 4, 8


def losses(mean: float, seed: int, spread: float = 0.02, runs: int = RUNS, batches: int = BATCHES) -> np.ndarray:
    """Losses with noise that is partly common to all: the run, the batch, and each by itself."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    shape = (runs, batches)
    shared = common.normal(0, 0.3, (runs, 1)) + common.normal(0, 0.3, (1, batches))
    return mean + shared + own.normal(0, spread, (runs, 1)) + own.normal(0, spread, shape)


def final(candidate: Candidate, mean: float, seed: int = 1, failure: str | None = None, **options) -> Final:
    validation = None if failure else losses(mean, seed, **options)
    return Final(candidate, candidate.origin == "baseline", validation, failure)


def test_reader(**means: float):
    """Returns a function that reads test losses by text, and the list of what it was asked for."""
    asked = []

    def read(candidate: Candidate) -> np.ndarray:
        asked.append(candidate)
        return losses(means[candidate.functions[0].text], 100 + len(asked))

    return read, asked


test_reader.__test__ = False


@pytest.mark.parametrize(
    ("runs", "candidates", "baselines", "expected"),
    [
        (1.0, 9, 6, (1, 1)),
        (6.0, 9, 6, (1, 1)),
        (9.0, 9, 6, (1, 2)),
        (12.9, 9, 6, (1, 2)),
        (13.0, 9, 6, (2, 2)),
        (15.0, 9, 6, (3, 2)),
        (18.0, 9, 6, (3, 3)),
        (20.0, 9, 6, (4, 3)),
        (200.0, 9, 6, (4, 3)),
        (200.0, 1, 6, (1, 3)),
        (200.0, 9, 1, (4, 1)),
        (9.0, 9, 1, (1, 1)),
        (200.0, 0, 6, (0, 3)),
        (8.9999999999, 9, 6, (1, 2)),
    ],
)
def test_as_many_take_part_as_can_be_paid(runs, candidates, baselines, expected):
    places = places_for(Judge(), runs, 3, candidates=candidates, baselines=baselines)
    assert places == expected
    assert price(Judge(), places, 3) <= max(runs, 6.0) + 1e-9


def test_verification_costs_what_it_says():
    judge = Judge()
    (chosen,) = heats(judge, [FOUND, OTHER, THIRD], str)
    finals(judge, [chosen], [RELU, GELU], 3, str)
    assert len(judge.asked) == price(judge, Places(3, 2), 3) == 15


def test_a_verification_that_cannot_be_paid_says_what_would_do():
    judge = SimpleNamespace(price=Judge().price, meter=Meter(10, budget=8.0))
    check_paid(judge, Places(1, 1), 4)
    judge.meter.charge("enumerate", 22, 1.0)
    with pytest.raises(
        UsageError,
        match=r"5.8 training runs are left, and verification needs 6; with a budget of 8.2 and the same folder as out",
    ):
        check_paid(judge, Places(1, 1), 3)


def test_heats_choose_in_runs_of_their_own():
    said: list[str] = []
    judge = Judge(losses={FOUND.name: 0.9, OTHER.name: 0.2, THIRD.name: 0.5}, failing=(OTHER.name, 2001))
    # The best has failed.
    assert heats(judge, [FOUND, OTHER, THIRD], said.append) == [THIRD]
    assert {run for _, run, _, _ in judge.asked} == {2000, 2001}
    assert {phase for *_, phase in judge.asked} == {SELECT}
    assert said[0] == "select 1 of 3: x * tanh(1 * x)"
    assert heats(Judge(failing=(FOUND.name, 2000)), [FOUND], str) == [FOUND]
    assert heats(Judge(failing=(None, 2000)), [FOUND, OTHER], str) == []
    assert heats(judge, [], str) == []


def test_a_difference_that_is_there_is_claimed_with_its_interval():
    read, asked = test_reader(relu=1.0, gelu=0.9, **{FOUND.name: 0.6})
    verdict = decide([final(RELU, 1.0), final(GELU, 0.9, 2), final(FOUND, 0.6, 3)], RELU, read)
    assert verdict.outcome == "better"
    assert verdict.best == verdict.candidate == FOUND
    assert asked == [FOUND, GELU, RELU]
    nearest = verdict.differences[0]
    assert nearest.baseline == GELU.key
    assert verdict.sentence == f"better than the best baseline, GELU, by {amount(nearest)} in test loss"
    expected = paired_difference(verdict.test[GELU.key], verdict.test[FOUND.key], margin=1.0)
    found = (nearest.gain, nearest.low, nearest.high, nearest.p)
    assert found == (expected.mean, expected.low, expected.high, expected.p)
    assert np.mean(nearest.seed_gains) == pytest.approx(nearest.gain)
    assert nearest.gain == pytest.approx(0.3, abs=0.03)


def test_one_baseline_that_is_as_good_is_enough_to_claim_nothing():
    read, _ = test_reader(relu=1.0, gelu=0.6, **{FOUND.name: 0.6})
    verdict = decide([final(RELU, 1.0), final(GELU, 0.9, 2), final(FOUND, 0.6, 3)], RELU, read)
    assert verdict.outcome == "baseline"
    assert verdict.best == GELU
    assert verdict.candidate == FOUND
    assert verdict.sentence == "nothing beat GELU within the noise; use GELU"
    # The baseline is chosen by validation, the comparisons are sorted by test.
    assert [one.baseline for one in verdict.differences] == [GELU.key, RELU.key]


def test_what_was_beaten_is_not_said_to_be_unbeaten():
    # The best by validation is beaten on the test data, another one is not.
    read, _ = test_reader(relu=0.6, gelu=0.9, **{FOUND.name: 0.6})
    verdict = decide([final(RELU, 1.0), final(GELU, 0.7, 2), final(FOUND, 0.6, 3)], RELU, read)
    assert [(one.baseline, one.is_better) for one in verdict.differences] == [(RELU.key, False), (GELU.key, True)]
    assert verdict.sentence == "nothing beat ReLU within the noise; use GELU"
    assert verdict.best == verdict.reference == GELU


def test_what_is_worse_is_not_better_however_clearly():
    read, _ = test_reader(relu=0.5, **{FOUND.name: 0.9})
    verdict = decide([final(RELU, 1.0), final(FOUND, 0.6, 3)], RELU, read)
    assert verdict.differences[0].p < 1e-3
    assert not verdict.differences[0].is_better
    assert verdict.outcome == "baseline"


@pytest.mark.parametrize("baselines", [1, 2])
def test_without_signal_claims_are_rare(baselines):
    """Everything is equally good: at most one search in twenty may say otherwise."""
    rng = np.random.default_rng(0)
    searches, claims = 400, 0
    for _ in range(searches):
        shared = rng.normal(0, 0.3, (3, BATCHES))

        def drawn(shared=shared) -> np.ndarray:
            return 1.0 + shared + rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.05, (3, BATCHES))

        entered = [*(RELU, GELU)[:baselines], FOUND]
        made = {one.key: drawn() for one in entered}
        ended = [Final(one, one.origin == "baseline", made[one.key], None) for one in entered]
        claims += decide(ended, RELU, lambda one, made=made: made[one.key]).outcome == "better"
    assert claims / searches < 0.05


def test_a_failed_candidate_cannot_win():
    read, asked = test_reader(relu=1.0)
    failed = final(FOUND, 0.1, failure="run 2: the training loss was nan at step 7")
    verdict = decide([final(RELU, 1.0), failed], RELU, read)
    assert verdict.notes == ("x * tanh(1 * x) cannot win: run 2: the training loss was nan at step 7",)
    assert verdict.sentence == "nothing new finished its final runs; use ReLU"
    assert (verdict.best, verdict.candidate, verdict.differences, verdict.test) == (RELU, None, (), {})
    assert asked == []


def test_a_failed_baseline_is_left_out_with_a_note():
    read, asked = test_reader(gelu=0.9, **{FOUND.name: 0.6})
    failed = final(RELU, 0.1, failure="run 1: the training loss was inf at step 7")
    verdict = decide([failed, final(GELU, 0.9, 2), final(FOUND, 0.6, 3)], RELU, read)
    assert verdict.outcome == "better"
    assert verdict.reference == GELU
    assert RELU not in asked
    assert verdict.notes == ("ReLU is left out: run 1: the training loss was inf at step 7",)
    none = decide([failed, final(FOUND, 0.6, 3)], SWISH, read)
    assert none.sentence == "nothing can be said, for every baseline failed in a final run; use Swish"
    assert none.best == SWISH


def test_without_test_data_the_sentence_says_what_the_claim_is_on():
    verdict = decide([final(RELU, 1.0), final(FOUND, 0.6, 3)], RELU, None)
    assert verdict.sentence.endswith(") in validation loss, which the search has seen")
    assert verdict.notes == (SEEN,)
    assert verdict.test == {}


def test_nothing_found_says_so():
    read, asked = test_reader(relu=1.0)
    verdict = decide([final(RELU, 1.0), final(GELU, 0.9, 2)], RELU, read)
    assert verdict.sentence == "nothing new was found; use GELU"
    assert asked == []


def test_a_single_test_batch_will_do():
    means = {RELU.key: 1.0, FOUND.key: 0.5}
    read = lambda one: losses(means[one.key], len(one.key), batches=1)  # noqa: E731
    verdict = decide([final(RELU, 1.0), final(FOUND, 0.6, 3)], RELU, read)
    assert verdict.outcome == "better"
    assert len(verdict.differences[0].seed_gains) == RUNS


@pytest.mark.parametrize(
    ("gain", "low", "high", "expected"),
    [
        (0.0123, 0.0041, 0.0205, "0.0123 (0.0041 to 0.0205)"),
        (1.34, 0.97, 1.71, "1.34 (0.97 to 1.71)"),
        (120.0, 80.0, 160.0, "120 (80 to 160)"),
        (0.5, 0.5, 0.5, "0.50 (0.50 to 0.50)"),
    ],
)
def test_amounts_have_the_digits_that_their_intervals_bear_out(gain, low, high, expected):
    from softknee._search.verdict import Against

    assert amount(Against("k", gain, low, high, 0.01, ())) == expected


def test_titles_are_what_people_say():
    assert [title(one) for one in (RELU, SWISH, FOUND)] == ["ReLU", "Swish", "x * tanh(1 * x)"]
    both = Candidate((Function("gelu"), Function("x + abs(x)")), "asked")
    assert title(both) == "GELU | x + abs(x)"
    assert title(Candidate((Function("swish[beta=2]"),), "baseline")) == "swish[beta=2]"


class Judge:
    """Scores by a rule, and remembers what it was asked; each costs a run."""

    def __init__(self, losses: dict[str, float] | None = None, failing: tuple[str | None, int] | None = None) -> None:
        self.losses, self.failing, self.asked, self.engines = losses or {}, failing, [], set()

    def price(self, part=1.0, *, phase, after=0.0):
        return 1.0

    def score(self, candidate, run, part=1.0, *, phase):
        self.asked.append((candidate.name, run, part, phase))
        self.engines.add(select._forced.get())
        failing = self.failing in {(candidate.name, run), (None, run)}
        loss = self.losses.get(candidate.name, run)
        failure = "the training loss was nan at step 3" if failing else None
        return Score(candidate, run, part, () if failure else (loss, loss + 1.0), failure, 0.0, 1.0, 0.0, phase)

    def test(self, candidate, run):
        return np.array([10.0 * run, 10.0 * run + 1])


def test_finals_train_everyone_in_the_same_fresh_runs():
    judge, said = Judge(failing=("x * tanh(2 * x)", 2)), []
    ended = finals(judge, [FOUND, OTHER], [RELU], 3, said.append)
    assert [one.candidate for one in ended] == [RELU, FOUND, OTHER]
    assert [one.is_baseline for one in ended] == [True, False, False]
    assert ended[0].validation.tolist() == [[1, 2], [2, 3], [3, 4]]
    assert ended[2].validation is None
    assert ended[2].failure == "run 2: the training loss was nan at step 3"
    assert ended[2].loss == np.inf
    # A failed candidate costs no further runs.
    assert [run for name, run, _, _ in judge.asked if name == OTHER.name] == [1, 2]
    # Never through tables.
    assert judge.engines == {"fused"}
    assert {(part, phase) for _, _, part, phase in judge.asked} == {(1.0, VERIFY)}
    assert said == ["verify 1 of 3: relu", "verify 2 of 3: x * tanh(1 * x)", "verify 3 of 3: x * tanh(2 * x)"]
    assert test_losses(judge, FOUND, 3).tolist() == [[10, 11], [20, 21], [30, 31]]
    assert [*final_runs(3)] == [1, 2, 3]


test_losses.__test__ = False
