"""Trains many candidates side by side in one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from softknee._errors import UsageError
from softknee._search.pack import check_optimizer
from softknee._search.packed_chunks import chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from softknee._search.candidate import Candidate
    from softknee._search.task import Task


@dataclass(frozen=True)
class PackedLosses:
    """Mean losses of models that were trained side by side; infinite where a model diverged.

    Attributes:
        validation: `(candidates, runs, parts)`.
        test: `(candidates, runs)` of fully trained models, None where it was not asked for.
    """

    validation: NDArray[np.float64]
    test: NDArray[np.float64] | None


def train_packed(
    task: Task,
    candidates: Sequence[Candidate],
    runs: Sequence[int],
    *,
    parts: Sequence[float] = (1.0,),
    test: bool = False,
) -> PackedLosses:
    """Train every candidate in every run, many at a time.

    Functions with nothing to train go through tables, one for each (`packed_lookup`). Others are evaluated as they are
    written, side by side with those of the same formula and other starting values.

    Args:
        task: What they are trained on. Its step may do what `torch.vmap` allows: no `item()`, no `if` on data. Its
            optimizer must treat each number by itself, as SGD and Adam do.
        candidates: What acts in them.
        runs: Numbers of the runs: starting weights, order of batches and noise.
        parts: Shares of a full run, ascending, at whose ends they are evaluated.
        test: Whether they are evaluated on the test batches too, fully trained.

    Returns:
        The losses.

    Raises:
        UsageError: The parts do not ascend in (0, 1]; there is no test loss to be had; the optimizer mixes models; or
            the step cannot be run for many models at once.
    """
    _check(task, parts, test=test)
    validation = np.full((len(candidates), len(runs), len(parts)), math.inf)
    tests = np.full((len(candidates), len(runs)), math.inf)
    if candidates and runs:
        check_optimizer(task)
        for chosen in chunks(task, candidates):
            for column, run in enumerate(runs):
                pack = chosen.pack(task, run)
                validation[chosen.rows, column] = pack.train(parts)
                if test:
                    tests[chosen.rows, column] = pack.losses(task.test_batches or ())
    return PackedLosses(validation, tests if test else None)


def _check(task: Task, parts: Sequence[float], *, test: bool) -> None:
    if not parts or not all(0 < part <= 1 for part in parts) or sorted(set(parts)) != list(parts):
        raise UsageError(f"parts must be shares of a run that ascend, above 0 and at most 1, got {tuple(parts)}")
    if test and (parts[-1] != 1 or not task.test_steps):
        what = "the task has no test_batches" if not task.test_steps else f"the last part is {parts[-1]}, and not 1"
        raise UsageError(f"there are no test losses of fully trained models: {what}")
