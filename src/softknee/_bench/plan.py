"""A study as it was asked for, checked before any work is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._bench import data
from softknee._bench.protocol import expand_groups, get_protocol
from softknee._bench.record import curve_points, environment, sample
from softknee._bench.runs import SCHEMA, Job, RunSpec
from softknee._catalogue import parse_choice
from softknee._errors import StudyMismatch, UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from softknee._bench.protocol import Cell, InitializationName, Protocol
    from softknee._bench.runs import Split
    from softknee._catalogue import Choice

    Rates = dict[tuple[str, InitializationName], float]

STUDY = "study.json"
RUNS = "runs"


@dataclass(frozen=True)
class Plan:
    """What a study consists of.

    Attributes:
        protocol: The frozen recipe.
        choices: The activations, without repetition.
        seeds: Evaluated ones.
        epochs: Length of an evaluated run.
        source: Where the data come from, as `data.load` takes it.
        images: The verified data.
        folder: Where everything is written.
        reference: Label of the activation the others are compared with.
        margin: Differences within it, in percentage points, count as equivalent.
        save_epochs: Epochs after which weights are kept.
    """

    protocol: Protocol
    choices: tuple[Choice, ...]
    seeds: tuple[int, ...]
    epochs: int
    source: str
    images: data.ImageData
    folder: Path
    reference: str
    margin: float
    save_epochs: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Canonical texts of the activations."""
        return tuple(choice.label for choice in self.choices)

    def job(
        self, activation: str, seed: int, *, initialization: InitializationName, rate: float, split: Split = "test"
    ) -> Job:
        """Return one run of this study; tuning runs are the ones with `split="validation"`."""
        tuning = self.protocol.tuning if split == "validation" else None
        spec = RunSpec(
            protocol=self.protocol.name,
            recipe=self.protocol.recipe,
            activation=activation,
            seed=seed,
            initialization=initialization,
            learning_rate=rate,
            epochs=tuning.epochs(self.epochs) if tuning else self.epochs,
            split=split,
            data=self.images.fingerprint,
            save_epochs=() if tuning else self.save_epochs,
        )
        return Job(spec=spec, source=self.source, folder=self.folder / RUNS / spec.key)

    def total_epochs(self) -> int:
        """Count the epochs of all runs, tuning included, whether finished already or not."""
        total = len(self.protocol.cells) * len(self.seeds) * self.epochs
        if self.protocol.tuning:
            tuned = len({cell.initialization for cell in self.protocol.cells if cell.rate == "tuned"})
            tuning = self.protocol.tuning
            total += tuned * tuning.trials * len(tuning.seeds) * tuning.epochs(self.epochs)
        return total * len(self.choices)


def make_plan(
    protocol: str,
    activations: Sequence[str],
    *,
    seeds: int,
    epochs: int | None,
    source: str,
    out: Path | None,
    reference: str | None,
    margin: float,
    save_epochs: Sequence[int],
) -> Plan:
    """Check everything that can be wrong with a request and load the data; nothing is written.

    Raises:
        UsageError: Or one of its subclasses, naming the argument, what was given and what is allowed.
    """
    recipe = get_protocol(protocol)
    length = recipe.epochs if epochs is None else epochs
    choices = _choices(activations)
    _check_at_least(1, seeds=seeds, epochs=length)
    if not margin > 0:
        raise UsageError(f"margin must be a positive number of percentage points, got {margin}")
    if any(not 1 <= epoch <= length for epoch in save_epochs):
        raise UsageError(f"save_epochs must lie between 1 and {length}, got {', '.join(map(str, save_epochs))}")
    labels = [choice.label for choice in choices]
    folder = Path("results", recipe.name) if out is None else Path(out)
    plan = Plan(
        protocol=recipe,
        choices=choices,
        seeds=tuple(range(seeds)),
        epochs=length,
        source=source if source in {"mini", "full"} else str(Path(source).resolve()),
        images=data.load(source),
        folder=folder.resolve(),
        reference=_reference(reference, labels),
        margin=float(margin),
        save_epochs=tuple(sorted(set(save_epochs))),
    )
    _check_folder(plan)
    return plan


def write_study(plan: Plan, *, rates: Rates, tuning: Sequence[dict[str, Any]]) -> None:
    """Write `study.json`, from which `report` knows what belongs to the study.

    Args:
        plan: The study.
        rates: Tuned learning rate by activation and initialization, as far as known.
        tuning: A record for each search, see `docs/results-format.md`.
    """
    study = {
        "schema": SCHEMA,
        **_identity(plan),
        "seeds": plan.seeds,
        "activations": plan.labels,
        "reference": plan.reference,
        "margin": plan.margin,
        "cells": [cell.model_dump() for cell in plan.protocol.cells],
        "runs": list(_planned_runs(plan, rates)),
        "tuning": list(tuning),
        "curves": _curves(plan),
        "environment": environment(),
    }
    plan.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(plan.folder / STUDY, json.dumps(study, allow_nan=False))


def cell_rate(plan: Plan, cell: Cell, activation: str, rates: Rates) -> float | None:
    """Return the learning rate of `activation` in `cell`; None while it is not tuned yet."""
    return plan.protocol.learning_rate if cell.rate == "given" else rates.get((activation, cell.initialization))


def _planned_runs(plan: Plan, rates: Rates) -> Iterator[dict[str, Any]]:
    for cell in plan.protocol.cells:
        for activation in plan.labels:
            rate = cell_rate(plan, cell, activation, rates)
            if rate is None:
                continue
            for seed in plan.seeds:
                key = plan.job(activation, seed, initialization=cell.initialization, rate=rate).spec.key
                run = {"key": key, "cell": cell.name, "activation": activation, "seed": seed, "learning_rate": rate}
                yield run


def _curves(plan: Plan) -> dict[str, dict[str, list[float | None]]]:
    x = curve_points()
    curves: dict[str, dict[str, list[float | None]]] = {}
    for choice in plan.choices:
        y = sample(choice.build(channels=1), 1)[:, 0]
        curves[choice.label] = {"x": list(x), "y": [v if abs(v) < float("inf") else None for v in y.tolist()]}
    return curves


def _identity(plan: Plan) -> dict[str, Any]:
    """Return what makes it this study and no other; activations and seeds may be added later."""
    images = plan.images
    return {
        "protocol": plan.protocol.model_dump(mode="json"),
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "train": len(images.train_labels),
            "test": len(images.test_labels),
        },
        "epochs": plan.epochs,
    }


def _check_folder(plan: Plan) -> None:
    path = plan.folder / STUDY
    if plan.folder.exists() and not plan.folder.is_dir():
        raise UsageError(f"out must be a folder, got the file {plan.folder}")
    if not path.is_file():
        return
    held, asked = json.loads(path.read_text()), _identity(plan)
    if held["protocol"] != asked["protocol"] or held["epochs"] != asked["epochs"]:
        other = f"{held['protocol']['name']} with {held['epochs']} epochs"
        mine = f"{plan.protocol.name} with {plan.epochs} epochs"
    elif held["data"]["fingerprint"] != asked["data"]["fingerprint"]:
        other, mine = f"data {held['data']['name']}", f"data {plan.images.name}"
    else:
        return
    raise StudyMismatch(f"{plan.folder} holds another study ({other}; asked for: {mine}); give another folder as out")


def _choices(activations: Iterable[str]) -> tuple[Choice, ...]:
    if isinstance(activations, str):
        raise UsageError(f"activations must be a list of texts, got the single text {activations!r}")
    choices = tuple(dict.fromkeys(parse_choice(text) for text in expand_groups(activations)))
    if not choices:
        raise UsageError("activations must name at least one activation, got none")
    return choices


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} must be an integer of at least {least}, got {value!r}")


def _reference(asked: str | None, labels: Sequence[str]) -> str:
    if asked is None:
        return "relu" if "relu" in labels else labels[0]
    label = parse_choice(asked).label
    if label not in labels:
        raise UsageError(f"reference must be one of the compared activations ({', '.join(labels)}), got {asked!r}")
    return label
