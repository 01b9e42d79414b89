"""One run: build, train, evaluate, record. Interrupted at any moment, it goes on from its last epoch bit by bit."""

from __future__ import annotations

import errno
import io
import json
import math
import time
import traceback
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch

from softknee._bench.device import forward_of, load_on, rounding
from softknee._bench.model import (
    activation_sites,
    build_model,
    count_costs,
    example_shape,
    match_gains,
    site_engines,
    site_gains,
)
from softknee._bench.record import History, environment, history_fields, shape_fields, trained_shapes
from softknee._bench.runs import CHECKPOINT, finished_status, weights_name, write_failure, write_result
from softknee._bench.streams import Stream, stream_generator, stream_seed
from softknee._bench.submission import is_submission, parse_entry
from softknee._bench.submission_run import run_guarded
from softknee._bench.tasks import TASKS, load_tensors
from softknee._bench.train import evaluate, make_optimizer, set_rate, train_epoch
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from softknee._bench.examples import Examples
    from softknee._bench.protocol import Recipe
    from softknee._bench.runs import Job, RunSpec, Status
    from softknee._bench.train import Trained
    from softknee._card.propagation import Gain

    Progress = Callable[[int, float], None]  # the epoch just finished, the score after it

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def execute(job: Job, progress: Progress) -> Status:
    """Run `job` unless it is finished already, and write its result.

    Args:
        job: What to run and where to write.
        progress: Called after each epoch.

    Returns:
        How the run ended; no exception of the run leaves this function.

    Raises:
        OSError: The disk is full or cannot be written.
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
    try:
        with surroundings(job.spec):
            course = Course(job)
            while course.epoch < job.spec.epochs:
                if not course.advance():
                    return "diverged"
                yield course.epoch, course.score
            return course.finish()
    except Exception as error:
        if is_of_the_disk(error):
            raise
        write_failure(
            job.folder,
            job.spec,
            "failed",
            kind=type(error).__name__,
            message=str(error),
            traceback=traceback.format_exc(),
        )
        return "failed"


def is_of_the_disk(error: Exception) -> bool:
    """Whether an error is about the disk, and no failure of a run: all others would meet it."""
    return isinstance(error, OSError) and error.errno in _STORAGE


@contextmanager
def surroundings(spec: RunSpec) -> Iterator[None]:
    """Give a run its number of threads and its rounding, and leave the caller's and its random state alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    gpus = [torch.cuda.current_device()] if spec.device == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus), rounding(spec.device, spec.precision):
            yield
    finally:
        torch.set_num_threads(threads)


class Course:
    """A run between its epochs, at its start or where it was left.

    Args:
        job: What to run and where to write.

    Attributes:
        spec: The run.
        recipe: Its task, model and training.
        data: What it is trained and evaluated on, on its device.
        model: As trained so far, there too.
        optimizer: Likewise.

    Raises:
        DataError: The data are not those the run was planned with.
    """

    def __init__(self, job: Job) -> None:
        self.spec: RunSpec = job.spec
        self.recipe: Recipe = job.spec.recipe
        source, device = (job.source, job.spec.split, self.recipe.task), torch.device(job.spec.device)
        self.data: Examples = load_on(job.spec.device, *source).under(self.recipe)
        if self.data.fingerprint != job.spec.data:
            raise DataError(f"the data in {job.source} changed while the study ran")
        self._folder: Path = job.folder
        self._metric = TASKS[self.recipe.task].metric
        # Outputs are scored where the data are loaded, which is the same arithmetic for all devices.
        self._scored: Examples = load_tensors(*source).under(self.recipe)
        # Weights begin the same on all devices.
        self.model = _initial_model(self.spec, self._scored, job.study)
        self._gains = [{"site": site, **_plain(gain)} for site, gain in site_gains(self.model).items()]
        self._counts = count_costs(self.model, shape=example_shape(self.recipe))
        self._history = History(before=trained_shapes(self.model))
        self._history.note_parameters(self.model)
        self.model.to(device)
        self._engines = self._used_engines()
        self._trained = forward_of(self.model, self.spec, training=True)
        self._evaluated = forward_of(self.model, self.spec, training=False)
        self.optimizer = make_optimizer(self.model.parameters(), self.recipe, self.spec.learning_rate)
        self._resume()

    @property
    def epoch(self) -> int:
        """The last one finished, 0 before the first."""
        return len(self._history.test_loss)

    @property
    def score(self) -> float:
        """The score after it."""
        return self._history.test_score[-1]

    def advance(self) -> bool:
        """Train an epoch, as `end_epoch` says."""
        start, order = time.perf_counter(), self.start_epoch()
        size, steps = self.recipe.batch_size, self.recipe.steps
        trained = train_epoch(self._trained, self.optimizer, self.data, order, size, steps)
        seconds = time.perf_counter() - start
        return self.end_epoch(trained, seconds=seconds, step_seconds=seconds / trained.steps)

    def start_epoch(self) -> torch.Generator:
        """Set torch's random state and the learning rate for the next epoch; return what draws its batches."""
        noise = stream_seed(self.spec.seed, Stream.NOISE, self.epoch + 1)
        torch.default_generator.manual_seed(noise)
        if self.spec.device == "cuda":
            torch.cuda.manual_seed(noise)
        set_rate(self.optimizer, self.recipe, self.spec.learning_rate, done=self.epoch / self.spec.epochs)
        return stream_generator(self.spec.seed, Stream.ORDER, self.epoch + 1)

    def end_epoch(self, trained: Trained, *, seconds: float, step_seconds: float | None) -> bool:
        """Evaluate what was trained, and write a checkpoint.

        Args:
            trained: The epoch.
            seconds: It took.
            step_seconds: Of one of its steps, where that says something about this run alone.

        Returns:
            False where a loss is not finite: the run has ended, and its result is written.
        """
        start, epoch, history = time.perf_counter(), self.epoch + 1, self._history
        if not math.isfinite(trained.loss):
            return self._diverge(epoch)
        outputs, targets = self._outputs(), self._scored.test_targets
        test_loss = self._scored.loss(outputs.double(), targets).item()
        if not math.isfinite(test_loss):
            return self._diverge(epoch)
        history.train_loss.append(trained.loss)
        history.train_score.append(trained.score)
        history.test_loss.append(test_loss)
        history.test_score.append(self._scored.score(self._scored.tally(outputs, targets).double().mean().item()))
        history.note_parameters(self.model)
        history.step_seconds += [] if step_seconds is None else [step_seconds]
        history.seconds.append(seconds + time.perf_counter() - start)
        if epoch in self.spec.save_epochs:
            weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
            _save(self._folder / weights_name(epoch), weights)
        self._checkpoint()
        return True

    def finish(self) -> Status:
        """Write the result of a run whose epochs are done."""
        fields = self._scored.final_fields(self._outputs())
        if self.data.domain is not None:
            points = torch.from_numpy(self.data.domain.grid()).float().to(self.data.device)
            fields["drawn"] = self._scored.drawn(evaluate(self._evaluated, points).cpu())
        return self._write("done", **fields, shapes=shape_fields(self._history, trained_shapes(self.model)))

    def _outputs(self) -> Tensor:
        return evaluate(self._evaluated, self.data.test_inputs, self.data.prepare).cpu()

    def _used_engines(self) -> dict[str, str]:
        """Return how activations are evaluated in training."""
        if self.spec.compiled:  # with their neighbours
            return dict.fromkeys(activation_sites(self.model), "compiled")
        return site_engines(self.model, batch_size=self.recipe.batch_size, shape=example_shape(self.recipe))

    def _diverge(self, epoch: int) -> bool:
        self._write("diverged", diverged_at=epoch)
        return False

    def _write(self, status: Status, **fields: Any) -> Status:
        recorded = history_fields(self._history, self._metric)
        about = {"gain": self._gains, "engines": self._engines, "counts": self._counts}
        about["environment"] = environment(self.spec.device)
        write_result(self._folder, self.spec, status, **recorded, **about, **fields)
        (self._folder / CHECKPOINT).unlink(missing_ok=True)
        return status

    def _checkpoint(self) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        _save(self._folder / CHECKPOINT, {**state, "history": json.dumps(self._history.named(self._metric))})

    def _resume(self) -> None:
        """Go on from the checkpoint, unless weights are to be kept of an epoch it has passed without keeping them."""
        state = _load(self._folder / CHECKPOINT)
        if state is None:
            return
        history = History.read(json.loads(state["history"]), self._metric)
        passed = [epoch for epoch in self.spec.save_epochs if epoch <= len(history.test_loss)]
        if all((self._folder / weights_name(epoch)).is_file() for epoch in passed):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._history = history


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
        # What it is loaded into moves it to its device.
        return cast("dict[str, Any]", torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError:
        return None
    except Exception:
        path.unlink()
        return None


def _save(path: Path, state: dict[str, Any]) -> None:
    # By way of memory: what torch writes to a full disk fails with words of its own.
    buffer, partial = io.BytesIO(), path.with_suffix(".partial")
    torch.save(state, buffer)
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)
