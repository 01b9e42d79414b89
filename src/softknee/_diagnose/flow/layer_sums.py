"""Measures the outputs of layers with weights, and the gradients that reach them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._surgery.layers import Follower, Spread
from softknee._surgery.observe import tensors_of
from softknee._surgery.trace import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._diagnose.task import Batch, Task
    from softknee._surgery.layers import Layer

    Key = tuple[nn.Parameter, int]

# The smallest variance that is divided by: signals that vanish with depth come far down.
SMALLEST = 1e-200
# Elements of each tensor that the kurtosis is taken of.
MOST = 2**15


class SampleFollower(Follower):
    """A `Follower` that also writes down how alike samples are.

    Args:
        model: The model.
        size: Number of samples that it is called with.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__(model)
        self.crosses: dict[int, float] = {}
        self._size = size

    def _look(self, x: Tensor) -> None:
        super()._look(x)
        number = self._number(x)
        if number in self.moments and number not in self.crosses and number not in self.trace.fixed:
            self.crosses[number] = cross(x, self._size)


def rows_of(x: Tensor, size: int) -> Tensor | None:
    """Return a tensor with a row for each sample, None if the first dimension does not tell samples apart."""
    values = unwrapped(x.detach())
    if not values.dim() or not values.numel() or values.shape[0] % size:
        return None
    return values.reshape(size, -1)


def cross(x: Tensor, size: int) -> float:
    """Return the mean over pairs of samples of the mean product of their elements."""
    rows = rows_of(x, size)
    if rows is None or size < 2:
        return math.nan
    rows = rows.float()
    total = rows.sum(0).double().square().sum() - rows.double().square().sum()
    return float(total / (size * (size - 1) * rows.shape[1]))


@dataclass
class LayerSum:
    """Sums over the outputs of one call of a layer.

    Attributes:
        count: Number of elements.
        square: Sum of their squares.
        some: Number of elements of which `powers` are the sums, taken evenly from all.
        powers: Sums of their first four powers.
        directions: Sum over samples of the outputs scaled to length 1, None before the first.
        rows: Number of samples in it: those whose outputs are not all zero.
        gradient: Sum of the squared gradient.
        differentiated: Whether any gradient came.
        uneven: Whether samples could not be told apart, or differ in shape.
    """

    count: int = 0
    square: float = 0.0
    some: int = 0
    powers: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    directions: Tensor | None = None
    rows: int = 0
    gradient: float = 0.0
    differentiated: bool = False
    uneven: bool = False

    def add(self, x: Tensor, size: int) -> None:
        """Count outputs in."""
        values = unwrapped(x.detach())
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        self.count += values.numel()
        flat = values.flatten()
        some = flat[:: max(1, len(flat) // MOST)].double()
        self.some += len(some)
        squares = some.square()
        self.powers += torch.stack([one.sum() for one in (some, squares, squares * some, squares.square())]).cpu()
        rows = rows_of(values, size)
        if rows is None or (self.directions is not None and len(self.directions) != rows.shape[1]):
            self.uneven = True
            self.square += _square(values)
            return
        # Squares of a signal that vanishes leave float32.
        lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float64))
        self.square += float(lengths.square().sum())
        total = (1 / lengths.clamp_min(torch.finfo(rows.dtype).tiny)).to(rows.dtype) @ rows
        self.directions = total.double() if self.directions is None else self.directions + total
        self.rows += int((lengths > 0).sum())

    def add_gradient(self, gradient: Tensor) -> None:
        """Count the gradient of outputs in."""
        self.gradient += _square(unwrapped(gradient.detach()))
        self.differentiated = True

    @property
    def q(self) -> float:
        """Mean square."""
        return self.square / max(self.count, 1)

    @property
    def cosine(self) -> float:
        """Mean over pairs of samples; not a number for a single output, of which it would compare the signs."""
        if self.uneven or self.directions is None or len(self.directions) < 2 or self.rows < 2:
            return math.nan
        return (float(self.directions.square().sum()) - self.rows) / (self.rows * (self.rows - 1))

    @property
    def kurtosis(self) -> float:
        """Fourth central moment over the squared variance."""
        mean, square, cube, fourth = (self.powers / max(self.some, 1)).tolist()
        variance = square - mean**2
        central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
        return central / variance**2 if variance > 0 else math.nan


class _Unmeasured(Spread):
    """Stands for statistics that are taken elsewhere."""

    def add(self, x: Tensor) -> None:
        """Do nothing."""


_NOTHING = _Unmeasured()


class LayerMeasure(Follower):
    """Measures the outputs of layers while the model runs, and their gradients when it has.

    Args:
        of: The task.
        batch: What the model is called with.
        sums: By weight and turn, to be added to.
        generator: Of the random direction of the gradient, where there is no loss.
    """

    def __init__(self, of: Task, batch: Batch, sums: dict[Key, LayerSum], generator: torch.Generator) -> None:
        super().__init__(of.model)
        self._of, self._batch, self._sums, self._generator = of, batch, sums, generator
        self._turns: dict[nn.Parameter, int] = {}

    def __enter__(self) -> Any:
        # Whoever observes turns gradients off, and restores that.
        torch.set_grad_enabled(True)
        return super().__enter__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and measure its result if it is that of a layer."""
        before = {weight: len(layer.outputs) for weight, layer in self.layers.items()}
        result = super().__torch_function__(func, types, args, kwargs)
        for weight, layer in self.layers.items():
            if len(layer.outputs) > before.get(weight, 0):
                one = self._sums.setdefault((weight, before.get(weight, 0)), LayerSum())
                one.add(result, self._batch.size)
                if result.requires_grad:
                    result.register_hook(one.add_gradient)
        return result

    def _look(self, x: Tensor) -> None:
        # Only layers are measured here.
        self._number(x)

    def _layer(self, *call: Any) -> Layer | None:
        layer = super()._layer(*call)
        if layer is not None:
            layer.spread = _NOTHING
        return layer

    def finish(self, outputs: Any) -> None:
        """Go back from what the model returned."""
        super().finish(outputs)
        with torch.enable_grad():
            if self._of.has_loss():
                parts = [self._of.loss(self._batch, outputs) * self._batch.size]
            else:
                parts = [(one * self._drawn(one)).sum() for one in tensors_of(outputs)]
            parts = [one for one in parts if one.requires_grad]
            if parts:
                torch.stack(parts).sum().backward()
        for parameter in self.model.parameters():
            parameter.grad = None

    def _drawn(self, x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape, generator=self._generator, dtype=torch.float32)
        return drawn.to(device=x.device, dtype=x.dtype)


def _square(x: Tensor) -> float:
    """Return the sum of the squares."""
    return float(torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float64))) ** 2
