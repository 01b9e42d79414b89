"""One run of a trial: a model made from a seed, changed in its activations or its gains only, trained and scored."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from softknee._diagnose.preserve import seed_all
from softknee._diagnose.task import Task
from softknee._diagnose.trial.rates import Outcome, OutOfTime
from softknee._errors import UsageError
from softknee._surgery.calibrate import calibrate
from softknee._surgery.swap import swap
from softknee.nn.groups import parameter_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softknee._diagnose.task import Batch, LossFunction
    from softknee._diagnose.trial.data import Data, Pool
    from softknee._diagnose.trial.rates import Arm

    Make = Callable[[], nn.Module]
    MakeOptimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]

Metric = Literal["accuracy", "loss"]

# How often a run looks whether its loss is still finite.
LOOKS = 50
# A mean loss is only known for a batch; the data to report on are scored in batches of about this many.
GROUPS = 32


class Stream(IntEnum):
    """What is drawn apart from the rest, so that runs that differ in one thing are the same in all others."""

    WEIGHTS = 0
    ACTIVATION = 1
    ORDER = 2
    NOISE = 3
    SPLIT = 4


def stream_seed(seed: int, run: int, stream: Stream) -> int:
    """Return a 63-bit seed for a stream of a run."""
    (word,) = np.random.SeedSequence([seed, run, stream]).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))


@dataclass(frozen=True)
class Trainer:
    """Trains arms on the same data in the same order from the same weights.

    Attributes:
        make: Makes the model that is to be trained, from the global random state.
        data: To train, choose and report on.
        function: Loss of outputs and target, None for a model that returns its own.
        optimizer: Makes an optimizer of parameters and a learning rate.
        metric: What to score by.
        seed: Of everything.
        from_scratch: Whether gains of candidates are matched: not those of trained weights.
        scales: Root mean squares of matched weights by arm and name, found at the first run of each.
        stuck: Activations that stay, by arm, with the reasons.
    """

    make: Make
    data: Data
    function: LossFunction | None
    optimizer: MakeOptimizer
    metric: Metric
    seed: int
    from_scratch: bool
    scales: dict[Arm, Mapping[str, float]] = field(default_factory=dict)
    stuck: dict[Arm, list[str]] = field(default_factory=dict)

    def __call__(self, arm: Arm, rate: float, seed: int, steps: int, late: Callable[[], bool]) -> Outcome:
        """Train and score once; see `rates.Run`."""
        model = self.built(arm, seed)
        start = time.perf_counter()
        finite = self._train(model, rate, seed, steps, late)
        seconds = (time.perf_counter() - start) / steps
        if finite:
            # Higher is better in what rates are chosen by.
            choosing = float(self.scores(model, self.data.choosing).mean()) * (1 if self.metric == "accuracy" else -1)
            scores = self.scores(model, self.data.reporting)
            if math.isfinite(choosing) and np.isfinite(scores).all():
                return Outcome(choosing, scores, seconds)
        return Outcome(-math.inf, None, seconds)

    def built(self, arm: Arm, seed: int) -> nn.Module:
        """Return the model of an arm: as made, with other activations, with weights of another scale, or both.

        Args:
            arm: What to change.
            seed: Number of the run.

        Raises:
            UsageError: The activations cannot be exchanged, or the gain of one cannot be matched.
        """
        seed_all(stream_seed(self.seed, seed, Stream.WEIGHTS))
        model = self.make().train()
        if arm.activation is not None:
            seed_all(stream_seed(self.seed, seed, Stream.ACTIVATION))
            model, report = swap(model, arm.activation, example_inputs=example(self.data.training), strict=False)
            stuck = [one for one in report.missed if one.site is not None]
            if not report.changed:
                raise UsageError(stuck[0].reason if stuck else "no activation to change was found in the model")
            self.stuck[arm] = [f"{one.path or 'the model'}: {one.reason}" for one in stuck]
        if self.from_scratch and arm.kind in {"candidate", "matched gain"}:
            if arm not in self.scales:
                self.scales[arm] = matched_scales(model, example(self.data.training))
            rescale(model, self.scales[arm])
        return model

    def _train(self, model: nn.Module, rate: float, seed: int, steps: int, late: Callable[[], bool]) -> bool:
        """Train; return whether the loss stayed finite.

        Raises:
            OutOfTime: It is late.
        """
        task = Task(model, (), self.function)
        optimizer = self.optimizer([one for one in model.parameters() if one.requires_grad], rate)
        spare_activations(optimizer, model)
        seed_all(stream_seed(self.seed, seed, Stream.NOISE))
        for step, batch in zip(range(steps), self._batches(seed), strict=False):
            if late():
                raise OutOfTime
            optimizer.zero_grad()
            loss = task.loss(batch, task.run(batch))
            loss.backward()
            optimizer.step()
            if (step % LOOKS == 0 or step == steps - 1) and not math.isfinite(float(loss.detach())):
                return False
        return True

    def _batches(self, seed: int) -> Iterator[Batch]:
        order = torch.Generator().manual_seed(stream_seed(self.seed, seed, Stream.ORDER))
        while True:
            yield from self.data.training.epoch(order)

    @torch.no_grad()
    def scores(self, model: nn.Module, pool: Pool) -> NDArray[np.float64]:
        """Return the scores of a model in evaluation mode: percent right of each example, or the loss of groups.

        Args:
            model: Trained.
            pool: What to score it on.
        """
        model.eval()
        task = Task(model, (), self.function)
        if self.metric == "accuracy":
            parts = [right(task.run(batch), batch.target) for batch in pool.chunks(max(pool.size, 1))]
            return torch.cat(parts).mul(100.0).cpu().numpy()
        groups = list(pool.chunks(max(1, pool.count // GROUPS)))
        # A smaller group at the end would weigh as much as the others.
        groups = [batch for batch in groups if batch.size == groups[0].size] if pool.joined is not None else groups
        return np.array([float(task.loss(batch, task.run(batch))) for batch in groups])


def right(outputs: Any, target: Any) -> Tensor:
    """Return the share of right answers of each example, `(examples,)` float64.

    Args:
        outputs: Logits `(examples, classes, ...)`, or what has them as `.logits`.
        target: Whole numbers, `(examples, ...)`.

    Raises:
        UsageError: They are something else.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    whole = isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()
    if not (whole and isinstance(logits, Tensor) and logits.dim() >= 2 and len(logits) == len(target)):
        raise UsageError("accuracy needs outputs (samples, classes) and whole numbers as targets; use metric='loss'")
    chosen = logits.argmax(1)
    if chosen.shape != target.shape:
        raise UsageError(
            f"accuracy compares the largest of outputs {tuple(logits.shape)} along dimension 1 with targets, which "
            f"have shape {tuple(target.shape)}; use metric='loss'"
        )
    same: Tensor = (chosen == target).double()
    return same.flatten(1).mean(1) if same.dim() > 1 else same


def example(pool: Pool) -> Any:
    """Return what a model is called with to look at it: the first batch."""
    batch = next(pool.chunks(pool.size))
    return dict(batch.keywords) if batch.keywords else batch.inputs


def matched_scales(model: nn.Module, inputs: Any) -> dict[str, float]:
    """Return the root mean square that each weight needs for outputs of mean square 1, by name.

    Args:
        model: In training mode; it stays as it is.
        inputs: A typical batch.

    Returns:
        The forward gain of what feeds a layer over the root of its inputs' number: what `softknee.calibrate` draws by.

    Raises:
        UsageError: As `softknee.calibrate`.
    """
    report = calibrate(copy.deepcopy(model), inputs, generator=torch.Generator().manual_seed(0))
    names = dict(model.named_parameters(remove_duplicate=False))
    found = {}
    for layer in report.layers:
        name = f"{layer.path}.weight"
        found[name if name in names else layer.path] = layer.gain / math.sqrt(layer.fan_in)
    return found


def spare_activations(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Put the parameters of activations under weight decay into groups without it, as `parameter_groups` does.

    Args:
        optimizer: Of the model, new.
        model: With the activations that are tried.
    """
    own = {one for group in parameter_groups(model, 0.0)[1:] for one in group["params"]}
    for group in [one for one in optimizer.param_groups if one.get("weight_decay")]:
        slopes, others = ([one for one in group["params"] if (one in own) == kind] for kind in (True, False))
        if not others:
            group["weight_decay"] = 0.0
        elif slopes:
            group["params"] = others
            optimizer.add_param_group({**group, "params": slopes, "weight_decay": 0.0})


@torch.no_grad()
def rescale(model: nn.Module, scales: Mapping[str, float]) -> None:
    """Scale weights, in place, to given root mean squares; weights that are all zero stay so."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, scale in scales.items():
        size = float(parameters[name].double().square().mean().sqrt())
        if size > 0:
            parameters[name].mul_(scale / size)


def anew(model: nn.Module) -> Make:
    """Return what makes copies of a model with parameters drawn anew by the `reset_parameters` of its modules."""

    def make() -> nn.Module:
        one = copy.deepcopy(model)
        for module in one.modules():
            if module._parameters:
                module.reset_parameters()  # type: ignore[operator]
        return one

    return make


def resettable(model: nn.Module) -> bool:
    """Return whether every module that has parameters of its own can draw them anew."""
    return all(callable(getattr(one, "reset_parameters", None)) for one in model.modules() if one._parameters)


def checked_model(model: Any) -> nn.Module:
    """Return what a factory made.

    Raises:
        UsageError: It is no module.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"make_model must return a torch.nn.Module, got {type(model).__name__}")
    return model
