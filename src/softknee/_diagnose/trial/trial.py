"""Tries activations on a model: short paired trainings, with the controls that tell what made a difference."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._catalogue import parse_choice
from softknee._diagnose.preserve import seed_all
from softknee._diagnose.task import SAMPLES, loss_function, task
from softknee._diagnose.trial.data import Data
from softknee._diagnose.trial.options import checked_options, made_optimizer
from softknee._diagnose.trial.rates import Arm, Search
from softknee._diagnose.trial.run import (
    Stream,
    Trainer,
    anew,
    checked_model,
    example,
    resettable,
    right,
    stream_seed,
)
from softknee._diagnose.trial.screen import screen
from softknee._diagnose.trial.trials import AGAIN, MATCHED, REFERENCE, Trials, summed_up
from softknee._errors import UsageError
from softknee._extras import require
from softknee._surgery.find import look
from softknee._surgery.untouched import restored
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from softknee._diagnose.task import Batch, Loss
    from softknee._diagnose.trial.run import Make, MakeOptimizer, Metric
    from softknee._diagnose.trial.screen import Screening

RATES = (1 / 3, 1.0, 3.0)
SEEDS = 3
STEPS = 300
# Where the time decides on the steps.
MOST_EPOCHS = 20

_SEEN = (
    "what the scores are from may be among what the model was trained on, which favours no change; give a validation"
)


def trial(
    make_model: Callable[[], nn.Module] | nn.Module,
    train_loader: Iterable[Any],
    loss: Loss = None,
    *,
    lr: float,
    optimizer: str | MakeOptimizer = "sgd",
    momentum: float | None = None,
    validation: Iterable[Any] | None = None,
    candidates: Sequence[str] | None = None,
    steps: int | None = None,
    budget: float | str | None = None,
    seeds: int = SEEDS,
    rates: Sequence[float] = RATES,
    margin: float | None = None,
    metric: Metric | None = None,
    samples: int = SAMPLES,
    trained: bool | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Trials:
    """Train a model with other activations for a short time, and say what difference it makes, on this model and data.

    Runs are paired: at one seed all begin with the same weights but for their scale, and see the same batches in the
    same order. Weights, order, activation parameters and noise are drawn from streams of their own. Every trial has the
    controls that decide what a difference means: *no change*, to which all are compared; *no change, new seed*, whose
    difference is chance alone; and *same activation, matched gain*, whose difference is owed to the scale of weights.
    The weights of candidates are scaled to their own gain, as `softknee.calibrate` says, and they are also compared
    with that control, so that a better scale is not taken for a better activation.

    Each way is trained at several learning rates on a seed that is not reported; the best one on data that is not
    reported either is trained with the reported seeds. Differences are over seeds and examples, with 95 % intervals;
    p values are adjusted by Holm's method over what is compared with the same. *Equivalent* is only said after a test
    against the margin.

    The state of the model, if one is given, and all random states stay as they are. With the same arguments the results
    are the same, but for time: a `budget` cuts off where it ends.

    Args:
        make_model: Makes the model without arguments, by torch's global random state; or a model, of which copies are
            drawn anew by `reset_parameters` of their parts, or trained on as they are (see `trained`).
        train_loader: Yields batches as `softknee.diagnose` takes them; of these, the first `samples` are used. What is
            random in it, such as augmentation, happens once.
        loss: As for `softknee.diagnose`.
        lr: Learning rate, about which others are tried.
        optimizer: `"sgd"`, `"adam"`, `"adamw"`, or a function of a list of parameters and a learning rate. If it has
            weight decay, the parameters of activations are spared it afterwards, in all runs.
        momentum: Of `"sgd"`, 0 by default.
        validation: Yields other batches, to choose the learning rate and to report on; None to hold out 15 % and 25 %
            of the samples, drawn by `seed`.
        candidates: Names or formulas, with options in brackets; None for what `screen` finds.
        steps: Of each run; None for 300, or for as many as the budget allows.
        budget: Time for all of it in seconds, or as text such as `"90s"`, `"5m"`, `"1h"`. Where not all candidates can
            be tried in full, the worse half is left out after runs of a quarter, and again of half the length.
        seeds: How many runs of each way are reported; 3 is the fewest for a verdict.
        rates: Factors of `lr` to try.
        margin: Differences below it do not matter: in percentage points, 1 by default, or in the unit of the loss, 2 %
            of that of the model without a change by default.
        metric: `"accuracy"` or `"loss"`; None for accuracy where the targets are classes.
        samples: How many to take from the loader, and from `validation`.
        trained: Whether a given model keeps its weights, and is trained on with other activations; its gains are then
            not matched. None for what its parts allow: weights are drawn anew where all of them can.
        seed: Of everything.
        progress: Called with a line of text after each run.

    Returns:
        The entries with the controls. What was found before the time was over, or the keyboard interrupted, is kept.

    Raises:
        UsageError: An option is not allowed, a candidate is unknown or does not fit, or there is no activation.
        DataError: The loader fails, or has too few samples.
        MissingExtra: SciPy is not installed.
    """
    require("scipy.special", extra="bench")
    seconds = checked_options(lr, rates, seeds, steps, budget, margin, metric, candidates, progress)
    make_optimizer = made_optimizer(optimizer, momentum)
    function = loss_function(loss)
    with torch.inference_mode(mode=False), restored(_module(make_model)), torch.enable_grad():
        make, from_scratch, notes = _made(make_model, trained=trained)
        seed_all(stream_seed(seed, 0, Stream.SPLIT))
        model = checked_model(make())
        batches = task(model, train_loader, loss, samples=samples).batches
        held = None if validation is None else task(model, validation, loss, samples=samples).batches
        generator = torch.Generator().manual_seed(stream_seed(seed, 0, Stream.SPLIT))
        data = Data.of(batches, held, generator)
        metric = metric or _usual_metric(model, batches[0])
        trainer = Trainer(make, data, function, make_optimizer, metric, seed, from_scratch)
        notes += _same_weights(trainer) if from_scratch else [_SEEN] if held is None else []
        screening = _screening(trainer) if candidates is None else None
        arms, more = _arms(trainer, screening.candidates() if screening else candidates or ())
        most_steps = STEPS if seconds is None else MOST_EPOCHS * max(1, data.training.count // data.training.size)
        tried = tuple(sorted(lr * factor for factor in rates))
        record = Search(trainer, arms, tried, seeds, steps, max(1, most_steps), seconds, progress)()
        entries, margin = summed_up(arms, record, metric=metric, margin=margin, rates=tried)
    counts = (data.training.count, data.choosing.count, data.reporting.count)
    ended = [] if record.ended == "complete" else [f"{record.ended} before all runs were done"]
    return Trials(
        entries,
        metric,
        margin,
        record.steps,
        seeds,
        tried,
        counts,
        from_scratch,
        record.ended,
        (*notes, *more, *ended),
        screening,
    )


def _module(make_model: Any) -> nn.Module:
    """Return the model that is given, or an empty one.

    Raises:
        UsageError: It is neither a model nor a function.
    """
    if not callable(make_model) or isinstance(make_model, Tensor):
        raise UsageError(f"make_model must be a function without arguments or a module, got {excerpt(make_model)}")
    return make_model if isinstance(make_model, nn.Module) else nn.Module()


def _made(make_model: Any, *, trained: bool | None) -> tuple[Make, bool, list[str]]:
    """Return what makes models, whether their weights are drawn anew, and what must be known of that.

    Raises:
        UsageError: A model cannot be drawn anew, or a function is to keep weights.
    """
    if not isinstance(make_model, nn.Module):
        if trained:
            raise UsageError("trained=True is for a model with weights; a function makes new ones each time")
        return make_model, True, []
    can = resettable(make_model)
    if trained is False and not can:
        raise UsageError(
            "the model cannot be drawn anew, as parts of it have no reset_parameters; give a function that makes it"
        )
    if trained or not can:
        why = "as asked for" if trained else "as not all of its parts have reset_parameters"
        return partial(copy.deepcopy, make_model), False, [f"short fine-tuning of the given weights, {why}"]
    return anew(make_model), True, ["weights are drawn anew by reset_parameters; give a function for other ways"]


def _usual_metric(model: nn.Module, batch: Batch) -> Metric:
    """Return accuracy where a model's outputs and the targets allow it."""
    with torch.no_grad():
        try:
            right(copy.deepcopy(model).eval()(*batch.inputs, **batch.keywords), batch.target)
        except UsageError:
            return "loss"
    return "accuracy"


def _same_weights(trainer: Trainer) -> list[str]:
    """Return a note if all seeds give the same weights.

    Raises:
        UsageError: The function returns one model again and again.
    """
    first, second = (trainer.built(REFERENCE, number) for number in (1, 2))
    if first is second or {id(one) for one in first.parameters()} & {id(one) for one in second.parameters()}:
        raise UsageError("make_model returned the same parameters twice; it must make a new model each time")
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    if all(torch.equal(one, other) for one, other in pairs):
        return ["make_model gives the same weights at all seeds: only the order of the data differs between them"]
    return []


def _screening(trainer: Trainer) -> Screening:
    model = trainer.built(REFERENCE, 0)
    return screen(model, example(trainer.data.training), matched=trainer.from_scratch)


def _arms(trainer: Trainer, candidates: Sequence[str]) -> tuple[list[Arm], list[str]]:
    """Return what is tried, and notes on what is not.

    Raises:
        UsageError: A candidate does not fit.
    """
    notes = []
    there = _kinds(trainer)
    arms = [REFERENCE]
    if trainer.from_scratch:
        try:
            trainer.built(MATCHED, 0)
            arms.append(MATCHED)
        except UsageError as error:
            notes.append(f"no matched gain of the same activation: {error}")
    else:
        notes.append("no matched gain: the scale of trained weights is theirs")
    arms.append(AGAIN)
    for name in dict.fromkeys(candidates):
        choice = parse_choice(name)
        if there == {choice.spec.name} and not choice.options:
            notes.append(f"{name} is what the model has; see its controls")
            continue
        arm = Arm("candidate", name)
        try:
            trainer.built(arm, 0)
        except UsageError as error:
            raise UsageError(f"candidate {name}: {error}") from error
        arms.append(arm)
    stuck = dict.fromkeys(reason for reasons in trainer.stuck.values() for reason in reasons)
    return arms, [*notes, *(f"not changed: {reason}" for reason in stuck)]


def _kinds(trainer: Trainer) -> set[str]:
    """Return the kinds of activations that would be exchanged.

    Raises:
        UsageError: There are none.
    """
    given = example(trainer.data.training)
    inputs, keywords = ((), given) if isinstance(given, dict) else (given, {})
    found = look(trainer.built(REFERENCE, 0), inputs, keywords).sites
    kinds = {site.kind for site in found if site.role in {"activation", "pair"}}
    if not kinds:
        raise UsageError("no activation to change was found in the model; see softknee.sites")
    return kinds
