"""One run: a candidate trained by the caller's step. Interrupted at any moment, it goes on as if it had not been."""

from __future__ import annotations

import math
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from softknee._bench.streams import Stream
from softknee._errors import UsageError
from softknee._search.batches import RandomState, drawing, reseed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from softknee._search.candidate import Candidate
    from softknee._search.task import Task
    from softknee._surgery.places import Site

# How often a run looks whether its loss is still finite: each look waits for the device.
LOOKS = 50
# Seconds of training that an interruption may cost beyond an epoch; states of tiny models cost more than their epochs.
PATIENCE = 1.0


class Training:
    """A run under way.

    Args:
        task: What to train for.
        candidate: What to train with, one function for each group of the task.
        run: Number of the run: weights, order of batches and noise are those of all candidates in it.

    Attributes:
        model: As trained so far.
        step: Steps done.
        seconds: That they took, saving of states included.

    Raises:
        UsageError: The candidate has another number of functions, or cannot be put in.
    """

    def __init__(self, task: Task, candidate: Candidate, run: int) -> None:
        if len(candidate.functions) != len(task.groups):
            raise UsageError(
                f"{candidate.name} has {len(candidate.functions)} functions for {len(task.groups)} groups of sites"
            )
        self.task, self.candidate, self.run = task, candidate, run
        self.model: nn.Module = task.model(run, self._put)
        self.optimizer = task.optimizer_of(self.model)
        self.step = 0
        self.seconds = 0.0
        self._noise: RandomState | None = None

    def advance(self, stop: int, save: Callable[[dict[str, Any]], None]) -> str | None:
        """Train on.

        Args:
            stop: Step to train up to.
            save: Keeps the state, from which a new object goes on.

        Returns:
            None, or why the run has failed: its loss is not finite.

        Raises:
            Exception: Of the caller's step, with a note of the candidate and the step.
        """
        saved = time.perf_counter()
        started = saved - self.seconds
        self.model.train()
        with drawing(0):
            while self.step < stop:
                failure = self._epoch(stop)
                self.seconds = time.perf_counter() - started
                if failure is not None:
                    return failure
                if self.step == stop < self.task.run_steps or time.perf_counter() - saved > PATIENCE:
                    save(self.state())
                    saved = time.perf_counter()
        return None

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as tensors and numbers."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": [] if self._noise is None else self._noise.tensors,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state that `advance` saved."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if state["noise"]:
            self._noise = RandomState(self.task.devices)
            self._noise.tensors = state["noise"]

    def _put(self, site: Site, group: int) -> nn.Module:
        return self.candidate.functions[group].make(site)

    def _epoch(self, stop: int) -> str | None:
        """Train to the end of the epoch, or to a step in it."""
        epoch, done = divmod(self.step, self.task.steps)
        if self._noise is not None and done:
            self._noise.restore()
        else:
            reseed(self.task.seed_of(Stream.NOISE, self.run, epoch))
        number = min(self.task.steps - done, stop - self.step)
        try:
            failure = self._steps(islice(self.task.batches(self.run, epoch, skip=done), number))
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"while training {self.candidate.name}, run {self.run}, step {self.step + 1}")
            raise
        self._noise = RandomState(self.task.devices) if self.step % self.task.steps else None
        return failure

    def _steps(self, batches: Iterator[Any]) -> str | None:
        task, model, optimizer = self.task, self.model, self.optimizer
        loss: Tensor | None = None
        for batch in batches:
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            self.step += 1
            if not self.step % LOOKS and not math.isfinite(float(loss.detach())):
                break
        value = 0.0 if loss is None else float(loss.detach())
        return None if math.isfinite(value) else f"the training loss was {value} at step {self.step}"
