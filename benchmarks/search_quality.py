"""Search on tasks whose answer is known: planted teachers, and tasks where there is nothing to find.

A teacher is a perceptron 6-12-1 with random weights whose activation was drawn from the one-core space; students of the
same shape learn its standardised output from 4,096 points in 640 steps. It is qualified if the planted function
beats every baseline in paired runs: in the first, and on average over eight by more than 3 standard errors and 5 %; the
share that is not is reported. For every qualified teacher all 1,251 functions are trained in two runs that methods may
look at, and in two others that only score: the loss of a method is the held-out loss of what it returns, in those.
`search_quality_report.py` makes tables of it.

Usage: python benchmarks/search_quality.py STAGE... --out DIR [--teachers 20] [--seeds 3] [--nulls 30] [--space SPACE]
Stages, each resumable: teachers, methods, searches (as they are by default, but for the space), nulls
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import softknee as sk
from softknee._report.files import write_atomic
from softknee._search.candidate import Candidate, Function
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import Meter
from softknee._search.method import FIRST_RUN, MORE_RUNS, PARTS, method_of
from softknee._search.packed import train_packed
from softknee._search.space import space_of
from softknee._search.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASELINES = ("relu", "gelu", "silu", "mish", "prelu", "swish")
SHAPE = (6, 12, 1)
TRAIN, VALIDATION, TEST, BATCH, EPOCHS = 4096, 512, 2048, 64, 10
# Runs that decide whether a teacher is qualified, that methods may look at, and that score.
QUALIFYING, LOOKED_AT, SCORING = range(3000, 3008), (FIRST_RUN, MORE_RUNS), (2000, 2001)
FRESH = range(5000, 5020)
BUDGETS = (2.3, 5.0, 10.0, 20.0, 40.0, 80.0)
# Method with its options, the space, and budgets.
METHODS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("random", "one-core", BUDGETS),
    ("halving", "one-core", BUDGETS[1:]),
    ("evolve", "one-core", BUDGETS[1:4]),
    ("grafs", "one-core", BUDGETS[:2]),
    ("grafs[bilevel=joint]", "one-core", BUDGETS[:1]),
    ("grafs[relaxation=darts]", "one-core", BUDGETS[:1]),
    ("auto", "one-core", BUDGETS[1:4]),
    ("auto", "grafs", BUDGETS[1:3]),
    ("random", "grafs", BUDGETS[:3]),
    ("evolve", "grafs", BUDGETS[1:3]),
    ("grafs", "grafs", BUDGETS[:2]),
)


@dataclass(frozen=True)
class Points:
    """Inputs and standardised targets, one split after the other."""

    x: torch.Tensor
    y: torch.Tensor

    def batches(self, first: int, count: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return batches of a split."""
        places = range(first, first + count, size)
        return [(self.x[at : at + size], self.y[at : at + size]) for at in places]

    def task(self, seed: int = 0) -> Task:
        """Return the students' task."""
        return Task(**self.arguments(), seed=seed)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a search."""
        return {
            "make_model": lambda: perceptron(nn.ReLU),
            "train_step": lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
            "train_batches": self.batches(0, TRAIN, BATCH),
            "val_batches": self.batches(TRAIN, VALIDATION, 256),
            "test_batches": self.batches(TRAIN + VALIDATION, TEST, 256),
            "optimizer": lambda parameters: torch.optim.Adam(parameters, 1e-2),
            "epochs": EPOCHS,
        }


def perceptron(activation: Callable[[], nn.Module]) -> nn.Module:
    """Return a network of the teacher's shape."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(SHAPE):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def taught(function: Function, seed: int, *, shuffled: bool = False) -> Points:
    """Return points labelled by a teacher with weights of variance 2 / inputs, so that its units are well used."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TRAIN + VALIDATION + TEST, SHAPE[0], generator=generator)
    model = perceptron(function.make)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                weight = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(weight * (2 / layer.in_features) ** 0.5)
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) / 2)
        y = model(x)
    y = (y - y.mean()) / y.std()
    return Points(x, y[torch.randperm(len(y), generator=generator)] if shuffled else y)


def functions() -> list[Candidate]:
    """Return all distinct functions of the one-core space."""
    space = space_of("one-core")
    return [Candidate((space.function(one),), "enumerate") for one in space.distinct()]


def baselines() -> list[Candidate]:
    """Return what is to be beaten."""
    return [Candidate((Function(name),), "baseline") for name in BASELINES]


class Recorded(Judge):
    """A judge that looks up what is known of a run, and trains the rest."""

    def __init__(self, task: Task, budget: float, known: dict[tuple[str, int, int], float], pace: float) -> None:
        super().__init__(task, Meter(task.run_steps, budget), Ledger())
        self.known, self.pace = known, pace

    def _train(self, candidate: Candidate, run: int, steps: int, *, tested: bool) -> dict[str, Any]:
        loss = None if tested else self.known.get((candidate.key, run, steps))
        if loss is None:
            return super()._train(candidate, run, steps, tested=tested)
        finite = bool(np.isfinite(loss))
        seconds = self.pace * steps / self.task.run_steps
        record = {"candidate": candidate.to_json(), "run": run, "step": steps, "seconds": seconds, "evaluation": 0.0}
        record |= {"losses": [loss] if finite else [], "failure": None if finite else "diverged"}
        record["forwards"] = self.task.val_steps if finite else 0
        return record


def teachers(out: Path, wanted: int) -> None:
    """Draw teachers until so many are qualified, and train everything on them."""
    every, fixed = functions(), baselines()
    found, number = 0, 0
    while found < wanted:
        path = out / "teachers" / f"{number:03}.json"
        if not path.exists():
            write_atomic(path, json.dumps(_teacher(every, fixed, number)))
        found += json.loads(path.read_text())["qualified"]
        print(f"teacher {number}: {found} qualified", flush=True)
        number += 1


def _teacher(every: list[Candidate], fixed: list[Candidate], number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    planted = every[int(rng.integers(len(every)))]
    points = taught(planted.functions[0], number)
    record: dict[str, Any] = {"number": number, "planted": planted.name, "qualified": False}
    if not points.y.isfinite().all():
        return record
    task = points.task()
    first = train_packed(task, [planted, *fixed], QUALIFYING[:1], test=True).test
    assert first is not None
    if not first[0] < first[1:].min():
        return record | {"planted loss": float(first[0].mean()), "baseline losses": first[1:].mean(1).tolist()}
    losses = train_packed(task, [planted, *fixed], QUALIFYING, test=True).test
    assert losses is not None
    gains = losses[1:] - losses[0]
    best = gains[losses[1:].mean(1).argmin()]
    sure = bool((gains.mean(1) > 3 * gains.std(1, ddof=1) / len(QUALIFYING) ** 0.5).all())
    record |= {"planted loss": float(losses[0].mean()), "baseline losses": losses[1:].mean(1).tolist()}
    if not (sure and best.mean() > 0.05 * losses[1:].mean(1).min()):
        return record
    started = time.perf_counter()
    looked = train_packed(task, every, LOOKED_AT, parts=PARTS)
    seconds = time.perf_counter() - started
    scored = train_packed(task, every, SCORING, test=True)
    of_fixed = train_packed(task, fixed, [*LOOKED_AT, *SCORING], parts=PARTS, test=True)
    assert scored.test is not None
    assert of_fixed.test is not None
    finite = {"validation": looked.validation, "test": scored.test}
    finite |= {"baseline validation": of_fixed.validation[:, :2], "baseline test": of_fixed.test[:, 2:]}
    record |= {name: np.where(np.isfinite(values), values, 1e9).tolist() for name, values in finite.items()}
    return record | {"qualified": True, "enumeration seconds": seconds}


@dataclass(frozen=True)
class Teacher:
    """A qualified teacher with all that is known of it."""

    record: dict[str, Any]
    every: list[Candidate]

    @property
    def points(self) -> Points:
        """What it taught."""
        return taught(next(one for one in self.every if one.name == self.record["planted"]).functions[0], self.number)

    @property
    def number(self) -> int:
        """Its number."""
        return int(self.record["number"])

    def known(self, task: Task) -> dict[tuple[str, int, int], float]:
        """Return validation losses by candidate, run and steps."""
        found = {}
        for candidates, name in ((self.every, "validation"), (baselines(), "baseline validation")):
            for candidate, rows in zip(candidates, self.record[name], strict=True):
                for run, row in zip(LOOKED_AT, rows, strict=True):
                    for part, loss in zip(PARTS, row, strict=True):
                        found[candidate.key, run, task.steps_of(part)] = loss if loss < 1e9 else np.inf
        return found

    def held_out(self) -> dict[str, float]:
        """Return scores of all functions and baselines, by key."""
        rows = (
            *zip(self.every, self.record["test"], strict=True),
            *zip(baselines(), self.record["baseline test"], strict=True),
        )
        return {candidate.key: float(np.mean(losses)) for candidate, losses in rows}


def qualified(out: Path) -> Iterator[Teacher]:
    """Yield the qualified teachers."""
    every = functions()
    for path in sorted((out / "teachers").glob("*.json")):
        record = json.loads(path.read_text())
        if record["qualified"]:
            yield Teacher(record, every)


def methods(out: Path, seeds: int) -> None:
    """Run every method at every budget on every teacher."""
    for teacher in qualified(out):
        path = out / "methods" / f"{teacher.number:03}.json"
        if not path.exists():
            write_atomic(path, json.dumps(_methods(teacher, seeds)))
        print(f"methods on teacher {teacher.number} done", flush=True)


def _methods(teacher: Teacher, seeds: int) -> list[dict[str, Any]]:
    task = teacher.points.task()
    known, scores = teacher.known(task), teacher.held_out()
    pace = _pace(task)
    rows, answers = [], []
    for name, space, budgets in METHODS:
        for seed in range(seeds):
            ledger = Ledger()  # budgets of one search share what they train
            for budget in budgets:
                judge = Recorded(task, 1e9, known, pace)
                judge.ledger = ledger
                fixed = baselines()
                for one in fixed:
                    judge.score(one, FIRST_RUN, phase="baselines")
                before = judge.meter.spent
                started = time.perf_counter()
                found = method_of(name).find(judge, space_of(space), fixed, budget, np.random.default_rng(seed))
                seconds = sum(cost.seconds for phase, cost in judge.meter.phases.items() if phase != "baselines")
                row = {
                    "method": name,
                    "space": space,
                    "budget": budget,
                    "seed": seed,
                    "wall": time.perf_counter() - started,
                }
                row |= {
                    "runs": judge.meter.spent - before,
                    "seconds": seconds,
                    "found": found[0].name if found else None,
                }
                rows.append(row)
                answers.append(found[0] if found else None)
    new = {one.key: one for one in answers if one is not None and one.key not in scores}
    losses = train_packed(task, [*new.values()], SCORING, test=True).test
    assert losses is not None
    scores |= {key: float(np.mean(row)) for key, row in zip(new, losses, strict=True)}
    for row, answer in zip(rows, answers, strict=True):
        row["loss"] = scores[answer.key] if answer is not None else None
    return rows


def _pace(task: Task) -> float:
    judge = Judge(task, Meter(task.run_steps), Ledger())
    return judge.score(baselines()[0], 9, phase="pace").seconds


def searches(out: Path, seeds: int, space: str) -> None:
    """Run whole searches on every teacher, by default but for the space, and train what is found in many new runs."""
    fresh: dict[int, Any] = {}
    for teacher in qualified(out):
        points = teacher.points
        for seed in range(seeds):
            path = out / "searches" / f"{space}-{teacher.number:03}-{seed}.json"
            if not path.exists():
                if teacher.number not in fresh:
                    fresh[teacher.number] = _fresh(points, baselines())
                record, found = _searched(points, seed, space)
                write_atomic(path, json.dumps(record | _confirmed(points, found, fresh[teacher.number])))
            print(path.name, flush=True)


def _searched(points: Points, seed: int, space: str = "one-core") -> tuple[dict[str, Any], Candidate]:
    """Search, and return what was found, whether it was proven better or not."""
    started = time.perf_counter()
    result = sk.search(**points.arguments(), seed=seed, space=space)
    wall = time.perf_counter() - started
    found = next(
        (row.candidate for row in result.table if row.candidate.key == result.candidate), result.best.candidate
    )
    record = {"verdict": result.verdict, "outcome": result.outcome, "found": found.name}
    return record | {"runs": result.cost.spent, "wall": wall}, found


def _confirmed(points: Points, found: Candidate, of_baselines: Any) -> dict[str, Any]:
    """Train what was found anew in many runs, beside the baselines."""
    (losses,) = _fresh(points, [found])
    gains = of_baselines - losses
    closest = gains[of_baselines.mean(1).argmin()]
    return {
        "loss": float(losses.mean()),
        "baseline losses": of_baselines.mean(1).tolist(),
        "gain over the best baseline": float(closest.mean()),
        "standard error": float(closest.std(ddof=1) / len(FRESH) ** 0.5),
    }


def _fresh(points: Points, candidates: list[Candidate]) -> Any:
    """Return test losses in runs that nothing was chosen by, `(candidates, runs)`."""
    losses = train_packed(points.task(), candidates, FRESH, test=True).test
    assert losses is not None
    return losses


def nulls(out: Path, count: int) -> None:
    """Search where there is nothing to find: ReLU teachers, shuffled targets. Winners are trained anew in many runs."""
    for kind in ("relu", "shuffled"):
        for number in range(count):
            path = out / "nulls" / f"{kind}-{number:03}.json"
            if not path.exists():
                points = taught(Function("relu"), 10_000 + number, shuffled=kind == "shuffled")
                record, found = _searched(points, number)
                if record["outcome"] == "better":
                    record |= _confirmed(points, found, _fresh(points, baselines()))
                write_atomic(path, json.dumps(record))
            print(path.name, flush=True)


def main() -> None:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=("teachers", "methods", "searches", "nulls"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teachers", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--space", default="one-core", choices=("one-core", "grafs"), help="of whole searches")
    parser.add_argument("--nulls", type=int, default=30, help="of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for stage in options.stages:
        if stage == "teachers":
            teachers(options.out, options.teachers)
        elif stage == "methods":
            methods(options.out, options.seeds)
        elif stage == "searches":
            searches(options.out, options.seeds, options.space)
        else:
            nulls(options.out, options.nulls)


if __name__ == "__main__":
    main()
