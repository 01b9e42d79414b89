"""The loss along one or two directions through a model's weights, without touching them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softknee._diagnose.curvature.directions import given_direction, movable, orthogonal_to, random_direction
from softknee._diagnose.preserve import called_with, preserved
from softknee._diagnose.task import task
from softknee._errors import UsageError
from softknee._surgery.untouched import gradients_on_demand
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from softknee._diagnose.curvature.directions import Direction
    from softknee._diagnose.task import Loss, Task

SAMPLES, POINTS = 512, 21


@dataclass(frozen=True)
class Landscape:
    """Losses at `theta + a d + b e`.

    Attributes:
        a: Steps along `d`, symmetric around 0, which is among them.
        one: Mean loss at each `a` with `b = 0`; None where it is not finite.
        two: `two[i][j]` is the loss at `(a[i], b[j])`, with `b` the same steps as `a`; None if there is one direction.
        normalisation: "filter" for random directions, "none" for given ones, which are taken as they are.
        seed: Of the random directions.
        samples: Number of samples of the loss.
        parameters: Number of elements that move.
        statistics: What batch normalisation uses.
    """

    a: tuple[float, ...]
    one: tuple[float | None, ...]
    two: tuple[tuple[float | None, ...], ...] | None
    normalisation: str
    seed: int
    samples: int
    parameters: int
    statistics: str = "running statistics as they are"

    @property
    def centre(self) -> float | None:
        """The loss at the weights themselves."""
        return self.one[len(self.a) // 2]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        two = None
        if self.two is not None:
            two = {"a": list(self.a), "b": list(self.a), "loss": [list(row) for row in self.two]}
        return {
            "one": {"a": list(self.a), "loss": list(self.one)},
            "two": two,
            "normalisation": self.normalisation,
            "seed": self.seed,
            "samples": self.samples,
            "parameters": self.parameters,
            "statistics": self.statistics,
        }


def landscape(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Loss,
    *,
    samples: int = SAMPLES,
    points: int = POINTS,
    span: float = 1.0,
    seed: int = 0,
    two: bool = True,
    vectors: bool = False,
    directions: Sequence[Any] | None = None,
) -> Landscape:
    """Measure the loss along random directions, or along given ones.

    Random directions are filter-normalised: each filter takes the norm of the same filter of the weights (Li et al.
    2018, arXiv 1712.09913), so that a step of 1 is as large as the weights. The second one is made orthogonal to the
    first one after that. The model runs in eval mode, batch normalisation with its running statistics, which do not
    follow the weights; far from the centre that is not the loss that training would see. A picture of two random
    directions out of thousands can miss what other directions hold; negative curvature among it.

    Args:
        model: As `task` takes it. Its weights are never written: it is called with others in their place.
        loader: As `task` takes it.
        loss: As `task` takes it.
        samples: How many samples the loss is a mean over.
        points: How many steps along a direction, an odd number so that 0 is among them; two directions take their
            square.
        span: The largest step.
        seed: Of the directions, and of what the model draws: the same at all points.
        two: Whether to draw two random directions rather than one.
        vectors: Whether random directions move parameters of at most one dimension (biases, norms) too.
        directions: One or two to use instead, as they are: by names of parameters, as tensors in their order or as
            vectors of all elements, such as `towards(model, other)` or eigenvectors of the Hessian.

    Returns:
        The losses.

    Raises:
        UsageError: An option is outside its range, or a direction does not fit; and as `task`.
        DataError: As `task`.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 3 or points % 2 == 0:
        raise UsageError(f"points must be an odd number of at least 3, got {excerpt(points)}")
    if not (isinstance(span, int | float) and math.isfinite(span) and span > 0):
        raise UsageError(f"span must be a positive number, got {excerpt(span)}")
    gathered = task(model, loader, loss, samples=samples)
    along = _directions(gathered.model, seed, two=two, vectors=vectors, given=directions)
    half = points // 2
    steps = tuple(span * (index - half) / half for index in range(points))
    moved = sum(int(torch.stack([one[name] != 0 for one in along]).any(0).sum()) for name in along[0])
    with preserved(model):
        if len(along) == 1:
            grid, one = None, tuple(_loss(gathered, along, (a,), seed) for a in steps)
        else:
            grid = tuple(tuple(_loss(gathered, along, (a, b), seed) for b in steps) for a in steps)
            one = tuple(row[half] for row in grid)
    normalisation = "none" if directions is not None else "filter"
    return Landscape(steps, one, grid, normalisation, seed, gathered.samples, moved)


def _directions(
    model: nn.Module, seed: int, *, two: bool, vectors: bool, given: Sequence[Any] | None
) -> tuple[Direction, ...]:
    """Return the directions to go along.

    Raises:
        UsageError: There are neither one nor two, or one does not fit the model.
    """
    if given is not None:
        if not isinstance(given, list | tuple) or len(given) not in {1, 2}:
            raise UsageError("directions must be a list of one or two")
        return tuple(given_direction(model, one) for one in given)
    generator = torch.Generator().manual_seed(seed)
    first = random_direction(model, generator, vectors=vectors)
    if not two:
        return (first,)
    return first, orthogonal_to(random_direction(model, generator, vectors=vectors), first)


def _loss(gathered: Task, along: Sequence[Direction], steps: Sequence[float], seed: int) -> float | None:
    """Return the mean loss of a sample some steps away from the weights; inside `preserved` only."""
    with torch.no_grad():
        weights = {name: one.detach() for name, one in movable(gathered.model).items()}
        for step, direction in zip(steps, along, strict=True):
            # A step of 0 keeps the very weights, so that the centre is the model's own loss to the last bit.
            weights = {name: one + step * direction[name] for name, one in weights.items()} if step else weights
    torch.manual_seed(seed)
    total = 0.0
    for batch in gathered.batches:
        with gradients_on_demand(batch.inputs, dict(batch.keywords)):
            outputs = called_with(gathered.model, weights, batch.inputs, batch.keywords)
            total += float(gathered.loss(batch, outputs)) * batch.size
    mean = total / gathered.samples
    return mean if math.isfinite(mean) else None
