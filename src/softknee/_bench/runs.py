"""What a run is, the key that identifies it, and where its results lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from softknee._bench.protocol import Frozen, InitializationName, Recipe
from softknee._report.files import write_atomic

RESULT = "result.json"
CHECKPOINT = "checkpoint.pt"
FINISHED = ("done", "diverged")
SCHEMA = 1

Split = Literal["test", "validation"]
Status = Literal["done", "diverged", "failed", "lost"]


class RunSpec(Frozen):
    """Everything that decides the numbers of a run, and nothing else.

    Attributes:
        protocol: Name of the protocol.
        recipe: Model and training.
        activation: Canonical text of the activation.
        seed: Of the weights, activation parameters, data order and noise, each a stream of its own.
        initialization: Of the weights.
        learning_rate: Of SGD, constant.
        epochs: Length of the run.
        split: Evaluate on the test set, or on a part held out of the training set.
        data: SHA-256 of the data.
        save_epochs: Epochs after which the weights are kept.
        threads: Threads of the process that trains.
        engine: How activations are evaluated.
        revision: Counts changes of softknee that change a run's numbers.
    """

    protocol: str
    recipe: Recipe
    activation: str
    seed: int
    initialization: InitializationName
    learning_rate: float
    epochs: int
    split: Split
    data: str
    save_epochs: tuple[int, ...] = ()
    threads: int = 1
    engine: Literal["eager"] = "eager"
    revision: int = 1

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON of all fields."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Job(Frozen):
    """A run together with where its data come from and where its results go.

    Attributes:
        spec: The run.
        source: As `data.load` takes it.
        folder: The run's own folder.
    """

    spec: RunSpec
    source: str
    folder: Path


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the run's result, or None while there is none."""
    path = folder / RESULT
    return json.loads(path.read_text()) if path.is_file() else None


def finished_status(folder: Path) -> Status | None:
    """Return how the run ended if it ended by itself, `done` or `diverged`; failed and lost runs are tried again."""
    result = read_result(folder)
    return result["status"] if result is not None and result["status"] in FINISHED else None


def write_result(folder: Path, spec: RunSpec, status: Status, **fields: Any) -> None:
    """Write the run's result atomically; it is the last thing a run writes.

    Args:
        folder: The run's own folder.
        spec: The run.
        status: How it ended.
        **fields: Everything else that was recorded; plain data.
    """
    described = spec.model_dump(mode="json", exclude={"recipe"})
    nothing: dict[str, Any] = {
        "test_accuracy": [],
        "test_loss": [],
        "best_test_accuracy": None,
        "seconds": None,
        "error": None,
    }
    result = {"schema": SCHEMA, "key": spec.key, "status": status, **described, **nothing, **fields}
    write_atomic(folder / RESULT, json.dumps(result, allow_nan=False))


def write_failure(folder: Path, spec: RunSpec, status: Status, *, kind: str, message: str, traceback: str = "") -> None:
    """Write the result of a run that ended without numbers: an error in it, or the death of its process."""
    write_result(folder, spec, status, error={"type": kind, "message": message, "traceback": traceback})
