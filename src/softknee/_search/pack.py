"""Many models of one shape, stacked, and trained side by side.

The task's own training step runs under `torch.vmap` with each model's part of the parameters and buffers; autograd and
the optimizer see the stacks. Each model has the weights, batches and noise that it has when it is trained alone, so
that losses differ by rounding, and by what training makes of that.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from softknee._bench.streams import Stream
from softknee._errors import UsageError
from softknee._search.batches import apart, drawing
from softknee._search.packed_lookup import PackedActivation
from softknee._search.task import EVALUATION
from softknee._surgery.untouched import gradients_on_demand

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from softknee._search.task import Put, Task

# Of a parameter: itself, its gradient, and two moments of an optimizer.
COPIES = 4
# By how much the gradients of a second model are larger, where it is seen whether it has an effect on the first.
LOUDER = 1e3


class Pack:
    """Models of one run, from the same weights, stacked.

    Args:
        task: What they are trained on.
        run: Its number.
        puts: What is put into the model of each, as `Task.model` takes it; a single one is for all.
        models: How many.

    Attributes:
        model: One of them, whose parameters and buffers are the stacks of all.
        optimizer: Of the stacks.
    """

    def __init__(self, task: Task, run: int, puts: Sequence[Put], models: int) -> None:
        self._task, self._run = task, run
        made = [task.model(run, put) for put in puts]
        self.model = made[0]
        self._step = _Step(task, self.model)
        others = [{**dict(one.named_parameters()), **dict(one.named_buffers())} for one in made]
        for name, value in others[0].items():
            value.data = _stacked([other[name].detach() for other in others], models)
        for module in self.model.modules():
            if isinstance(module, PackedActivation):
                module.model = torch.arange(models, device=module.model.device)
        self.optimizer = task.optimizer_of(self.model)
        self._packed = torch.vmap(partial(functional_call, self._step), in_dims=(0, None), randomness="same")
        self._failed = torch.zeros(models, dtype=torch.bool)

    def train(self, parts: Sequence[float]) -> NDArray[np.float64]:
        """Train all models to the end of the last of some parts of a run.

        Args:
            parts: As in `train_packed`.

        Returns:
            Validation losses at the end of each part, `(models, parts)`.
        """
        task, losses, done = self._task, [], 0
        stops = [task.steps_of(part) for part in parts]
        for epoch in range(task.epochs):
            with drawing(task.seed_of(Stream.NOISE, self._run, epoch)):
                for batch in islice(task.batches(self._run, epoch), stops[-1] - done):
                    self.take(batch)
                    done += 1
                    if done in stops:
                        losses += [self.losses(task.val_batches)] * stops.count(done)
        return np.stack(losses, 1)

    def take(self, batch: Any) -> None:
        """Take one step of training, the same batch for all models."""
        losses = self.forward(batch)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self._failed |= ~losses.detach().isfinite().cpu()

    def losses(self, batches: Iterable[Any]) -> NDArray[np.float64]:
        """Evaluate as `Task.evaluate` does.

        Args:
            batches: Validation or test batches.

        Returns:
            Mean losses, `(models,)`; infinite where a model diverged, now or before.
        """
        task = self._task
        order = task.seed_of(Stream.ORDER, EVALUATION)
        self.model.eval()
        with drawing(task.seed_of(Stream.NOISE, EVALUATION)), gradients_on_demand():
            each = [self.forward(batch).detach().double() for batch in apart(batches, order, task.devices)]
        self.model.train()
        mean = torch.stack(each).mean(0).cpu()
        return mean.where(mean.isfinite() & ~self._failed, math.inf).numpy()

    def forward(self, batch: Any) -> Tensor:
        """Return the losses of a batch, `(models,)`.

        Raises:
            UsageError: The step does something that cannot be done for many models at once.
            RuntimeError: It fails for another reason.
        """
        state = {**dict(self._step.named_parameters()), **dict(self._step.named_buffers())}
        try:
            return self._packed(state, (batch,))  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"train_step cannot be run for many models at once, as torch.vmap does; train one by one: {reason}"
            ) from error

    @property
    def nbytes(self) -> int:
        """What the stacks take in training, but for what is kept for the backward pass."""
        return COPIES * sum(value.nbytes for value in self.model.parameters())


class _Step(nn.Module):
    """A training step as the forward pass of a module, so that it can be run with other parameters in the model."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._loss = task.loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


def _stacked(values: Sequence[Tensor], models: int) -> Tensor:
    """Return one tensor for each model: those given, or copies of the only one."""
    if len(values) == 1:
        return values[0].expand(models, *values[0].shape).clone()
    return torch.stack(list(values))


def check_optimizer(task: Task) -> None:
    """See that a stack is trained as each model alone is.

    Args:
        task: With the optimizer.

    Raises:
        UsageError: What one model does has an effect on another, or the shapes of parameters matter.
    """
    alone, generator = task.model(0, lambda *_: "relu"), torch.Generator().manual_seed(0)
    first = task.optimizer_of(alone)
    try:
        pack = Pack(task, 0, [lambda *_: "relu"], 2)
        for _ in range(2):
            for one, both in zip(alone.parameters(), pack.model.parameters(), strict=True):
                one.grad = torch.randn(one.shape, generator=generator).to(one)
                both.grad = torch.stack((one.grad, LOUDER * one.grad))
            first.step()
            pack.optimizer.step()
        pairs = zip(alone.parameters(), pack.model.parameters(), strict=True)
        same = all(torch.allclose(one, both[0], rtol=1e-4, atol=1e-6) for one, both in pairs)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"{type(first).__name__} does not take the parameters of many models, stacked: {error}"
        ) from error
    if not same:
        raise UsageError(
            f"{type(first).__name__}, as optimizer makes it, cannot train many models side by side: it looks at more "
            "than one number of a parameter at a time, or at the number of its dimensions. SGD, Adam and AdamW can"
        )
