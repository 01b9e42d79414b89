"""One run: build, train, evaluate, record. Interrupted at any moment, it goes on from its last epoch bit by bit."""

from __future__ import annotations

import json
import math
import time
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F

from softknee._bench import data
from softknee._bench.model import build_mlp, count_parameters, match_gains, site_engines, site_gains
from softknee._bench.record import History, environment, final_fields, history_fields, trained_shapes
from softknee._bench.runs import CHECKPOINT, finished_status, weights_name, write_failure, write_result
from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._catalogue import parse_choice
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from torch import Tensor, nn

    from softknee._bench.runs import Job, RunSpec, Split, Status
    from softknee._card.propagation import Gain

    Progress = Callable[[int, float], None]  # the epoch just finished, its test accuracy in percent

EVALUATION_BATCH = 2000


@dataclass(frozen=True)
class Tensors:
    """Data ready to train on: inputs `(n, 784)` float32 in [-1, 1], labels `(n,)` int64."""

    fingerprint: str
    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor


@lru_cache(maxsize=2)
def load_tensors(source: str, split: Split) -> Tensors:
    """Load `source` once a process; pixels become `(p / 255 - 0.5) / 0.5`.

    Raises:
        DataError: As `data.load`.
    """
    images = data.load(source) if split == "test" else data.load(source).validation()
    return Tensors(
        images.fingerprint,
        _normalize(images.train_images),
        torch.tensor(images.train_labels, dtype=torch.int64),
        _normalize(images.test_images),
        torch.tensor(images.test_labels, dtype=torch.int64),
    )


def _normalize(images: Any) -> Tensor:
    return torch.tensor(images).flatten(1).float().div_(255).sub_(0.5).div_(0.5)


def execute(job: Job, progress: Progress) -> Status:
    """Run `job` unless it is finished already, and write its result; no exception of the run leaves this function.

    Args:
        job: What to run and where to write.
        progress: Called after each epoch.

    Returns:
        How the run ended.
    """
    earlier = finished_status(job)
    if earlier is not None:
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
        return earlier
    with closing(_epochs(job)) as epochs:
        while True:
            try:
                epoch, accuracy = next(epochs)
            except StopIteration as end:
                return cast("Status", end.value)
            progress(epoch, accuracy)


def _epochs(job: Job) -> Generator[tuple[int, float], None, Status]:
    """Yield each epoch as it finishes; what the caller does in between is not part of the run."""
    job.folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(job.spec.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            return (yield from _Run(job).train())
    except Exception as error:
        write_failure(
            job.folder,
            job.spec,
            "failed",
            kind=type(error).__name__,
            message=str(error),
            traceback=traceback.format_exc(),
        )
        return "failed"
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The state of one run between its epochs."""

    def __init__(self, job: Job) -> None:
        self.spec: RunSpec = job.spec
        self.folder: Path = job.folder
        self.data = load_tensors(job.source, job.spec.split)
        if self.data.fingerprint != job.spec.data:
            raise DataError(f"the data in {job.source} changed while the study ran")
        self.model = _initial_model(self.spec, self.data)
        self.gains = [{"site": site, **_plain(gain)} for site, gain in site_gains(self.model).items()]
        self.engines = site_engines(self.model, batch_size=self.spec.recipe.batch_size)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=self.spec.learning_rate, momentum=self.spec.recipe.momentum, fused=True
        )
        self.history = History(before=trained_shapes(self.model))
        self.history.note_parameters(self.model)
        self._resume()

    def train(self) -> Generator[tuple[int, float], None, Status]:
        for epoch in range(len(self.history.test_loss) + 1, self.spec.epochs + 1):
            if not self._train_epoch(epoch):
                return self._finish("diverged", diverged_at=epoch)
            if epoch in self.spec.save_epochs:
                _save(self.folder / weights_name(epoch), self.model.state_dict())
            self._checkpoint()
            yield epoch, self.history.test_accuracy[-1]
        predicted, _ = evaluate(self.model, self.data)
        after = trained_shapes(self.model)
        return self._finish(
            "done", **final_fields(self.history, predicted=predicted, labels=self.data.test_labels, after=after)
        )

    def _train_epoch(self, epoch: int) -> bool:
        """Train and evaluate once; False, and nothing recorded, when a loss is not finite."""
        start = time.perf_counter()
        torch.default_generator.manual_seed(stream_seed(self.spec.seed, Stream.NOISE, epoch))
        order = stream_generator(self.spec.seed, Stream.ORDER, epoch)
        loss, correct = train_epoch(self.model, self.optimizer, self.data, order, self.spec.recipe.batch_size)
        if not math.isfinite(loss):
            return False
        predicted, test_loss = evaluate(self.model, self.data)
        if not math.isfinite(test_loss):
            return False
        history = self.history
        history.train_loss.append(loss)
        history.train_accuracy.append(100 * correct)
        history.test_loss.append(test_loss)
        history.test_accuracy.append(100 * (predicted == self.data.test_labels).double().mean().item())
        history.note_parameters(self.model)
        history.seconds.append(time.perf_counter() - start)
        return True

    def _finish(self, status: Status, **fields: Any) -> Status:
        recorded = history_fields(self.history)
        counts = count_parameters(self.model)
        about = {"gain": self.gains, "engines": self.engines, "counts": counts, "environment": environment()}
        write_result(self.folder, self.spec, status, **recorded, **about, **fields)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return status

    def _checkpoint(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        _save(self.folder / CHECKPOINT, {**state, "history": json.dumps(asdict(self.history))})

    def _resume(self) -> None:
        """Go on from the checkpoint, unless weights are to be kept of an epoch it has passed without keeping them."""
        state = _load(self.folder / CHECKPOINT)
        if state is None:
            return
        history = History(**json.loads(state["history"]))
        passed = [epoch for epoch in self.spec.save_epochs if epoch <= len(history.test_loss)]
        if all((self.folder / weights_name(epoch)).is_file() for epoch in passed):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = history


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors, order: torch.Generator, batch_size: int
) -> tuple[float, float]:
    """Train once over the data in an order drawn from `order`; batches are indexed, the last one may be smaller.

    Returns:
        Mean loss over the examples and share of correct predictions, both as they were before each step.
    """
    model.train()
    total, correct = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    for batch in torch.randperm(len(tensors.train_labels), generator=order).split(batch_size):
        labels = tensors.train_labels[batch]
        logits = model(tensors.train_inputs.index_select(0, batch))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach() * len(batch)
        correct += (logits.argmax(1) == labels).sum()
    return total.item() / len(tensors.train_labels), correct.item() / len(tensors.train_labels)


@torch.no_grad()
def evaluate(model: nn.Module, tensors: Tensors) -> tuple[Tensor, float]:
    """Return the predicted classes `(n,)` and the mean loss over the evaluation part."""
    model.eval()
    logits = torch.cat([model(inputs) for inputs in tensors.test_inputs.split(EVALUATION_BATCH)])
    return logits.argmax(1), F.cross_entropy(logits.double(), tensors.test_labels).item()


def _initial_model(spec: RunSpec, tensors: Tensors) -> nn.Sequential:
    model = build_mlp(spec.recipe, parse_choice(spec.activation), seed=spec.seed)
    if spec.initialization == "matched":
        match_gains(model, input_square=tensors.train_inputs.square().mean().item(), seed=spec.seed)
    return model


def _plain(gain: Gain) -> dict[str, float | bool | None]:
    """Return the gain as plain data, None where a moment is zero or infinite and so has no gain."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(gain).items()}


def _load(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint, or None without one; a damaged one is as good as none and costs the run its epochs."""
    try:
        return cast("dict[str, Any]", torch.load(path, weights_only=True))
    except FileNotFoundError:
        return None
    except Exception:
        path.unlink()
        return None


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
