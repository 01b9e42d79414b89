"""A study's folder as data: `study.json` and what its runs left behind."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softknee._bench.metric import METRICS
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from softknee._bench.metric import Metric

Outcome = Literal["done", "diverged", "failed", "lost", "missing"]

MANIFEST = "study.json"
RUNS = "runs"
RESULT = "result.json"
SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """A run a study asks for, and its result as far as there is one.

    Attributes:
        key: Name of its folder.
        cell: Name of the condition it belongs to; empty for a tuning run. A run may serve two conditions.
        activation: Label.
        seed: Its seed; None for a tuning run without a result.
        learning_rate: Its learning rate.
        result: The content of `result.json`, or None while there is none.
    """

    key: str
    cell: str
    activation: str
    seed: int | None
    learning_rate: float
    result: Mapping[str, Any] | None

    @property
    def status(self) -> Outcome:
        """How it ended; `missing` while it has no result."""
        return "missing" if self.result is None else self.result["status"]

    @property
    def done(self) -> bool:
        """Whether it trained to the end with finite numbers."""
        return self.status == "done"

    def get(self, field: str) -> Any:
        """Return a field of the result, or None where there is none."""
        return None if self.result is None else self.result.get(field)

    def last(self, field: str) -> float | None:
        """Return the last entry of a per-epoch field, or None where there is none."""
        values = self.get(field)
        return values[-1] if values else None

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Which test examples a done run gets right after its last epoch: `(test examples,)`."""
        assert self.result is not None  # noqa: S101 - callers ask only done runs
        packed = np.frombuffer(base64.b64decode(self.result["correct"]), dtype=np.uint8)
        return np.unpackbits(packed, count=self.result["test_size"]).astype(bool)


@dataclass(frozen=True)
class Cell:
    """A condition of the study's design.

    Attributes:
        name: Identifier.
        title: For people.
        initialization: `"default"` or `"matched"`.
        rate: `"given"` or `"tuned"`.
    """

    name: str
    title: str
    initialization: str
    rate: str


@dataclass(frozen=True)
class StudyFiles:
    """Everything a study's folder says.

    Attributes:
        folder: Where it lies.
        manifest: The content of `study.json`.
        runs: The evaluated runs, in the manifest's order; one that serves two conditions stands here twice.
        tuning_runs: The runs that chose learning rates.
    """

    folder: Path
    manifest: Mapping[str, Any]
    runs: tuple[Run, ...]
    tuning_runs: tuple[Run, ...]

    @property
    def pending(self) -> int:
        """Evaluated runs the study asks for that cannot be named yet, because their rates are not tuned."""
        return int(self.manifest["evaluated_runs"]) - len(self.runs)

    @property
    def reference(self) -> str:
        """Label of the activation the others are compared with."""
        return str(self.manifest["reference"])

    @property
    def metric(self) -> Metric:
        """What runs are ranked by; studies from before there was a choice have accuracies."""
        return METRICS[self.manifest.get("metric", "accuracy")]

    @property
    def margin(self) -> float:
        """Differences smaller than this do not matter, in the unit of the metric."""
        return float(self.manifest["margin"])

    @property
    def activations(self) -> list[str]:
        """Labels, in the order they were asked for."""
        return list(self.manifest["activations"])

    @property
    def cells(self) -> list[Cell]:
        """The conditions, in the order of the report."""
        return [Cell(**cell) for cell in self.manifest["cells"]]

    def of(self, cell: str, activation: str) -> list[Run]:
        """Return the runs of one activation in one condition."""
        return self._grouped.get((cell, activation), [])

    @cached_property
    def _grouped(self) -> dict[tuple[str, str], list[Run]]:
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            groups.setdefault((run.cell, run.activation), []).append(run)
        return groups

    @cached_property
    def unmatched(self) -> frozenset[str]:
        """Labels of activations for which no weight scale keeps both signal and gradient, at some site."""
        return frozenset(
            run.activation for run in self.runs if not all(gain["valid"] for gain in run.get("gain") or ())
        )


def read_study(folder: Path) -> StudyFiles:
    """Read a study's folder, finished or not.

    Args:
        folder: The output folder of a study.

    Returns:
        Its content.

    Raises:
        UsageError: There is no study, it was written by another version, or a file in it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"no study in {str(folder)!r}: it holds no {MANIFEST}; give the output folder of `softknee bench`"
        )
    manifest = read_checked(path)
    results: dict[str, Mapping[str, Any] | None] = {}

    def result(key: str) -> Mapping[str, Any] | None:
        if key not in results:
            place = folder / RUNS / key / RESULT
            results[key] = read_checked(place) if place.is_file() else None
        return results[key]

    runs = tuple(Run(**entry, result=result(entry["key"])) for entry in manifest["runs"])
    tuning = tuple(
        Run(key, "", search["activation"], (result(key) or {}).get("seed"), trial["learning_rate"], result(key))
        for search in manifest["tuning"]
        for trial in search["trials"]
        for key in trial["keys"]
    )
    return StudyFiles(folder, manifest, runs, tuning)


def read_checked(path: Path) -> Mapping[str, Any]:
    """Read a file of a study.

    Args:
        path: A `study.json` or `result.json`.

    Returns:
        Its content.

    Raises:
        UsageError: It is damaged or was written by another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is damaged ({error}); delete it and run the study again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"{str(path)!r} has schema {schema!r}; this version of softknee reads schema {SCHEMA}")
    return content  # type: ignore[no-any-return]
