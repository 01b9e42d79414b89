"""When trials run and what is said of them, with made-up trainings."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from softknee._diagnose.trial.rates import Arm, Outcome, OutOfTime, Search
from softknee._diagnose.trial.trials import AGAIN, MATCHED, REFERENCE, Trials, summed_up

SAME, OTHER, THIRD = Arm("candidate", "gelu"), Arm("candidate", "tanh"), Arm("candidate", "silu")
EXAMPLES = 400


class Fake:
    """Trains nothing: arms have a level, seeds and examples an effect, and time is what steps are given for."""

    def __init__(self, levels=None, *, noise=0.3, step=1.0, stop_after=None, diverging=()):
        self.levels, self.noise, self.step = levels or {}, noise, step
        self.calls, self.now, self.stop_after, self.diverging = [], 0.0, stop_after, diverging

    def clock(self):
        return self.now

    def __call__(self, arm, rate, seed, steps, late):
        if self.stop_after is not None and len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((arm, rate, seed, steps))
        for _ in range(steps):
            if late():
                raise OutOfTime
            self.now += self.step
        if arm in self.diverging:
            return Outcome(-math.inf, None, self.step)
        # The rate 0.1 is best for all but OTHER, whose best is 0.3.
        best = 0.3 if arm == OTHER else 0.1
        level = self.levels.get(arm, 0.0) - 5 * abs(math.log(rate / best))
        examples = np.random.default_rng(0).normal(0, 5, EXAMPLES)
        seeds = np.random.default_rng(seed).normal(0, 0.4)
        own = np.random.default_rng([seed, zlib.crc32(arm.label.encode())]).normal(0, self.noise, EXAMPLES)
        return Outcome(level, 80 + level + seeds + examples + own, self.step)


def search(fake, arms, *, seeds=5, steps=10, budget=None, most_steps=1000):
    return Search(fake, arms, (0.03, 0.1, 0.3), seeds, steps, most_steps, budget, clock=fake.clock)()


def entries(fake, arms, *, metric="accuracy", margin=None, **options):
    record = search(fake, arms, **options)
    found, _ = summed_up(arms, record, metric=metric, margin=margin, rates=(0.03, 0.1, 0.3))
    return {entry.activation: entry for entry in found}, record


ARMS = [REFERENCE, MATCHED, AGAIN, SAME, OTHER]


def test_equal_ways_are_never_told_apart():
    found, _ = entries(Fake(), ARMS)
    others = [entry for entry in found.values() if entry.kind != "no change"]
    assert {entry.compared.verdict for entry in others} <= {"equivalent", "undecided"}
    assert found["gelu"].compared.verdict == "equivalent"
    assert found["gelu"].over_matched.verdict == "equivalent"
    assert all(entry.compared.low < 0 < entry.compared.high for entry in others)


def test_what_is_better_is_found_at_its_own_rate():
    found, record = entries(Fake({OTHER: 4.0, MATCHED: 1.5}), ARMS)
    assert found["tanh"].lr == 0.3
    assert found["tanh"].at_edge
    assert found["gelu"].lr == 0.1
    assert not found["gelu"].at_edge
    assert found["tanh"].compared.verdict == "better"
    assert found["tanh"].compared.difference == pytest.approx(4, abs=0.1)
    assert found["tanh"].over_matched.difference == pytest.approx(2.5, abs=0.1)
    assert found["same activation, matched gain"].compared.verdict == "better"
    assert found["gelu"].over_matched.verdict == "worse"
    assert record.ended == "complete"


def test_a_loss_is_better_when_lower():
    found, _ = entries(Fake({SAME: -4.0}), [REFERENCE, AGAIN, SAME], metric="loss", margin=0.5)
    assert found["gelu"].compared.verdict == "better"
    assert found["gelu"].compared.difference == pytest.approx(-4, abs=0.1)


def test_the_rate_is_chosen_on_a_seed_that_is_not_reported():
    fake = Fake()
    search(fake, ARMS, seeds=3)
    choosing = [call for call in fake.calls if call[2] == 0]
    reported = [call for call in fake.calls if call[2] != 0]
    assert len(choosing) == 3 * 4  # rates x ways, but for the new seed, which takes the reference's
    assert {seed for arm, _, seed, _ in reported if arm == AGAIN} == {4, 5, 6}
    assert {seed for arm, _, seed, _ in reported if arm != AGAIN} == {1, 2, 3}
    assert [arm for arm, *_ in reported[:5]] == [REFERENCE, MATCHED, SAME, OTHER, AGAIN]  # seed by seed


@pytest.mark.parametrize("seeds", [1, 2])
def test_two_seeds_decide_nothing(seeds):
    found, _ = entries(Fake({SAME: 9.0}), [REFERENCE, AGAIN, SAME], seeds=seeds)
    assert found["gelu"].compared.verdict == "too few seeds"


def test_holm_counts_all_that_is_compared_with_the_same():
    many = [Arm("candidate", f"swish[beta={n}]") for n in range(1, 9)]
    levels = {many[0]: 0.6}
    alone, _ = entries(Fake(levels), [REFERENCE, many[0]], seeds=4)
    among, _ = entries(Fake(levels), [REFERENCE, *many], seeds=4)
    name = many[0].label
    assert among[name].compared.p == pytest.approx(min(8 * alone[name].compared.p, 1), rel=1e-6)
    assert among[name].compared.low == alone[name].compared.low


@pytest.mark.parametrize("seconds", [200, 400, 900, 5000])
def test_the_budget_is_kept_and_controls_are_never_dropped(seconds):
    fake = Fake({OTHER: 2.0})
    found, record = entries(fake, [*ARMS, THIRD], steps=None, seeds=3, budget=seconds, most_steps=100)
    assert fake.now <= seconds
    assert not {arm.kind for arm in record.dropped} - {"candidate"}
    assert {entry.kind for entry in found.values()} == {"no change", "matched gain", "new seed", "candidate"}
    if seconds == 5000:
        assert record.ended == "complete"
        assert record.steps == 100
        assert not record.dropped


def test_the_worse_half_is_left_out_where_time_is_short():
    fake = Fake({OTHER: 3.0, THIRD: 2.0, SAME: 1.0})
    arms = [REFERENCE, MATCHED, AGAIN, SAME, OTHER, THIRD, Arm("candidate", "mish")]
    # Timing takes 18, all in full 3900, half of the candidates 2700 after short runs of 450.
    found, record = entries(fake, arms, steps=100, seeds=3, budget=3600)
    assert record.ended == "complete"
    assert {arm.label for arm in record.dropped} == {"gelu", "mish"}
    assert "better half after 25 steps" in found["mish"].note
    assert found["tanh"].seeds == found["no change"].seeds == 3
    assert fake.now <= 3600


def test_what_was_found_is_kept_when_time_is_over():
    fake = Fake({OTHER: 3.0})
    # Timing takes 9, three ways at three rates 90, the four runs of a seed 40: time for two seeds.
    found, record = entries(fake, [REFERENCE, MATCHED, AGAIN, OTHER], steps=10, seeds=5, budget=9 + 90 + 80 + 5)
    assert record.ended == "out of time"
    assert {entry.seeds for entry in found.values()} == {2}
    assert found["tanh"].compared.difference == pytest.approx(3, abs=0.2)
    assert found["tanh"].compared.verdict == "too few seeds"


@pytest.mark.parametrize("runs", [0, 5, 12, 25])
def test_what_was_found_is_kept_on_an_interruption(runs):
    found, record = entries(Fake({OTHER: 3.0}, stop_after=runs), ARMS, seeds=5)
    assert record.ended == "interrupted"
    assert found["no change"].seeds == max(0, math.ceil((runs - 12) / 5))
    if runs == 25:
        assert found["tanh"].compared.difference == pytest.approx(3, abs=0.2)
    else:
        assert found["tanh"].compared.difference is None
        assert "interrupted" in found["tanh"].note


def test_ways_that_diverge_are_shown_and_not_averaged():
    found, _ = entries(Fake(diverging=(SAME,)), ARMS)
    assert found["gelu"].lr is None
    assert found["gelu"].score is None
    assert found["gelu"].note == "diverged at all learning rates"
    assert found["tanh"].compared.difference is not None


class SometimesDiverging(Fake):
    def __call__(self, arm, rate, seed, steps, late):
        found = super().__call__(arm, rate, seed, steps, late)
        return Outcome(-math.inf, None, self.step) if (arm, seed) == (SAME, 2) else found


def test_nothing_is_said_of_a_way_that_diverged_once():
    found, _ = entries(SometimesDiverging({SAME: 9.0}), ARMS)
    assert found["gelu"].diverged == 1
    assert found["gelu"].seeds == found["gelu"].compared.seeds == 4
    assert found["gelu"].compared.verdict == "undecided"


def trials(fake, arms, **options):
    record = search(fake, arms, **options)
    found, margin = summed_up(arms, record, metric="accuracy", margin=None, rates=(0.03, 0.1, 0.3))
    return Trials(found, "accuracy", margin, record.steps, 5, (0.03, 0.1, 0.3), (9, 9, 9), True, record.ended)


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ({OTHER: 5.0}, "Better here than the model as it is and than its own activation at matched gain: tanh."),
        ({MATCHED: 5.0, SAME: 5.0, OTHER: 4.9}, "Match the gain first: that alone is better here"),
        ({}, "No candidate has been shown to be better here than the model as it is (equivalent: gelu"),
    ],
)
def test_the_sentence(levels, sentence):
    found = trials(Fake(levels), ARMS)
    assert sentence in found.verdict
    assert found.verdict in repr(found)
    assert "gelu" in found._repr_html_()


def test_plain_data():
    listed = trials(Fake({OTHER: 5.0}), ARMS).to_dict()
    assert [one["kind"] for one in listed] == ["no change", "matched gain", "new seed", "candidate", "candidate"]
    assert listed[0]["difference"] is None
    assert listed[0]["verdict"] is None
    last = listed[-1]
    assert last["activation"] == "tanh"
    assert last["verdict"] == "better"
    assert last["low"] < last["difference"] < last["high"]
    assert last["over_matched"]["verdict"] == "better"
    assert last["cost"] == 1
