"""GRAFS: all functions of the space mixed, weighted by gradients, and fewer and fewer of them (arXiv:2408.06820).

First-order and bi-level: weights of operations are trained on validation batches, those of the network on training
batches, in turn. The code that was published does not clear gradients between the two, so that each step also takes
what the other left behind, and trains the weights of operations during the warm start too; that is `bilevel="joint"`.

Otherwise than there, in both: parts of a search of any length stand for epochs, one learning rate stands for three,
validation batches are taken one after the other and not at random, the most likely function alone is evaluated, with
batch norms set for it, bounds stay when it is taken out, and there are no gradient clipping, no schedule of the
learning rate and no mixed precision but what the caller's step and optimizer bring.
"""

from __future__ import annotations

import math
import time
from dataclasses import astuple, dataclass, field
from itertools import count, islice, pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch

from softknee._bench.streams import Stream
from softknee._errors import OptionError, UsageError
from softknee._search.batches import apart, drawing
from softknee._search.candidate import Candidate
from softknee._search.meter import FORWARD
from softknee._search.mixture import RELAXATIONS, Mixture
from softknee._search.renormalised import renormalised
from softknee._search.schedule import FIRST_DROPS, TICKS, WARM_TICKS, drops
from softknee._search.shapes import shape_of
from softknee._surgery.build import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from softknee._search.mixture import Relaxation
    from softknee._search.space import Space
    from softknee._search.task import Task
    from softknee._surgery.places import Site

    Bilevel = Literal["clean", "joint"]

NAME = "grafs"
BILEVELS = ("clean", "joint")
# Of the optimizer of the weights of operations, Adam; its decay is the anchor at Dir(1). The published rates are 6e-4,
# 1e-3 and 0.09, each for one network.
RATE, MOMENTS, ANCHOR = 0.02, (0.5, 0.999), 1e-3
# The most likely functions are evaluated after each so many parts of the search.
EVALUATED = 6
# Training batches by which batch norms are set for that.
LOOKED_AT = 8
# Steps in a row in which something was not finite, after which a search is given up.
MOST_FAILURES = 20


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
        return 2 * self.steps + FORWARD * (task.val_steps + LOOKED_AT) * self.evaluations


def is_evaluated(tick: int) -> bool:
    """Whether the most likely functions are evaluated at the end of a part of the search."""
    return tick >= FIRST_DROPS and (tick + 1 - TICKS) % EVALUATED == 0


@dataclass
class _Notes:
    """What is written down while a search goes on; plain data.

    Attributes:
        ticks: One for each part of the search.
        drops: `(tick, group, operation)` of all that was taken out.
        found: Candidates with their genotypes and their validation losses in the mixed network.
        skipped: Steps of either optimizer that were left out, without a finite loss or gradient.
        failures: In how many steps in a row, up to now, one was.
        charged: Steps of training paid for.
        seconds: That it took.
    """

    ticks: list[dict[str, Any]] = field(default_factory=list)
    drops: list[list[Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    failures: int = 0
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
        skipped = self.notes.skipped
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
        self._count_failures(failed=self.notes.skipped > skipped)
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
        """Take a step, unless it would spoil everything."""
        if finite:
            optimizer.step()
            optimizer.zero_grad()
        else:
            self.notes.skipped += 1
            # Nor is anything left behind for the other's step.
            self.model.zero_grad()

    def _count_failures(self, *, failed: bool) -> None:
        """Count steps in a row in which something was left out.

        Raises:
            UsageError: There were very many.
        """
        self.notes.failures = self.notes.failures + 1 if failed else 0
        if self.notes.failures >= MOST_FAILURES:
            raise UsageError(
                f"the search by gradients had no finite loss in {MOST_FAILURES} steps; lower the learning rate"
            )

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
        with renormalised(self.model, self._look):
            losses = self.task.evaluate(self.model, self.task.val_batches)
        self.notes.charged += FORWARD * self.task.val_steps
        loss = float(losses.mean())
        if not math.isfinite(loss):
            return None
        made = [self.mixture.function(one) for one in functions]
        if all(map(shape_of, made)):
            genotypes = [astuple(self.mixture.genotype(one)) for one in functions]
            candidate = Candidate(tuple(made), NAME).to_json()
            self.notes.found.append({"candidate": candidate, "genotypes": genotypes, "loss": loss})
        return loss

    def _look(self) -> None:
        with drawing(self.task.seed_of(Stream.NOISE, self.run, TICKS)):
            for batch in islice(self.task.batches(self.run, 0), LOOKED_AT):
                self.task.loss(self.model, batch)
                self.notes.charged += FORWARD

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
            "left_behind": [one.grad for one in self.architecture],
            "draws": self.mixture.draws,
            "validated": self.validated,
            "notes": vars(self.notes),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        for one, saved in zip((self.optimizer, self.architecture_optimizer), state["optimizers"], strict=True):
            one.load_state_dict(saved)
        for part, grad in zip(self.architecture, state["left_behind"], strict=True):
            part.grad = None if grad is None else grad.to(part.device)
        self.mixture.draws, self.validated = state["draws"], state["validated"]
        self.notes = _Notes(**state["notes"])


def _slot(names: Sequence[str], function: int, group: str) -> str:
    return group if len(names) == 1 else f"{names[function]}: {group}"
