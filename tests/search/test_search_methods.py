"""Methods against a judge whose losses are known, so that what they choose and spend can be checked exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from softknee._errors import UsageError
from softknee._expression.fingerprint import POINTS
from softknee._search import draw, evolve, halving, portfolio
from softknee._search.candidate import Candidate, Function
from softknee._search.judge import Score
from softknee._search.meter import Meter
from softknee._search.method import FIRST_RUN, METHODS, MORE_RUNS, PARTS, Method, method_of
from softknee._search.shapes import Shapes, values_of
from softknee._search.space import Space, space_of

if TYPE_CHECKING:
    from collections.abc import Callable

RELU, GELU, SWISH = (Candidate((Function(text),), "baseline") for text in ("relu", "gelu", "swish"))
KNOWN = (RELU, GELU, SWISH)
STEPS, EVALUATION = 100, 4


@cache
def distance(candidate: Candidate) -> float:
    """A loss that operations change a little each: how far functions are from one that no space has, near 0."""
    aim = values_of(Function("x*sigmoid(2*x) + 0.5*tanh(x)**2"))
    near = POINTS.abs() < 3
    return float(np.mean([float((values_of(one) - aim)[near].abs().mean()) for one in candidate.functions]))


@dataclass
class KnownLosses:
    """Stands for a judge: charges as one, and takes losses from a function of candidate, run and part."""

    loss: Callable[[Candidate, int, float], float] = lambda candidate, run, part: distance(candidate)
    groups: int = 1
    meter: Meter = field(default_factory=lambda: Meter(STEPS))
    scores: list[Score] = field(default_factory=list)
    seen: dict[tuple[str, int], list[Score]] = field(default_factory=dict)
    released: list[tuple[Candidate, int]] = field(default_factory=list)

    @property
    def task(self) -> SimpleNamespace:
        return SimpleNamespace(groups=tuple(range(self.groups)), run_steps=STEPS)

    def price(self, part: float = 1.0, *, phase: str, after: float = 0.0) -> float:
        return ((part - after) * STEPS + EVALUATION) / STEPS

    def score(self, candidate: Candidate, run: int, part: float = 1.0, *, phase: str) -> Score:
        seen = self.seen.setdefault((candidate.key, run), [])
        same = [one for one in seen if one.part == part]
        if same or any(one.failure for one in seen):
            return (same or seen)[-1]
        steps = self.price(part, phase=phase, after=max((one.part for one in seen), default=0.0)) * STEPS
        self.meter.allow(steps)
        self.meter.charge(phase, steps, 0.0)
        loss = self.loss(candidate, run, part)
        failure = None if math.isfinite(loss) else "the training loss was nan at step 1"
        cost = steps / STEPS
        seen.append(Score(candidate, run, part, (loss,), failure, 0.0, cost, self.meter.spent, phase))
        self.scores.append(seen[-1])
        return seen[-1]

    def release(self, candidate: Candidate, run: int) -> None:
        self.released.append((candidate, run))


def known_judge(**options) -> KnownLosses:
    judge = KnownLosses(**options)
    for candidate in KNOWN:
        functions = candidate.functions * judge.groups
        for part in PARTS:
            judge.score(Candidate(functions, "baseline"), FIRST_RUN, part, phase="baselines")
    return judge


def found(
    name: str, judge: KnownLosses, runs: float, seed: int = 0, space: str | Space = "one-core"
) -> list[Candidate]:
    before = judge.meter.spent
    known = [Candidate(one.functions * judge.groups, "baseline") for one in KNOWN]
    with judge.meter.limited(runs):
        candidates = METHODS[name].find(judge, space_of(space), known, runs, np.random.default_rng(seed))
    assert judge.meter.spent - before <= runs + 1e-9
    return candidates


def tried(judge: KnownLosses) -> list[Score]:
    return [score for score in judge.scores if score.candidate.origin != "baseline"]


@pytest.mark.parametrize("name", ["random", "halving", "evolve", "auto"])
@pytest.mark.parametrize("runs", [1.12, 2.5, 7.0, 30.0])
def test_methods_spend_what_they_may_and_no_more(name, runs):
    judge = known_judge()
    candidates = found(name, judge, runs)
    assert candidates
    spent = math.fsum(cost.runs for phase, cost in judge.meter.phases.items() if phase != "baselines")
    # What is left buys nothing more that the method would try.
    assert runs - spent < 1.5


@pytest.mark.parametrize("name", ["random", "halving", "evolve"])
def test_methods_repeat_themselves_by_seed_and_differ_otherwise(name):
    first, again, other = (
        [(one.candidate.key, one.run, one.part) for one in tried(judge)]
        for judge, seed in ((known_judge(), 3), (known_judge(), 3), (known_judge(), 4))
        if found(name, judge, 8.0, seed)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["random", "halving", "evolve"])
def test_nothing_is_tried_twice_and_nothing_that_is_known(name):
    judge = known_judge()
    found(name, judge, 12.0, space=Space(unary=("max0", "gelu", "identity", "negate", "abs"), binary=("left", "add")))
    keys = list(dict.fromkeys(one.candidate.key for one in tried(judge)))
    candidates = {one.candidate.key: one.candidate for one in tried(judge)}
    met = Shapes(KNOWN)
    assert all(met.add(candidates[key]) is None for key in keys)


@pytest.mark.parametrize("name", ["random", "halving", "evolve"])
def test_a_space_that_is_used_up_ends_the_method(name):
    judge = known_judge()
    candidates = found(name, judge, 50.0, space=Space(unary=("identity", "abs"), binary=("left",), cores=1))
    assert {str(one.functions[0].text) for one in candidates} == {"x", "abs(x)"}


@pytest.mark.parametrize("name", ["random", "halving", "evolve"])
def test_what_fails_is_not_found(name):
    judge = known_judge(loss=lambda one, run, part: math.nan if "exp" in one.name else distance(one))
    candidates = found(name, judge, 20.0)
    assert any(score.failure for score in tried(judge))
    assert candidates
    assert not any("exp" in one.name for one in candidates)


def test_random_trains_each_once_to_the_end_and_ranks_by_loss():
    judge = known_judge()
    candidates = found("random", judge, 10.5)
    assert [(score.run, score.part) for score in tried(judge)] == [(FIRST_RUN, 1.0)] * 10
    assert [one.key for one in candidates] == [
        score.candidate.key for score in sorted(tried(judge), key=lambda score: score.loss)
    ]


@pytest.mark.parametrize("groups", [1, 3])
def test_each_group_gets_its_own_draw(groups):
    candidates = found("random", known_judge(groups=groups), 12.0)
    assert {len(one.functions) for one in candidates} == {groups}
    assert any(len(set(one.functions)) == groups for one in candidates)


def test_halving_costs_what_it_says():
    for size in (1, 2, 3, 4, 9, 20):
        judge = KnownLosses()
        expected = halving.price(judge, size)
        with judge.meter.limited(expected):
            halving.find(judge, space_of("one-core"), KNOWN, expected, np.random.default_rng(0))
        assert judge.meter.spent == pytest.approx(expected)
        assert halving.most(judge, expected) == size


def test_a_budget_of_whole_trainings_is_used_up():
    # Sums of prices are off by roundings.
    for count in range(1, 40):
        judge = KnownLosses()
        found("random", judge, count * judge.price(phase="random"))
        assert len(judge.scores) == count


def test_halving_compares_in_paired_runs_and_trains_the_better_on():
    judge = known_judge()
    order = found("halving", judge, 20.0)
    size = halving.most(judge, 20.0)
    for index, rung in enumerate(halving.RUNGS):
        there = [one for one in tried(judge) if one.part == rung.part]
        assert {one.run for one in there} == set(rung.runs)
        assert len({one.candidate.key for one in there}) == halving.survivors(size, index)
        assert len(there) == len(rung.runs) * halving.survivors(size, index)
    assert min(one.part for one in tried(judge)) == 0.25
    everyone = {one.candidate for one in tried(judge)}
    # Losses without noise do not change on the way, so the race sorts exactly.
    assert [distance(one) for one in order[:3]] == sorted(map(distance, everyone))[:3]
    kept = {one.candidate.key for one in tried(judge) if one.part == 1.0}
    assert {one.key for one, _ in judge.released}.isdisjoint({order[0].key} & kept)


def test_halving_sees_through_noise_of_one_run_by_more_runs():
    def loss(one: Candidate, run: int, part: float) -> float:
        return distance(one) if run != FIRST_RUN else 100 - distance(one) / 100

    judge = known_judge(loss=loss)
    order = found("halving", judge, 30.0)
    finalists = [one for one in order if any(s.candidate.key == one.key and s.run == MORE_RUNS for s in judge.scores)]
    assert len(finalists) > 2
    assert distance(order[0]) == min(map(distance, order[: halving.survivors(halving.most(judge, 30.0), 2)]))


def test_evolution_finds_better_ones_than_as_many_draws():
    runs, better = 20.0, 0
    for seed in range(5):
        evolved, drawn = known_judge(), known_judge(loss=lambda one, run, part: distance(one))
        best = distance(found("evolve", evolved, runs, seed, "grafs")[0])
        tries = len({one.candidate.key for one in tried(evolved)})
        found("random", drawn, tries * drawn.price(phase="random"), seed, "grafs")
        better += best < min(one.loss for one in tried(drawn))
    assert better >= 4


def test_evolution_changes_one_operation_and_lets_the_oldest_die(monkeypatch):
    parents, born = [], []
    monkeypatch.setattr(evolve, "_parent", record(parents, evolve._parent))
    near = draw.Draws.near
    monkeypatch.setattr(
        draw.Draws, "near", lambda self, parent: born.append((parent, near(self, parent))) or born[-1][1]
    )
    judge = known_judge(groups=2)
    found("evolve", judge, 15.0)
    space = space_of("one-core")
    for parent, child in born:
        pairs = zip(parent.genotypes, child.genotypes, strict=True)
        changes = [sum(a != b for a, b in zip(space.names(one), space.names(two), strict=True)) for one, two in pairs]
        assert sorted(changes) == [0, 1]
    first, second = parents[0], parents[1]
    assert [one.individual for one in first[1:]] == [one.individual for one in second[:-1]]
    assert second[-1].individual is born[0][1]


def record(calls: list, function: Callable) -> Callable:
    def recorded(living, rng):
        calls.append([*living])
        return function(living, rng)

    return recorded


def test_evolution_goes_on_where_a_parent_has_no_new_child(monkeypatch):
    monkeypatch.setattr(draw.Draws, "near", lambda self, parent: None)
    judge = known_judge()
    found("evolve", judge, 15.0)
    tries = evolve._affordable(SimpleNamespace(meter=Meter(STEPS, 15.0), price=judge.price))
    assert len([one for one in tried(judge) if one.part == evolve.PART]) == tries


def test_evolution_begins_with_what_is_known_and_trains_constants(monkeypatch):
    populations: list = []
    monkeypatch.setattr(evolve, "_parent", record(populations, evolve._parent))
    judge = known_judge()
    candidates = found("evolve", judge, 30.0)
    assert {"relu", "gelu"} <= {one.individual.candidate.name for one in populations[0]}
    assert any(one.functions[0].constants for one in candidates)
    assert all(one.functions[0].trained for one in candidates if one.functions[0].constants)
    full = [one for one in tried(judge) if one.part == 1.0]
    assert [one.key for one in candidates[: len(full)]] == [
        one.candidate.key for one in sorted(full, key=lambda one: one.loss)
    ]
    assert {one.part for one in tried(judge)} == {0.25, 1.0}


def suggestions(count: int, space: str = "one-core") -> list[draw.Individual]:
    draws = draw.Draws(space_of(space), 1, KNOWN, np.random.default_rng(7), origin="grafs")
    return [draws.new() for _ in range(count)]


def test_evolution_goes_on_from_what_is_suggested(monkeypatch):
    populations: list = []
    monkeypatch.setattr(evolve, "_parent", record(populations, evolve._parent))
    judge, first = known_judge(), suggestions(3)
    found_there = evolve.evolved(judge, first, space_of("one-core"), KNOWN, 20.0, np.random.default_rng(0))
    assert [one.candidate for one in tried(judge)][:3] == [one.candidate for one in first]
    assert any(one.individual in first for one in populations[0])
    assert {one.candidate for one in first} <= set(found_there)


def test_suggestions_that_the_budget_does_not_let_in_are_not_lost():
    judge, first = known_judge(), suggestions(3)
    with judge.meter.limited(1.2):
        order = evolve.evolved(judge, first, space_of("one-core"), KNOWN, 1.2, np.random.default_rng(0))
    assert order == [one.candidate for one in first]
    assert {one.candidate for one in tried(judge)} == {first[0].candidate}


def test_by_default_the_space_and_the_budget_choose(monkeypatch):
    first = suggestions(2, "grafs")

    def suggested(judge, space, known, runs, rng, whole):
        judge.meter.charge("grafs", 2 * STEPS, 0.0)
        return first

    monkeypatch.setattr(portfolio, "suggested", suggested)
    monkeypatch.setattr(portfolio, "least", lambda task: 1.5)
    cases = (
        ("one-core", 5.0, {"halving"}),
        ("one-core", 12.0, {"evolve"}),
        ("grafs", 3.0, {"halving"}),
        ("grafs", 5.0, {"grafs", "evolve"}),
        ("grafs", 12.0, {"grafs", "evolve"}),
    )
    for space, runs, phases in cases:
        judge = known_judge()
        found("auto", judge, runs, space=space)
        assert set(judge.meter.phases) == {"baselines", *phases}, (space, runs)
    assert [one.candidate for one in tried(judge)][:2] == [one.candidate for one in first]
    monkeypatch.setattr(portfolio, "least", lambda task: 2.5)
    judge = known_judge()
    found("auto", judge, 12.0, space="grafs")
    assert set(judge.meter.phases) == {"baselines", "evolve"}


def test_functions_are_the_same_up_to_scale_and_shift_but_not_if_they_are_trained():
    met = Shapes(KNOWN)
    pairs = {"3*relu(x) - 2": RELU, "-gelu(x)": GELU, "x*sigmoid(1.0*x)": None, "relu(2*x)": RELU, "gelu(2*x)": None}
    for text, expected in pairs.items():
        assert met.find(Candidate((Function(text),), "asked")) is expected, text
    fixed = Candidate((Function("a*relu(x) + x", (("a", 1.0),)),), "asked")
    trained = Candidate((Function("a*relu(x) + x", (("a", 1.0),), trained=True),), "asked")
    assert met.add(fixed) is None
    assert met.add(trained) is None
    assert met.find(Candidate((Function("2*x + 2*relu(x)"),), "asked")) is fixed
    assert met.find(trained) is trained


def test_an_unknown_method_is_refused():
    with pytest.raises(UsageError, match=r"no search method named 'halvin'; did you mean 'halving'\? there are auto, "):
        method_of("halvin")
    assert isinstance(method_of("random"), Method)
