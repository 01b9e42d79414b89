"""`study.json`: what belongs to a study, written before, between and after its runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeGuard

from softknee._bench.record import curve_points, environment, finite, sample
from softknee._bench.streams import Stream, stream_generator
from softknee._bench.study_files import MANIFEST, SCHEMA, read_checked
from softknee._bench.suite_files import is_suite
from softknee._catalogue import Choice
from softknee._errors import StudyMismatch, UsageError
from softknee._report.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from softknee._bench.plan import Plan
    from softknee._bench.protocol import Cell, InitializationName
    from softknee._bench.submission import Entry

    # The tuned learning rate by activation and initialization; None where no rate trained at all.
    Rates = Mapping[tuple[str, InitializationName], float | None]


def write_study(plan: Plan, *, rates: Rates, tuning: Sequence[dict[str, Any]]) -> None:
    """Write `study.json`, from which `report` knows what belongs to the study.

    Args:
        plan: The study.
        rates: Tuned learning rates, as far as they are known.
        tuning: A record for each search, see `docs/results-format.md`.
    """
    study = {
        "schema": SCHEMA,
        **_described(plan),
        "seeds": plan.seeds,
        "activations": plan.labels,
        "reference": plan.reference,
        "metric": plan.metric.name,
        "margin": plan.margin,
        "cells": [cell.model_dump() for cell in plan.protocol.cells],
        "runs": list(_planned_runs(plan, rates)),
        "evaluated_runs": _evaluated_runs(plan, rates),
        "tuning": list(tuning),
        "curves": {c.label: _curve(plan, c) for c in plan.choices if _has_curve(c)},
        "picture": plan.task.picture(),
        "environment": environment(plan.device),
    }
    plan.folder.mkdir(parents=True, exist_ok=True)
    for submission in plan.submissions:
        submission.keep(plan.folder)
    write_atomic(plan.folder / MANIFEST, json.dumps(study, allow_nan=False))


def cell_rate(plan: Plan, cell: Cell, activation: str, rates: Rates) -> float | None:
    """Return the learning rate of `activation` in `cell`; None while it is not tuned, or where none trains."""
    return plan.protocol.learning_rate if cell.rate == "given" else rates.get((activation, cell.initialization))


def held_study(folder: Path) -> Mapping[str, Any] | None:
    """Return the `study.json` that `folder` holds, or None without one.

    Raises:
        UsageError: It cannot be read, or `folder` is a file or a suite's.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"out must be a folder, got the file {folder}")
    if is_suite(folder):
        raise UsageError(f"{folder} holds a suite; give another folder as out")
    path = folder / MANIFEST
    return read_checked(path) if path.is_file() else None


def check_same(plan: Plan, held: Mapping[str, Any]) -> None:
    """Check that a plan and the study its folder holds differ in their activations and seeds at most.

    Raises:
        StudyMismatch: Naming the first difference.
    """
    theirs, ours = _identity(held), _identity(json.loads(json.dumps(_described(plan))))
    for name, asked in ours.items():
        if theirs[name] != asked:
            values = f"{theirs[name]}, asked for {asked}" if isinstance(asked, str | int) else "another"
            raise StudyMismatch(
                f"{plan.folder} holds another study: its {name} is {values}; give another folder as out"
            )


def _described(plan: Plan) -> dict[str, Any]:
    about = {"protocol": plan.protocol.model_dump(mode="json"), "data": asdict(plan.data), "epochs": plan.epochs}
    means = {"device": plan.device, "precision": plan.precision, "compiled": plan.compiled}
    return {**about, "split": plan.split, **means}


def _identity(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the numbers of a study, in the words of its messages; titles may change."""
    protocol, data = study["protocol"], study["data"]
    return {
        "protocol": protocol["name"],
        "number of epochs": study["epochs"],
        "data": f"{'new' if data['train'] is None else format(data['train'], ',')} + {data['test']:,} examples "
        f"({data['fingerprint'][:8]})",
        "recipe": protocol["recipe"],
        "split": study.get("split", "test"),
        "device": study.get("device", "cpu"),
        "precision": study.get("precision", "float32"),
        "choice of compiled steps": study.get("compiled", False),
        "learning rate": protocol["learning_rate"],
        "set of conditions": [{**cell, "title": ""} for cell in protocol["cells"]],
        "tuning": protocol["tuning"],
    }


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


def _evaluated_runs(plan: Plan, rates: Rates) -> int:
    """Count the runs the cells ask for, but for the cells of activations that no rate trains."""
    hopeless = {task for task, rate in rates.items() if rate is None}
    wanted = [
        (activation, cell.initialization) not in hopeless or cell.rate == "given"
        for cell in plan.protocol.cells
        for activation in plan.labels
    ]
    return sum(wanted) * len(plan.seeds)


def _has_curve(choice: Entry) -> TypeGuard[Choice]:
    return isinstance(choice, Choice) and choice.spec.kind == "elementwise"


def _curve(plan: Plan, choice: Choice) -> dict[str, list[float | None]]:
    """Sample an activation as the first seed starts with it, in the first channel of its first place."""
    width = plan.protocol.recipe.widths[1]
    activation = choice.build(channels=width, generator=stream_generator(plan.seeds[0], Stream.ACTIVATION))
    return {"x": list(curve_points()), "y": finite(sample(activation, width)[:, 0])}
