"""How many samples a measurement may take, by what the model costs: the same number on every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from softknee._diagnose.preserve import preserved
from softknee._errors import UsageError

if TYPE_CHECKING:
    from softknee._diagnose.task import Task

# Operations of one forward pass over the samples of what takes hundreds of passes: seconds of one core or of a GPU.
_OPERATIONS = {"cpu": 5e9}
_ELSEWHERE = 5e11
_FEWEST = 8


def operations(task: Task) -> float:
    """Return the floating-point operations of one forward pass, for one sample, as torch counts them.

    Args:
        task: Its first batch is run.
    """
    from torch.utils.flop_counter import FlopCounterMode

    batch = task.batches[0].first(_FEWEST)
    with preserved(task.model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        task.run(batch)
    return float(counter.get_total_flops()) / batch.size


def affordable(task: Task, each: float, most: int) -> int:
    """Return how many samples a measurement of hundreds of passes may take.

    Args:
        task: What is measured.
        each: As `operations` returns it.
        most: So many are enough.

    Returns:
        At least 8 where there are as many, so that the result says something.

    Raises:
        UsageError: Even 8 would take too long.
    """
    device = next((one.device.type for one in task.model.parameters()), "cpu")
    budget = _OPERATIONS.get(device, _ELSEWHERE)
    most = min(most, task.samples)
    count = most if each * most <= budget else int(budget / each)
    if count < min(_FEWEST, most):
        raise UsageError(
            f"the model takes {each:.2g} operations a sample, too many for hundreds of passes here; measure it by its "
            "function in softknee.diagnostics, with as many samples as you have time for"
        )
    return count
