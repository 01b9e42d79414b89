"""GRAFS: all functions of the space mixed, weighted by gradients, and fewer and fewer of them (arXiv:2408.06820).

First-order and bi-level: weights of operations are trained on validation batches, those of the network on training
batches, in turn. The code that was published does not clear gradients between the two, so that each step also takes
what the other left behind; that is `bilevel="joint"`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch

from softknee._bench.streams import Stream
from softknee._errors import OptionError, UsageError
from softknee._search.batches import apart, drawing
from softknee._search.candidate import Candidate, hash_of
from softknee._search.meter import FORWARD
from softknee._search.method import MORE_RUNS
from softknee._search.mixture import RELAXATIONS, Mixture
from softknee._search.schedule import FIRST_DROPS, TICKS, WARM_TICKS, drops
from softknee._search.shapes import Shapes, shape_of
from softknee._surgery.build import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from torch import Tensor, nn

    from softknee._search.judge import Judge
    from softknee._search.mixture import Relaxation
    from softknee._search.space import Space
    from softknee._search.task import Task
    from softknee._surgery.places import Site

    Bilevel = Literal["clean", "joint"]

NAME = "grafs"
BILEVELS = ("clean", "joint")
# Of the optimizer of the weights of operations, Adam; its decay is the anchor at Dir(1).
RATE, MOMENTS, ANCHOR = 0.02, (0.5, 0.999), 1e-3
# The most likely functions are evaluated after each so many parts of the search.
EVALUATED = 6
# Steps in a row without a finite loss after which a search is given up.
MOST_FAILURES = 20
TRAJECTORY = "trajectory"


@dataclass(frozen=True)
class Settings:
    """How gradients search.

    Attributes:
        bilevel: `"clean"`, or `"joint"` as published.
        relaxation: As `Mixture` takes it.
        rate: Learning rate of the weights of operations.
        steps: Of the network's weights.
    """

    bilevel: Bilevel
    relaxation: Relaxation
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if self.bilevel not in BILEVELS:
            raise OptionError(f"bilevel must be one of {', '.join(BILEVELS)}, got {self.bilevel!r}")
        if self.relaxation not in RELAXATIONS:
            raise OptionError(f"relaxation must be one of {', '.join(RELAXATIONS)}, got {self.relaxation!r}")
        if not 0 < self.rate < math.inf:
            raise OptionError(f"rate must be a positive number, got {self.rate!r}")

    @property
    def evaluations(self) -> int:
        """How often the most likely functions are evaluated."""
        return sum(map(is_evaluated, range(TICKS)))

    def price(self, task: Task) -> float:
        """Return what a search costs, in steps of training."""
        return 2 * self.steps + FORWARD * task.val_steps * self.evaluations


def is_evaluated(tick: int) -> bool:
    """Whether the most likely functions are evaluated at the end of a part of the search."""
    return tick >= FIRST_DROPS and (tick + 1 - TICKS) % EVALUATED == 0


def find(
    judge: Judge,
    space: Space,
    known: Sequence[Candidate],
    runs: float,
    rng: np.random.Generator,
    *,
    bilevel: Bilevel = "clean",
    relaxation: Relaxation = "drnas",
    rate: float = RATE,
) -> list[Candidate]:
    """Search by gradients, as often as may be spent; see `softknee._search.method.Find`.

    Args:
        judge: With the task.
        space: Of the functions.
        known: They are not found again.
        runs: What may be spent: a search of the length of a training run costs a little more than two.
        rng: Of seeds.
        bilevel: `"clean"`, or `"joint"` as published.
        relaxation: `"drnas"` or `"darts"`.
        rate: Learning rate of the weights of operations.

    Returns:
        The most likely functions at several times of the searches, by their validation loss in the mixed network.

    Raises:
        OptionError: An option is none of these.
        UsageError: The run is too short to be searched in.
    """
    task = judge.task
    whole = Settings(bilevel, relaxation, rate, task.run_steps)
    times = max(1, int(runs * task.run_steps // whole.price(task)))
    if times == 1:
        spare = runs * task.run_steps - (whole.price(task) - 2 * whole.steps)
        whole = Settings(bilevel, relaxation, rate, min(task.run_steps, int(spare / 2)))
    if whole.steps < TICKS:
        raise UsageError(f"a search by gradients needs at least {TICKS} steps, and {whole.steps} may be spent")
    found: dict[Candidate, float] = {}
    best, shown = math.inf, None
    for number in range(times):
        record = _searched(judge, space, whole, MORE_RUNS + number, int(rng.integers(2**31)))
        for one in record["found"]:
            candidate = Candidate.from_json(one["candidate"])
            found[candidate] = min(one["loss"], found.get(candidate, math.inf))
        last = min((one["loss"] for one in record["found"]), default=math.inf)
        if shown is None or last < best:
            best, shown = last, record["trajectory"]
    if shown is not None:
        judge.ledger.write(TRAJECTORY, shown)
    shapes = Shapes(known)
    return [one for one in sorted(found, key=found.__getitem__) if shapes.add(one) is None]


def _searched(judge: Judge, space: Space, settings: Settings, run: int, seed: int) -> dict[str, Any]:
    """Return the record of one search, made now unless it is there; charge for it."""
    operations = [[group.name, *(one.name for one in group.operations)] for group in space.groups]
    asked = [operations, space.bound, settings.bilevel, settings.relaxation, settings.rate, settings.steps, run, seed]
    key = f"{NAME}-{hash_of(asked)}"
    record = judge.ledger.read(key)
    judge.meter.allow(settings.price(judge.task))
    if record is None:
        search = Search(judge.task, space, settings, run, seed)
        state = judge.ledger.state(key)
        if state is not None:
            search.load(state)
        search.go(lambda: judge.ledger.keep_state(key, search.state()))
        record = search.record()
        judge.ledger.write(key, record)
        judge.ledger.drop_state(key)
    judge.meter.charge(NAME, record["charged"], record["seconds"])
    return record


@dataclass
class _Notes:
    """What is written down while a search goes on; plain data.

    Attributes:
        ticks: One for each part of the search.
        drops: `(tick, group, operation)` of all that was taken out.
        found: Candidates with their validation losses in the mixed network.
        skipped: Steps without a finite loss or gradient.
        charged: Steps of training paid for.
        seconds: That it took.
    """

    ticks: list[dict[str, Any]] = field(default_factory=list)
    drops: list[list[Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    charged: float = 0.0
    seconds: float = 0.0


class Search:
    """One search by gradients under way.

    Args:
        task: What for.
        space: Of the functions.
        settings: How.
        run: Number of the run whose weights and batches it takes.
        seed: Of the mixture.
    """

    def __init__(self, task: Task, space: Space, settings: Settings, run: int, seed: int) -> None:
        self.task, self.settings, self.run = task, settings, run
        self.mixture = Mixture(space, functions=len(task.groups), relaxation=settings.relaxation, seed=seed)
        self.model: nn.Module = task.model(run, self._put)
        self.architecture = self.mixture.architecture_parameters()
        ours = {id(one) for one in self.architecture}
        self.weights = [one for one in self.model.parameters() if id(one) not in ours and one.requires_grad]
        self.optimizer = task.optimizer(self.weights)
        self.architecture_optimizer = torch.optim.Adam(
            self.architecture, settings.rate, betas=MOMENTS, weight_decay=ANCHOR
        )
        self.notes = _Notes()
        self.validated = 0
        self._failures = 0
        self._slots = space.slots
        self._drops = drops(space.slots - space.edges - space.vertices)

    def _put(self, site: Site, group: int) -> nn.Module:
        try:
            stand_in = build(site.kind, site, per_channel=False)
        except UsageError:  # no activation of the catalogue
            stand_in = torch.nn.ReLU()
        return self.mixture.site(group, stand_in)

    def go(self, save: Any) -> None:
        """Search to the end.

        Args:
            save: Called after each part, to keep the state.
        """
        ends = [math.ceil(tick * self.settings.steps / TICKS) for tick in range(TICKS + 1)]
        # As batches are drawn, they come from random states of their own.
        training, validation = self._training(ends[len(self.notes.ticks)]), self._validation()
        for tick, (begin, end) in list(enumerate(pairwise(ends)))[len(self.notes.ticks) :]:
            started = time.perf_counter()
            self._shrink(tick)
            self.mixture.warm = tick < WARM_TICKS
            with drawing(self.task.seed_of(Stream.NOISE, self.run, tick)):
                self.model.train()
                losses = [self._step(next(training), validation) for _ in range(begin, end)]
            self._note(tick, [loss for loss in losses if math.isfinite(loss)], started)
            save()

    def _shrink(self, tick: int) -> None:
        names = [group.name for group in self.task.groups]
        for drop in self.mixture.shrink(self._drops[tick]):
            self.notes.drops.append([tick, _slot(names, drop.function, drop.group), drop.operation])

    def _step(self, batch: Any, validation: Iterator[Any]) -> float:
        """Train the weights of operations on a validation batch, then the network's on a training batch."""
        joint = self.settings.bilevel == "joint"
        if joint or not self.mixture.warm:
            warm, self.mixture.warm = self.mixture.warm, False
            self._architecture_step(next(validation), joint=joint)
            self.mixture.warm = warm
        self.mixture.requires_grad_(joint)
        loss = self.task.loss(self.model, batch)
        self._gradients(loss, self.weights, keep=joint)
        value = float(loss.detach())
        self._apply(self.optimizer, finite=math.isfinite(value))
        self.notes.charged += 1
        return value

    def _architecture_step(self, batch: Any, *, joint: bool) -> None:
        self.mixture.requires_grad_(True)
        loss = self.task.loss(self.model, batch)
        self._gradients(loss, self.architecture, keep=joint)
        finite = all(bool(one.grad.isfinite().all()) for one in self.architecture if one.grad is not None)
        self._apply(self.architecture_optimizer, finite=finite and math.isfinite(float(loss.detach())))
        self.validated += 1
        self.notes.charged += 1

    def _gradients(self, loss: Tensor, parameters: list[nn.Parameter], *, keep: bool) -> None:
        """Set gradients of these parameters alone, or add to those of all, as published."""
        if keep:
            loss.backward()
            return
        for one, by in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            one.grad = by

    def _apply(self, optimizer: torch.optim.Optimizer, *, finite: bool) -> None:
        """Take a step, unless it would spoil everything.

        Raises:
            UsageError: It would have, very many times in a row.
        """
        if finite:
            optimizer.step()
            self._failures = 0
        else:
            self.notes.skipped += 1
            self._failures += 1
            if self._failures > MOST_FAILURES:
                raise UsageError(
                    f"the search by gradients had no finite loss in {MOST_FAILURES} steps; lower the learning rate"
                )
        optimizer.zero_grad()

    def _note(self, tick: int, losses: Sequence[float], started: float) -> None:
        names = [group.name for group in self.task.groups]
        functions = range(len(names))
        validation = self._evaluated() if is_evaluated(tick) else None
        self.notes.ticks.append(
            {
                "tick": tick,
                "weights": [share for one in functions for share in self.mixture.shares(one).values()],
                "loss": math.fsum(losses) / len(losses) if losses else None,
                "validation": validation,
                "formula": " | ".join(dict.fromkeys(map(self.mixture.formula, functions))),
            }
        )
        self.notes.seconds += time.perf_counter() - started

    def _evaluated(self) -> float | None:
        """Return the validation loss of the network with the most likely functions alone, and note these."""
        functions = range(len(self.task.groups))
        losses = self.task.evaluate(self.model, self.task.val_batches)
        self.notes.charged += FORWARD * self.task.val_steps
        loss = float(losses.mean())
        if not math.isfinite(loss):
            return None
        made = [self.mixture.function(one) for one in functions]
        if all(map(shape_of, made)):
            self.notes.found.append({"candidate": Candidate(tuple(made), NAME).to_json(), "loss": loss})
        return loss

    def _training(self, done: int) -> Iterator[Any]:
        epoch, skip = divmod(done, self.task.steps)
        for number in count(epoch):
            yield from self.task.batches(self.run, number, skip=skip if number == epoch else 0)

    def _validation(self) -> Iterator[Any]:
        """Yield validation batches, from where the search has come to."""
        number, skip = divmod(self.validated, self.task.val_steps)
        while True:
            seed = self.task.seed_of(Stream.ORDER, self.run, 2**31 + number)
            for place, batch in enumerate(apart(self.task.val_batches, seed, self.task.devices)):
                if place >= skip:
                    yield batch
            number, skip = number + 1, 0

    def record(self) -> dict[str, Any]:
        """Return the result as plain data."""
        names = [group.name for group in self.task.groups]
        slots = [
            [_slot(names, function, group.name), *(one.name for one in group.operations)]
            for function in range(len(names))
            for group in self.mixture.space.groups
        ]
        notes = self.notes
        return {
            "found": notes.found,
            "charged": notes.charged,
            "seconds": notes.seconds,
            "trajectory": {"slots": slots, "ticks": notes.ticks, "drops": notes.drops, "skipped": notes.skipped},
        }

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as tensors, numbers and texts."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [one.state_dict() for one in (self.optimizer, self.architecture_optimizer)],
            "draws": self.mixture.draws,
            "validated": self.validated,
            "notes": vars(self.notes),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        for one, saved in zip((self.optimizer, self.architecture_optimizer), state["optimizers"], strict=True):
            one.load_state_dict(saved)
        self.mixture.draws, self.validated = state["draws"], state["validated"]
        self.notes = _Notes(**state["notes"])


def _slot(names: Sequence[str], function: int, group: str) -> str:
    return group if len(names) == 1 else f"{names[function]}: {group}"
