"""Finds an activation for a model and its data in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._search.method import method_of
from softknee._search.session import USUAL, Search

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from softknee._search.result import Result
    from softknee._search.space import Space
    from softknee._search.task import MakeModel, MakeOptimizer, TrainStep


def search(
    make_model: MakeModel,
    train_step: TrainStep,
    train_batches: Iterable[Any],
    val_batches: Iterable[Any],
    test_batches: Iterable[Any] | None = None,
    *,
    optimizer: MakeOptimizer,
    epochs: int = 20,
    space: str | Space = "one-core",
    scope: str | Mapping[str, Any] = "all",
    where: Any = None,
    method: str = "auto",
    budget: float = 20.0,
    seeds: int = 3,
    seed: int = 0,
    baselines: Sequence[str] = USUAL,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Look for an activation function that makes a model of yours better, and prove it by training.

    The baselines are trained once, then candidates by the method. The best candidates are trained again in two more
    runs, whose validation losses choose one. It and the best baselines are then trained anew in runs that nothing was
    chosen by, paired in weights and batches, and their test losses are compared: either the candidate is better than
    each of the baselines beyond the noise, or the best baseline is the result.

    Args:
        make_model: Makes a new model, freshly initialised.
        train_step: Takes the model and a batch and returns the loss, one number. It does not call `backward`.
        train_batches: Batches that can be read again and again: a list, a DataLoader. An epoch is one reading.
        val_batches: The same, to select by.
        test_batches: The same, for the one final reading. Without them the claim is on validation data, and says so.
        optimizer: Makes the optimizer of a list of parameters.
        epochs: Of a full run.
        space: What functions are made of: `"one-core"`, `"grafs"` or a `softknee.Space`.
        scope: One function for `"all"` sites, for each `"site"`, or for groups by name with where each acts.
        where: Which activations, as `softknee.swap` takes it; all but gates, outputs and softmaxes by default.
        method: `"auto"`, `"grafs"`, `"enumerate"`, `"halving"`, `"evolve"` or `"random"`.
        budget: What may be spent, in training runs; verification and failed runs count. A forward pass alone counts
            as a third of a step.
        seeds: Paired runs of verification, 2 at least.
        seed: Of everything that is drawn. What a `train_step` draws from torch's global state is covered, numpy's and
            Python's states are not.
        baselines: What is to be beaten. What the model has now joins them, if it is of the catalogue.
        out: Folder for `result.json`, `report.html`, `best.py` and all that is needed to go on: the same call again
            continues after an interruption, and returns at once when all is done.
        progress: Is told what goes on, in short texts.

    Returns:
        The verdict, the function to use, everything that was tried, and what it cost.

    Raises:
        UsageError: Or a subclass: something cannot be searched for or is out of range. Nothing has been trained then.
        MissingExtra: SciPy is not installed; or Jinja2, where there is an `out`.
    """
    method_of(method)
    made = Search(
        make_model,
        train_step,
        train_batches,
        val_batches,
        test_batches,
        optimizer=optimizer,
        epochs=epochs,
        space=space,
        scope=scope,
        where=where,
        budget=budget,
        seeds=seeds,
        seed=seed,
        baselines=baselines,
        out=out,
        progress=progress,
    )
    return made.run(method)
