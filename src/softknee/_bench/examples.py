"""What a run is trained and evaluated on, as tensors: a fixed set with labels, or new points of a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._bench.record import classification_fields, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from softknee._bench.domain import Domain
    from softknee._bench.protocol import Recipe


@dataclass(frozen=True, kw_only=True)
class Examples(ABC):
    """Examples to train on, and others to evaluate on. A score is the mean of a tally, but for scale and offset.

    Attributes:
        fingerprint: SHA-256 of the data, or of what defines them.
        test_inputs: What is evaluated on: `(m, inputs)` float32.
        test_targets: What belongs to it: `(m,)` int64 classes, or `(m, 1)` float64 values.
        domain: Where a model's outputs are drawn for the report; None if nowhere.
    """

    fingerprint: str
    test_inputs: Tensor
    test_targets: Tensor
    domain: Domain | None = None

    @property
    @abstractmethod
    def input_square(self) -> float:
        """Mean square of the inputs that are trained on."""

    @property
    def device(self) -> torch.device:
        """Where the examples lie, and `batches` yields them."""
        return self.test_inputs.device

    def to(self, device: torch.device) -> Examples:
        """Return the examples on a device; the same ones are drawn there."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: one.to(device) for name, one in values.items() if isinstance(one, Tensor)}
        return replace(self, **moved)

    def under(self, recipe: Recipe) -> Examples:
        """Return the examples as a recipe has them."""
        del recipe
        return self

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return inputs as a model takes them; `batches` yields them so, `test_inputs` are as they are stored."""
        return inputs

    @abstractmethod
    def batches(self, order: torch.Generator, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets of an epoch, batch by batch.

        Args:
            order: Draws them.
            batch_size: Examples in a batch.
            steps: How many batches, where examples do not run out.

        Yields:
            Inputs and targets.
        """

    def objective(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a step of training minimizes, and the outputs it met.

        Args:
            model: To train.
            inputs: From `batches`.
            targets: Likewise.

        Returns:
            The mean loss, and `model(inputs)`.
        """
        outputs: Tensor = model(inputs)
        return self.loss(outputs, targets), outputs

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, in the dtype of `outputs`."""

    @abstractmethod
    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return for each example, `(n,)`, what the score is made of."""

    @abstractmethod
    def score(self, mean: float) -> float:
        """Return the score of a mean tally."""

    @abstractmethod
    def final_fields(self, outputs: Tensor) -> dict[str, Any]:
        """Return the fields of a result that come from the last outputs on the evaluated part; plain data."""

    @abstractmethod
    def drawn(self, outputs: Tensor) -> list[Any]:
        """Return outputs `(points, outputs)` as the report draws them, one number a point; None where infinite."""


@dataclass(frozen=True, kw_only=True)
class Tensors(Examples):
    """A fixed set with labels: cross entropy, and accuracy in percent.

    Attributes:
        train_inputs: `(n, inputs)` float32.
        train_labels: `(n,)` int64.
        classes: Names of the labels.
    """

    train_inputs: Tensor
    train_labels: Tensor
    classes: tuple[str, ...]

    @property
    def input_square(self) -> float:
        """Mean square of the inputs that are trained on."""
        return self.train_inputs.square().mean().item()

    def batches(self, order: torch.Generator, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole set in a drawn order; the last batch may be smaller."""
        del steps
        drawn = torch.randperm(len(self.train_labels), generator=order).to(self.device)
        for batch in drawn.split(batch_size):
            yield self.train_inputs.index_select(0, batch), self.train_labels[batch]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits."""
        return F.cross_entropy(outputs, targets)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return whether the largest logit is the right one."""
        return outputs.argmax(1) == targets

    def score(self, mean: float) -> float:
        """Return the accuracy in percent."""
        return 100 * mean

    def final_fields(self, outputs: Tensor) -> dict[str, Any]:
        """Return what was taken for what, and which examples are right."""
        return classification_fields(outputs.argmax(1).numpy(), self.test_targets.numpy(), classes=self.classes)

    def drawn(self, outputs: Tensor) -> list[Any]:
        """Return predicted classes."""
        return outputs.argmax(1).tolist()


@dataclass(frozen=True, kw_only=True)
class Points(Examples):
    """New points of a function for every step, drawn evenly from its domain: mean squared error, and R² on a grid.

    Attributes:
        function: `(n, axes)` to `(n, 1)`, in the dtype of the points.
        low: Lower end of every axis.
        high: Upper end.
    """

    function: Callable[[Tensor], Tensor]
    low: float
    high: float

    @property
    def input_square(self) -> float:
        """Mean square of an even distribution."""
        return (self.low**2 + self.low * self.high + self.high**2) / 3

    def batches(self, order: torch.Generator, batch_size: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield new points and their values, `steps` times."""
        axes = self.test_inputs.shape[1]
        for _ in range(steps):
            points = self.low + (self.high - self.low) * torch.rand(batch_size, axes, generator=order)
            # The right answers are the same on all devices, and in all tiers.
            yield points.to(self.device), self.function(points).to(self.device)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(outputs, targets)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return squared errors."""
        return (outputs - targets).square().squeeze(1)

    def score(self, mean: float) -> float:
        """Return R²: one minus the mean squared error over the variance of the function on the grid."""
        return 1 - mean / self.test_targets.var(correction=0).item()

    def final_fields(self, outputs: Tensor) -> dict[str, Any]:
        """Return the largest error."""
        return {"largest_error": (outputs - self.test_targets).abs().max().item(), "test_size": len(outputs)}

    def drawn(self, outputs: Tensor) -> list[Any]:
        """Return values to four decimals."""
        return finite(outputs[:, 0].double().mul(1e4).round().div(1e4))
