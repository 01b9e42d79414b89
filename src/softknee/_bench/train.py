"""One run: build, train, evaluate, record. Interrupted at any moment, it goes on from its last epoch bit by bit."""

from __future__ import annotations

import json
import math
import time
import traceback
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from softknee._bench.model import build_model, count_costs, example_shape, match_gains, site_engines, site_gains
from softknee._bench.record import History, environment, history_fields, shape_fields, trained_shapes
from softknee._bench.runs import CHECKPOINT, finished_status, weights_name, write_failure, write_result
from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._bench.submission import is_submission, parse_entry
from softknee._bench.submission_run import run_guarded
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from torch import Tensor, nn

    from softknee._bench.examples import Examples
    from softknee._bench.protocol import Recipe
    from softknee._bench.runs import Job, RunSpec, Status
    from softknee._card.propagation import Gain

    Progress = Callable[[int, float], None]  # the epoch just finished, the score after it

EVALUATION_BATCH = 2000


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
    return run_guarded(job, progress) if is_submission(job.spec.activation) else train(job, progress)


def train(job: Job, progress: Progress) -> Status:
    """Run `job` in this process, whether it is finished already or not; otherwise as `execute`.

    Args:
        job: What to run and where to write.
        progress: Called after each epoch.

    Returns:
        How the run ended.
    """
    with closing(_epochs(job)) as epochs:
        while True:
            try:
                epoch, score = next(epochs)
            except StopIteration as end:
                return cast("Status", end.value)
            progress(epoch, score)


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
        self.recipe: Recipe = job.spec.recipe
        self.folder: Path = job.folder
        self.metric = TASKS[self.recipe.task].metric
        self.data = load_tensors(job.source, job.spec.split, self.recipe.task).under(self.recipe)
        if self.data.fingerprint != job.spec.data:
            raise DataError(f"the data in {job.source} changed while the study ran")
        self.model = _initial_model(self.spec, self.data, job.study)
        self.gains = [{"site": site, **_plain(gain)} for site, gain in site_gains(self.model).items()]
        shape = example_shape(self.recipe)
        self.engines = site_engines(self.model, batch_size=self.recipe.batch_size, shape=shape)
        self.counts = count_costs(self.model, shape=shape)
        self.optimizer = make_optimizer(self.model.parameters(), self.recipe, self.spec.learning_rate)
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
            yield epoch, self.history.test_score[-1]
        fields = self.data.final_fields(self._outputs())
        if self.data.domain is not None:
            points = torch.from_numpy(self.data.domain.grid()).float()
            fields["drawn"] = self.data.drawn(evaluate(self.model, points))
        return self._finish("done", **fields, shapes=shape_fields(self.history, trained_shapes(self.model)))

    def _train_epoch(self, epoch: int) -> bool:
        """Train and evaluate once; False, and nothing recorded, when a loss is not finite."""
        start = time.perf_counter()
        torch.default_generator.manual_seed(stream_seed(self.spec.seed, Stream.NOISE, epoch))
        order = stream_generator(self.spec.seed, Stream.ORDER, epoch)
        set_rate(self.optimizer, self.recipe, self.spec.learning_rate, done=(epoch - 1) / self.spec.epochs)
        trained = train_epoch(self.model, self.optimizer, self.data, order, self.recipe.batch_size, self.recipe.steps)
        trained_at = time.perf_counter()
        if not math.isfinite(trained.loss):
            return False
        outputs, targets = self._outputs(), self.data.test_targets
        test_loss = self.data.loss(outputs.double(), targets).item()
        if not math.isfinite(test_loss):
            return False
        history = self.history
        history.train_loss.append(trained.loss)
        history.train_score.append(trained.score)
        history.test_loss.append(test_loss)
        history.test_score.append(self.data.score(self.data.tally(outputs, targets).double().mean().item()))
        history.note_parameters(self.model)
        history.step_seconds.append((trained_at - start) / trained.steps)
        history.seconds.append(time.perf_counter() - start)
        return True

    def _outputs(self) -> Tensor:
        return evaluate(self.model, self.data.test_inputs, self.data.prepare)

    def _finish(self, status: Status, **fields: Any) -> Status:
        recorded = history_fields(self.history, self.metric)
        about = {"gain": self.gains, "engines": self.engines, "counts": self.counts, "environment": environment()}
        write_result(self.folder, self.spec, status, **recorded, **about, **fields)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return status

    def _checkpoint(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        _save(self.folder / CHECKPOINT, {**state, "history": json.dumps(self.history.named(self.metric))})

    def _resume(self) -> None:
        """Go on from the checkpoint, unless weights are to be kept of an epoch it has passed without keeping them."""
        state = _load(self.folder / CHECKPOINT)
        if state is None:
            return
        history = History.read(json.loads(state["history"]), self.metric)
        passed = [epoch for epoch in self.spec.save_epochs if epoch <= len(history.test_loss)]
        if all((self.folder / weights_name(epoch)).is_file() for epoch in passed):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = history


class Trained(NamedTuple):
    """What an epoch of training was like.

    Attributes:
        loss: Mean over its examples, as they were before each step.
        score: The metric over them, likewise.
        steps: How many there were.
    """

    loss: float
    score: float
    steps: int


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    order: torch.Generator,
    batch_size: int,
    steps: int = 0,
) -> Trained:
    """Train one epoch.

    Args:
        model: In any mode.
        optimizer: Of its parameters.
        examples: To train on.
        order: Draws the batches.
        batch_size: Examples of a batch.
        steps: Of the epoch, where the examples never run out.

    Returns:
        What it was like.
    """
    model.train()
    total, tally = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    number = taken = 0
    for inputs, targets in examples.batches(order, batch_size, steps):
        loss, outputs = examples.objective(model, inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach() * len(targets)
        tally += examples.tally(outputs.detach(), targets).sum()
        number, taken = number + len(targets), taken + 1
    return Trained(total.item() / number, examples.score(tally.item() / number), taken)


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, prepare: Callable[[Tensor], Tensor] = lambda inputs: inputs) -> Tensor:
    """Return the outputs in eval mode.

    Args:
        model: In any mode.
        inputs: `(n, ...)`, as they are stored.
        prepare: Makes of some of them what the model takes.

    Returns:
        `(n, outputs)`.
    """
    model.eval()
    return torch.cat([model(prepare(part)) for part in inputs.split(EVALUATION_BATCH)])


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe."""
    decay = recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, rate: float, *, done: float) -> None:
    """Set the learning rate of an epoch.

    Args:
        optimizer: From `make_optimizer`.
        recipe: With the schedule.
        rate: At the start.
        done: Share of the run's epochs before this one.
    """
    factor = (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = factor * rate


def _initial_model(spec: RunSpec, examples: Examples, study: Path) -> nn.Sequential:
    model = build_model(spec.recipe, parse_entry(spec.activation, study), seed=spec.seed)
    if spec.initialization == "matched":
        match_gains(model, input_square=examples.input_square, seed=spec.seed)
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
