"""A study as it was asked for, checked before any work is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from softknee._bench.device import check_means, kernels_on
from softknee._bench.manifest import check_same, held_study
from softknee._bench.model import activation_sites, build_model, example_shape, match_gains
from softknee._bench.own import FITS
from softknee._bench.protocols import expand_groups, get_protocol, with_options
from softknee._bench.runs import Job, RunSpec
from softknee._bench.study_files import RUNS
from softknee._bench.submission import Entry, Submission, is_submission, parse_entry
from softknee._bench.submission_check import check_submission, over_budget, parameter_budget, refuse
from softknee._bench.submission_run import make_limits
from softknee._bench.tasks import TASKS
from softknee._errors import OptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.protocol import InitializationName, Protocol
    from softknee._bench.runs import DeviceName, Precision, Split
    from softknee._bench.submission_guard import Limits
    from softknee._bench.task import Facts, Task


@dataclass(frozen=True)
class Plan:
    """What a study consists of.

    Attributes:
        protocol: The frozen recipe.
        choices: The activations, without repetition.
        seeds: Evaluated ones.
        epochs: Length of an evaluated run.
        source: Where the data come from, as the task takes it.
        data: What they are; they have been verified.
        folder: Where everything is written.
        reference: Label of the activation the others are compared with.
        margin: Differences within it count as equivalent.
        save_epochs: Epochs after which weights are kept.
        split: What is evaluated on: the test part, or `"validation"`, a part held out of the training part.
        limits: Of the process of a submission.
        device: Where runs compute.
        precision: Tier of their products.
        compiled: Whether steps of training are compiled.
    """

    protocol: Protocol
    choices: tuple[Entry, ...]
    seeds: tuple[int, ...]
    epochs: int
    source: str
    data: Facts
    folder: Path
    reference: str
    margin: float
    save_epochs: tuple[int, ...]
    split: Split
    limits: Limits
    device: DeviceName
    precision: Precision
    compiled: bool

    @property
    def task(self) -> Task:
        """What is learned."""
        return TASKS[self.protocol.recipe.task]

    @property
    def metric(self) -> Metric:
        """What runs are ranked by."""
        return self.task.metric

    @property
    def labels(self) -> tuple[str, ...]:
        """Canonical texts of the activations."""
        return tuple(choice.label for choice in self.choices)

    @property
    def submissions(self) -> tuple[Submission, ...]:
        """Those of the activations that files define."""
        return tuple(choice for choice in self.choices if isinstance(choice, Submission))

    @cached_property
    def budget(self) -> int | None:
        """How many parameters a model may have; None for any number."""
        return parameter_budget(self.protocol)

    @cached_property
    def _definitions(self) -> dict[str, str]:
        return {choice.label: choice.definition for choice in self.choices}

    def job(
        self, activation: str, seed: int, *, initialization: InitializationName, rate: float, tunes: bool = False
    ) -> Job:
        """Return one run of this study; `tunes` for one that helps to choose a rate."""
        tuning = self.protocol.tuning if tunes else None
        spec = RunSpec(
            protocol=self.protocol.name,
            recipe=self.protocol.recipe,
            activation=activation,
            definition=self._definitions[activation],
            seed=seed,
            initialization=initialization,
            learning_rate=rate,
            epochs=tuning.epochs(self.epochs) if tuning else self.epochs,
            split="validation" if tuning else self.split,
            data=self.data.fingerprint,
            kernels=kernels_on(self.device),
            save_epochs=() if tuning else self.save_epochs,
            device=self.device,
            precision=self.precision,
            compiled=self.compiled,
        )
        limits = self.limits if is_submission(activation) else None
        return Job(spec=spec, source=self.source, folder=self.folder / RUNS / spec.key, limits=limits)

    def total_epochs(self) -> int:
        """Count the epochs of all runs, tuning included, whether finished already or not."""
        total = len(self.protocol.cells) * len(self.seeds) * self.epochs
        if self.protocol.tuning:
            tuned = len({cell.initialization for cell in self.protocol.cells if cell.rate == "tuned"})
            tuning = self.protocol.tuning
            total += tuned * tuning.trials * len(tuning.seeds) * tuning.epochs(self.epochs)
        return total * len(self.choices)


def make_plan(
    protocol: str | Path | Protocol,
    activations: Sequence[str],
    *,
    seeds: int,
    epochs: int | None,
    data: str | Path | None,
    out: Path | None,
    reference: str | None,
    margin: float | None,
    save_epochs: Sequence[int],
    split: Split = "test",
    options: Mapping[str, Any] = MappingProxyType({}),
    time_limit: float | None = None,
    memory_limit: float | None = None,
    device: DeviceName = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
) -> Plan:
    """Check everything that can be wrong with a request and load the data; nothing is written.

    Raises:
        UsageError: Or one of its subclasses, naming the argument, what was given and what is allowed.
    """
    frozen = with_options(get_protocol(protocol), options)
    length = frozen.epochs if epochs is None else epochs
    limits = make_limits(time_limit, memory_limit)
    check_at_least(1, seeds=seeds, epochs=length)
    for epoch in save_epochs:
        check_at_least(1, save_epochs=epoch)
    if max(save_epochs, default=1) > length:
        raise UsageError(f"save_epochs must lie between 1 and {length}, got {', '.join(map(str, save_epochs))}")
    task = TASKS[frozen.recipe.task]
    if split != "test" and not FITS[frozen.recipe.task].held:
        raise UsageError(f"{task.name} has no part to hold out; leave split out, got 'dev'")
    check_means(device, precision, compiled=compiled, task=task.name)
    margin = task.metric.margin if margin is None else margin
    if not isinstance(margin, int | float) or not 0 < margin < math.inf:
        raise UsageError(f"margin must be a positive number of {task.metric.unit}, got {margin!r}")
    source = task.source(data)
    folder = (default_folder(frozen.name, split) if out is None else Path(out)).resolve()
    choices = _choices(activations, folder)
    held = held_study(folder)
    if held is not None:  # nothing that is there leaves the report
        choices = tuple(dict.fromkeys([*(parse_entry(text, folder) for text in held["activations"]), *choices]))
        seeds = max(seeds, len(held["seeds"]))
    plan = Plan(
        protocol=frozen,
        choices=choices,
        seeds=frozen.first_seeds(seeds),
        epochs=length,
        source=source,
        data=task.facts(source),
        folder=folder,
        reference=_reference(reference, choices, folder),
        margin=float(margin),
        save_epochs=tuple(sorted(set(save_epochs))),
        split=split,
        limits=limits,
        device=device,
        precision=precision,
        compiled=compiled,
    )
    if held is not None:
        check_same(plan, held)
    for choice in choices:
        _check_fits(plan, choice)
    return plan


def _check_fits(plan: Plan, choice: Entry) -> None:
    """Build the model and try it on one example, so that what cannot run is refused before anything runs.

    Submissions are tried in a process of their own, once for each study.

    Raises:
        OptionError: The activation has parameters for another number of channels or too many, takes other shapes, has
            no gain where one is needed, or does what a submission may not.
    """
    if isinstance(choice, Submission):
        if not choice.is_kept(plan.folder):
            checked = check_submission(plan.protocol, choice, gigabytes=plan.limits.gigabytes)
            refuse(checked, choice.label)
        return
    recipe = plan.protocol.recipe
    try:
        model = build_model(recipe, choice, seed=plan.seeds[0])
        model.eval()(torch.zeros(1, *example_shape(recipe)))
        if choice.spec.kind != "elementwise" and any(cell.initialization == "matched" for cell in plan.protocol.cells):
            match_gains(model, input_square=1.0, seed=plan.seeds[0])
    except UsageError as error:
        raise OptionError(f"{choice.label} does not fit the model of {plan.protocol.name}: {error}") from error
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if plan.budget is not None and parameters > plan.budget:
        own = sum(parameter.numel() for site in activation_sites(model).values() for parameter in site.parameters())
        said = over_budget(parameters, own, plan.budget)
        raise OptionError(f"{choice.label} is too large for {plan.protocol.name}: {said}")


def default_folder(name: str, split: Split) -> Path:
    """Return where the results of a protocol or suite go if nobody says anything else."""
    return Path("results", name if split == "test" else f"{name}-dev")


def _choices(activations: Sequence[str], folder: Path) -> tuple[Entry, ...]:
    if isinstance(activations, str) or not all(isinstance(text, str) for text in activations):
        raise UsageError(f"activations must be a list of texts, got {activations!r}")
    choices = tuple(dict.fromkeys(parse_entry(text, folder) for text in expand_groups(activations)))
    if not choices:
        raise UsageError("activations must name at least one activation, got none")
    return choices


def check_at_least(least: int, **values: int) -> None:
    """Check integers, named as the caller knows them.

    Raises:
        UsageError: One is no integer, or too small.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} must be an integer of at least {least}, got {value!r}")


def _reference(asked: str | None, choices: Sequence[Entry], folder: Path) -> str:
    labels = [choice.label for choice in choices]
    if asked is None:
        known = [choice.label for choice in choices if not isinstance(choice, Submission)] or labels
        return "relu" if "relu" in known else known[0]
    label = parse_entry(asked, folder).label
    if label not in labels:
        raise UsageError(f"reference must be one of the compared activations ({', '.join(labels)}), got {asked!r}")
    return label
