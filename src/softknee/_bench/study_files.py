"""A study's folder as data: `study.json` and what its runs left behind."""

from __future__ import annotations

import base64
import json
import sys
from array import array
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

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
# What every study.json has; `metric` and `picture` came later.
_NEEDED = (
    *("protocol", "data", "epochs", "seeds", "activations", "reference", "margin", "cells", "runs", "evaluated_runs"),
    *("tuning", "curves", "environment"),
)
_PLANNED = ("key", "cell", "activation", "seed", "learning_rate")
# What its parts have, too: a mapping, or each mapping of a list.
_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "protocol": ("name", "title"),
        "data": ("name", "fingerprint", "test"),
        "curves": (),
        "cells": ("name", "title", "initialization", "rate"),
        "runs": _PLANNED,
        "tuning": ("activation", "initialization", "trials"),
    }
)
_LISTS = ("cells", "runs", "tuning")
_KNOWN = tuple(outcome for outcome in get_args(Outcome) if outcome != "missing")
# Where a run repeats bit by bit; results from before there was a choice of device are from there.
_REPEATABLE = "cpu"
# The picture that a run of a generated task draws: thousands of numbers, of which pages show one an activation.
_READ_AGAIN = "drawn"
# Lists from this length on are kept once where runs share them, as they do the positions at which curves are sampled.
_LONG = 100


@dataclass(frozen=True)
class Run:
    """A run a study asks for, and its result as far as there is one.

    Attributes:
        key: Name of its folder.
        cell: Name of the condition it belongs to; empty for a tuning run. A run may serve two conditions.
        activation: Label.
        seed: Its seed; None for a tuning run without a result.
        learning_rate: Its learning rate.
        result: The content of `result.json`, lists of numbers as arrays and without `drawn`, or None while there is
            none.
        path: Of that file.
    """

    key: str
    cell: str
    activation: str
    seed: int | None
    learning_rate: float
    result: Mapping[str, Any] | None
    path: Path

    @property
    def study(self) -> Path:
        """Folder of its study."""
        return self.path.parents[2]

    @property
    def status(self) -> Outcome:
        """How it ended; `missing` while it has no result."""
        return "missing" if self.result is None else self.result["status"]

    @property
    def done(self) -> bool:
        """Whether it trained to the end with finite numbers."""
        return self.status == "done"

    def get(self, field: str) -> Any:
        """Return a field of the result, or None where there is none; `drawn` is read from the disk each time."""
        if self.result is None:
            return None
        return read_checked(self.path).get(field) if field == _READ_AGAIN else self.result.get(field)

    def last(self, field: str) -> float | None:
        """Return the last entry of a per-epoch field, or None where there is none."""
        values = self.get(field)
        return values[-1] if values else None

    @property
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
        unreadable: A sentence on each result that could not be read and counts as missing.
    """

    folder: Path
    manifest: Mapping[str, Any]
    runs: tuple[Run, ...]
    tuning_runs: tuple[Run, ...]
    unreadable: tuple[str, ...] = ()

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
        fields = ("name", "title", "initialization", "rate")
        return [Cell(**{field: cell[field] for field in fields}) for cell in self.manifest["cells"]]

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """What the runs with a result were made on, each once."""
        return tuple(sorted({run.get("device") or _REPEATABLE for run in self.runs if run.result}))

    @property
    def part(self) -> str:
        """What is evaluated on, as users say it: `"test"`, or `"dev"`, held out of the training set."""
        return "test" if self.manifest.get("split", "test") == "test" else "dev"

    @property
    def evaluated_on(self) -> str:
        """The same in words."""
        return self.metric.evaluated_on if self.part == "test" else "a part held out of the training set"

    @property
    def paired(self) -> bool:
        """Whether runs of one seed make pairs: only where all runs repeat exactly, which other devices do not grant."""
        return set(self.devices) <= {_REPEATABLE}

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


def read_study(folder: Path, *, tolerant: bool = False) -> StudyFiles:
    """Read a study's folder, finished or not.

    Ten thousand runs fit into memory: of each, only numbers are kept, and those in arrays.

    Args:
        folder: The output folder of a study.
        tolerant: Take results that cannot be read for missing ones, and say so in `unreadable`, instead of raising.

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
    results = _Results(folder, _metric(path, manifest), tolerant=tolerant)
    runs = tuple(results.run(**{field: entry[field] for field in _PLANNED}) for entry in manifest["runs"])
    tuning = tuple(
        results.run(key, "", search["activation"], None, trial["learning_rate"])
        for search in manifest["tuning"]
        for trial in search["trials"]
        for key in trial["keys"]
    )
    return StudyFiles(folder, manifest, runs, tuning, tuple(results.unreadable))


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
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(_damaged(path, str(error))) from error
    except PermissionError as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        advice = f"; {_writer(content)} wrote it: read it with that version or a later one" if newer else ""
        raise UsageError(f"{str(path)!r} has schema {schema!r}; this version of softknee reads schema {SCHEMA}{advice}")
    return content  # type: ignore[no-any-return]


class _Results:
    """Reads the results of a study's runs, each once."""

    def __init__(self, folder: Path, metric: Metric, *, tolerant: bool) -> None:
        self.folder = folder
        self.metric = metric
        self.tolerant = tolerant
        self.unreadable: list[str] = []
        self._known: dict[str, Mapping[str, Any] | None] = {}
        self._lists: dict[int, array[float]] = {}

    def run(self, key: str, cell: str, activation: str, seed: int | None, learning_rate: float) -> Run:
        """Return a run with its result; without a seed, with that of its result."""
        path = self.folder / RUNS / key / RESULT
        if key not in self._known:
            self._known[key] = self._read(path, evaluated=bool(cell))
        result = self._known[key]
        found = seed if seed is not None else (result or {}).get("seed")
        return Run(key, cell, sys.intern(activation), found, learning_rate, result, path)

    def _read(self, path: Path, *, evaluated: bool) -> Mapping[str, Any] | None:
        try:
            content = read_checked(path)
            self._check(path, content, evaluated=evaluated)
        except FileNotFoundError:
            return None
        except UsageError as error:
            if not self.tolerant:
                raise
            self.unreadable.append(str(error))
            return None
        return {sys.intern(name): self._small(value) for name, value in content.items() if name != _READ_AGAIN}

    def _check(self, path: Path, content: Mapping[str, Any], *, evaluated: bool) -> None:
        status = content.get("status")
        if status not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise UsageError(f"{str(path)!r} has the status {status!r}; this version of softknee knows {known}")
        needed = (self.metric.test, *(("correct", "test_size") if evaluated and self.metric.sampled else ()))
        lacking = [field for field in needed if status == "done" and content.get(field) in (None, [], "")]
        if lacking:
            raise UsageError(_damaged(path, f"a finished run without {', '.join(lacking)}"))

    def _small(self, value: Any) -> Any:
        """Return plain data with lists of numbers as arrays, which take an eighth of the memory."""
        if isinstance(value, str):
            return sys.intern(value)
        if isinstance(value, dict):
            return {sys.intern(name): self._small(item) for name, item in value.items()}
        if not isinstance(value, list) or not value:
            return value
        if isinstance(value[0], list | dict | str):
            return [self._small(item) for item in value]
        try:
            numbers = array("d", value)
        except TypeError:  # gaps
            return value
        if len(numbers) < _LONG:
            return numbers
        known = self._lists.setdefault(hash(numbers.tobytes()), numbers)
        return known if known == numbers else numbers


def _metric(path: Path, manifest: Mapping[str, Any]) -> Metric:
    """Return what a study is about, once its manifest is found to be whole.

    Raises:
        UsageError: It is not, or the metric is unknown.
    """
    lacking = [name for name in _NEEDED if name not in manifest] or _lacking_parts(manifest)
    if lacking:
        raise UsageError(_damaged(path, f"it has no {', '.join(lacking)}"))
    name = manifest.get("metric", "accuracy")
    if not isinstance(name, str) or name not in METRICS:
        raise UsageError(
            f"{str(path)!r} ranks by {name!r}; this version of softknee knows {', '.join(METRICS)}; "
            f"{_writer(manifest)} wrote it: read it with that version or a later one"
        )
    return METRICS[name]


def _lacking_parts(manifest: Mapping[str, Any]) -> list[str]:
    """Return what the parts of a manifest lack, each once."""
    found: dict[str, None] = {}
    for part, fields in _PARTS.items():
        whole = manifest[part]
        for entry in whole if isinstance(whole, list) and part in _LISTS else [whole]:
            known = entry if isinstance(entry, dict) else {}
            found |= dict.fromkeys(f"{part}: {field}" for field in fields if field not in known)
            if known is not entry:
                found[f"{part} of the right form"] = None
    return list(found)


def _writer(content: Mapping[str, Any]) -> str:
    """Return the version that wrote a file, as far as it says so."""
    environment = content.get("environment")
    version = environment.get("softknee") if isinstance(environment, dict) else None
    return f"softknee {version}" if version else "a newer softknee"


def _damaged(path: Path, reason: str) -> str:
    return f"{str(path)!r} is damaged ({reason}); delete it and run the study again"
