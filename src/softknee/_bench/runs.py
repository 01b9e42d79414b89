"""What a run is, the key that identifies it, and where its results lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from softknee._bench.protocol import Frozen, InitializationName, Recipe
from softknee._bench.study_files import RESULT, SCHEMA, read_checked
from softknee._bench.submission_guard import Limits
from softknee._bench.tasks import TASKS
from softknee._errors import UsageError
from softknee._report.files import write_atomic

CHECKPOINT = "checkpoint.pt"
FINISHED = ("done", "diverged")

Split = Literal["test", "validation"]
Status = Literal["done", "diverged", "failed", "lost"]
DeviceName = Literal["cpu", "cuda"]
Precision = Literal["float32", "tf32", "bfloat16"]

# Fields that came later than runs did; at their defaults they are left out, so that those runs keep their keys.
_LATER = ("device", "precision", "compiled")


class RunSpec(Frozen):
    """What a run is: everything that decides its numbers, and which weights it keeps.

    Attributes:
        protocol: Name of the protocol.
        recipe: Task, model and training.
        activation: Canonical text of the activation.
        definition: What that text stands for: formula, parameters and which are trained.
        seed: Of the weights, activation parameters, data order and noise, each a stream of its own.
        initialization: Of the weights.
        learning_rate: At the start; the recipe's schedule changes it.
        epochs: Length of the run.
        split: Evaluate on the test set, or on a part held out of the training set.
        data: SHA-256 of the data, or of what defines generated ones.
        save_epochs: Epochs after which the weights are kept; they decide no number and are not in the key.
        threads: Threads of the process that trains.
        engine: How activations are evaluated.
        kernels: Instruction set of the kernels that engines may use, `"triton"` on CUDA, `"none"` without a compiler.
        revision: Counts changes of softknee that change a run's numbers.
        device: Where it computes.
        precision: A tier: `"float32"`; `"tf32"`, the same with products and convolutions of TensorFloat-32, on CUDA;
            `"bfloat16"`, forward passes under PyTorch's automatic casts, weights and optimizer in float32.
        compiled: Whether `torch.compile` makes the forward and backward pass of training.
    """

    protocol: str
    recipe: Recipe
    activation: str
    definition: str
    seed: int
    initialization: InitializationName
    learning_rate: float
    epochs: int
    split: Split
    data: str
    save_epochs: tuple[int, ...] = ()
    threads: int = 1
    engine: Literal["auto"] = "auto"
    kernels: str = "none"
    revision: int = 4
    device: DeviceName = "cpu"
    precision: Precision = "float32"
    compiled: bool = False

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in serialize(self).items() if name not in usual}

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON of what decides the numbers."""
        fields = self.model_dump(mode="json", exclude={"save_epochs"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Job(Frozen):
    """A run together with where its data come from and where its results go.

    Attributes:
        spec: The run.
        source: As the task's `load` takes it.
        folder: The run's own folder.
        limits: What the process of a submission may take; None for the usual ones.
    """

    spec: RunSpec
    source: str
    folder: Path
    limits: Limits | None = None

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.folder.parents[1]


# Jobs that one process does at a time.
SHARE: TypeAdapter[tuple[Job, ...]] = TypeAdapter(tuple[Job, ...])


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the run's result; None where there is none that this version can read."""
    try:
        return dict(read_checked(folder / RESULT))
    except (FileNotFoundError, UsageError):
        return None


def ended_status(job: Job) -> Status | None:
    """Return how the run ended, well or not, if nothing of it is missing; weights that are to be kept belong to it."""
    result = read_result(job.folder)
    if result is None or result.get("status") not in get_args(Status):
        return None
    kept = all((job.folder / weights_name(epoch)).is_file() for epoch in job.spec.save_epochs)
    return result["status"] if kept or result["status"] != "done" else None


def finished_status(job: Job) -> Status | None:
    """Return how the run ended, `done` or `diverged`; what failed, was lost or is incomplete is tried again."""
    status = ended_status(job)
    return status if status in FINISHED else None


def weights_name(epoch: int) -> str:
    """Return the name of the file with the weights after an epoch."""
    return f"epoch-{epoch:03}.pt"


def write_result(folder: Path, spec: RunSpec, status: Status, **fields: Any) -> None:
    """Write the run's result atomically; it is the last thing a run writes.

    Args:
        folder: The run's own folder.
        spec: The run.
        status: How it ended.
        **fields: Everything else that was recorded; plain data.
    """
    metric = TASKS[spec.recipe.task].metric
    described = spec.model_dump(mode="json", exclude={"recipe"})
    nothing: dict[str, Any] = {
        metric.test: [],
        "test_loss": [],
        metric.best: None,
        "seconds": None,
        "error": None,
    }
    result = {"schema": SCHEMA, "key": spec.key, "status": status, **described, **nothing, **fields}
    write_atomic(folder / RESULT, json.dumps(result, allow_nan=False))


def write_failure(folder: Path, spec: RunSpec, status: Status, *, kind: str, message: str, traceback: str = "") -> None:
    """Write the result of a run that ended without numbers: an error in it, or the death of its process."""
    write_result(folder, spec, status, error={"type": kind, "message": message, "traceback": traceback})
