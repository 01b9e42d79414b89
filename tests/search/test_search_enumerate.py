"""Enumeration: every function of a small space, as good as one by one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from search_task import task

from softknee._errors import UsageError
from softknee._search import enumerate as enumeration
from softknee._search.candidate import Candidate, Function
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import Meter
from softknee._search.method import METHODS
from softknee._search.pack import Pack
from softknee._search.space import Space, space_of

SPACE = Space(unary=("identity", "square", "tanh", "max0"), binary=("add", "gate"), cores=1)
RELU, GELU = (Candidate((Function(text),), "baseline") for text in ("relu", "gelu"))
RNG = np.random.default_rng(0)
# More than any run of so small a task costs in proportion.
PLENTY = 1e4


def judge_of(ledger=None, **changes):
    judge = Judge(made := task(**changes), Meter(made.run_steps), ledger or Ledger())
    for candidate in (RELU, GELU):
        if len(made.groups) == 1:
            judge.score(candidate, 0, phase="screening")
    return judge


def test_ranks_all_functions_by_their_mean_loss():
    judge = judge_of()
    found = METHODS["enumerate"].find(judge, SPACE, [RELU, GELU], PLENTY, RNG)
    # All but ReLU, which is known.
    assert len(found) == len(SPACE.distinct()) - 1
    assert RELU.name not in {one.name for one in found}
    some = found[::4]
    means = [np.mean([judge.score(one, run, phase="test").loss for run in enumeration.RUNS]) for one in some]
    np.testing.assert_allclose(means, sorted(means), rtol=1e-4)


def test_is_charged_for_its_time_and_shows_the_best(monkeypatch):
    judge = judge_of()
    monkeypatch.setattr(enumeration, "_seconds_of_a_run", lambda *_: 2.0)
    found = enumeration.find(judge, SPACE, [RELU, GELU], PLENTY, RNG)
    confirmed = [one.candidate for one in judge.scores if one.candidate.origin == "enumerate"]
    assert confirmed == found[: enumeration.CONFIRMED]
    cost = judge.meter.phases["enumerate"]
    alone = enumeration.CONFIRMED * judge.price(phase="enumerate")
    assert cost.runs - alone == pytest.approx((cost.seconds - sum(judge.scores[i].seconds for i in (-1, -2, -3))) / 2)


def test_the_estimate_is_paid_for_too(monkeypatch):
    judge = judge_of()
    monkeypatch.setattr(enumeration, "_seconds_of", lambda *_: time.sleep(0.5) or 1e-9)
    monkeypatch.setattr(Pack, "train", lambda self, parts: np.zeros((len(self._failed), 1)))
    monkeypatch.setattr(enumeration, "CONFIRMED", 0)
    enumeration.find(judge, SPACE, [RELU, GELU], PLENTY, RNG)
    assert judge.meter.phases["enumerate"].seconds > 0.5


def test_goes_on_from_what_was_written_down(tmp_path, monkeypatch):
    first = judge_of(Ledger(tmp_path))
    found = enumeration.find(first, SPACE, [RELU, GELU], PLENTY, RNG)
    monkeypatch.delattr(Pack, "train")
    second = judge_of(Ledger(tmp_path))
    assert enumeration.find(second, SPACE, [RELU, GELU], PLENTY, RNG) == found
    assert second.meter.spent == first.meter.spent


def test_stops_within_its_budget(monkeypatch):
    judge = judge_of()
    monkeypatch.setattr("softknee._search.packed_chunks._most_models", lambda *_: 3)
    # The first part is said to fit with all others, and is then found to have taken all there was.
    monkeypatch.setattr(enumeration, "_seconds_of", lambda *_: 1e-9)
    monkeypatch.setattr(enumeration, "_seconds_of_a_run", lambda *_: 1e-6)
    trained = []
    train = enumeration._train
    monkeypatch.setattr(enumeration, "_train", lambda *args: (trained.append(args), train(*args))[1])
    with pytest.raises(UsageError, match="may cost as much time here"):
        enumeration.find(judge, SPACE, [RELU], 100.0, RNG)
    assert not trained
    monkeypatch.setattr(enumeration, "_timed", lambda parts: ((part, 0.0) for part in parts))
    found = enumeration.find(judge, SPACE, [RELU], 100.0, RNG)
    assert 0 < len(found) <= 3
    assert len(trained) == len(enumeration.RUNS)


@pytest.mark.parametrize(
    ("space", "changes", "sentence"),
    [
        (space_of("grafs"), {}, r"this one has 2 cores and 22,667,121 genotypes; take the space 'one-core'"),
        (SPACE, {"scope": "site"}, "one function at all sites, and there are 2 groups"),
    ],
)
def test_what_it_is_not_for(space, changes, sentence):
    judge = judge_of(**changes)
    before = judge.meter.spent
    with pytest.raises(UsageError, match=sentence):
        enumeration.find(judge, space, [RELU], PLENTY, RNG)
    assert judge.meter.spent == before
