"""Refuses models whose numbers are broken before what cannot be computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softknee._diagnose.task import Batch, Task


@torch.no_grad()
def check_finite(of: Task, outputs: Callable[[Any, Batch], Tensor | None], result: str) -> None:
    """Run a model over its samples to see that its numbers are finite; inside `preserved` only.

    Args:
        of: The task.
        outputs: What of the model's result, for a batch, is measured; None for nothing.
        result: What there is none of otherwise, for the sentence.

    Raises:
        UsageError: A parameter or an output is NaN or infinite.
    """
    for name, one in of.model.named_parameters():
        if not torch.isfinite(one).all():
            raise UsageError(f"the weights of the model are not finite ({name}), so it has no {result}")
    for batch in of.batches:
        found = outputs(of.run(batch), batch)
        if found is not None and not torch.isfinite(found).all():
            raise UsageError(f"the outputs of the model are not finite, so it has no {result}")
