"""Tasks that make their data: functions to fit, and a Gaussian mixture to tell apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softknee._bench.data import VALIDATION_SHARE
from softknee._bench.domain import Domain
from softknee._bench.examples import Points, Tensors
from softknee._bench.task import Facts, Task
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from softknee._bench.examples import Examples
    from softknee._bench.runs import Split

# Linear forms of the published function on the square, and the weights of their sines.
FORMS = ((9.0, -7.0), (-9.0, 11.0), (3.0, 13.0), (9.0, 9.0), (13.0, 5.0), (3.0, 19.0))
WEIGHTS = (0.4, 0.1, 0.15, 0.15, 0.1, 0.1)
# Standard deviations of the Gaussians along their axes, from and to.
WIDTHS = (0.05, 0.2)


def sines(points: Tensor) -> Tensor:
    r"""Return $\sum_i w_i \sin(a_i \cdot x)$, the published function of two variables.

    Args:
        points: `(n, 2)`, any floating dtype.

    Returns:
        `(n, 1)`.
    """
    return (points @ points.new_tensor(FORMS).T).sin() @ points.new_tensor(WEIGHTS)[:, None]


def bends(points: Tensor) -> Tensor:
    r"""Return $\tfrac12 \sin 2x + \tfrac16 (|x + 1.6| - 2 |x - 0.2| + |x - 2|) + \tfrac13 \sin 9x$.

    A slow wave, three kinks and a fast wave: a smooth function, a rectifier and an oscillation have each their part.

    Args:
        points: `(n, 1)`, any floating dtype.

    Returns:
        `(n, 1)`.
    """
    kinks = (points + 1.6).abs() - 2 * (points - 0.2).abs() + (points - 2).abs()
    return (2 * points).sin() / 2 + kinks / 6 + (9 * points).sin() / 3


@dataclass(frozen=True)
class Regression(Task):
    """A function to fit, seen at new points in every step and evaluated on a fixed grid over all of its domain.

    Attributes:
        formula: Of the function, for people; the fingerprint hashes it with the domain.
        function: `(n, axes)` to `(n, 1)`.
        domain: Where it is defined, with the points of its picture.
        grid: Points of an axis at which it is evaluated.
    """

    formula: str
    function: Callable[[Tensor], Tensor]
    domain: Domain
    grid: int

    def facts(self, source: str) -> Facts:
        """Return how large the grid is, and what the function is."""
        axes, low, high = len(self.domain.axes), self.domain.low, self.domain.high
        where = f"{' and '.join(self.domain.axes)} from {low:g} to {high:g}"
        about = (
            f"y = {self.formula}, {where}. Every step draws new points evenly; R² is taken on a fixed grid of "
            f"{' x '.join([str(self.grid)] * axes)} points."
        )
        return Facts(source, hashed(self.formula, axes, low, high, self.grid), None, self.grid**axes, about)

    def load(self, source: str, split: Split) -> Examples:
        """Return the points.

        Raises:
            DataError: A held-out part is asked for: a grid over everything has none.
        """
        if split != "test":
            raise DataError(f"{self.name} has no part to hold out")
        grid = torch.from_numpy(Domain(self.domain.axes, self.domain.low, self.domain.high, self.grid).grid())
        return Points(
            fingerprint=self.facts(source).fingerprint,
            test_inputs=grid.float(),
            test_targets=self.function(grid),
            domain=self.domain,
            function=self.function,
            low=self.domain.low,
            high=self.domain.high,
        )

    def picture(self) -> dict[str, Any]:
        """Return the domain and the function on it."""
        values = self.function(torch.from_numpy(self.domain.grid()))[:, 0]
        return {**self.domain.described(), "target": [round(value, 4) for value in values.tolist()]}


@dataclass(frozen=True)
class Mixture(Task):
    """Points of Gaussians in the plane, several to a class; the same ones for every seed of a run.

    Attributes:
        components: How many Gaussians, all equally likely.
        classes: Number of classes; components take turns.
        seed: Of the Gaussians and their points.
        train: Points to train on.
        test: Points to evaluate on.
        domain: Where the picture is drawn.
    """

    components: int
    classes: int
    seed: int
    train: int
    test: int
    domain: Domain

    def facts(self, source: str) -> Facts:
        """Return the numbers of points, and how many of them can be told right at all."""
        points, labels = self._points(self.test)
        best = 100 * float((self._likeliest(points) == labels).mean())
        about = (
            f"{self.components} Gaussians in {self.classes} classes, all equally likely, drawn once and the same for "
            f"all runs: {self.train:,} points to train on, {self.test:,} to evaluate on. Whoever knew the Gaussians "
            f"could tell {best:.1f} % of these right."
        )
        definition = hashed(self.components, self.classes, self.seed, self.train, self.test, *WIDTHS)
        return Facts(source, definition, self.train, self.test, about)

    def load(self, source: str, split: Split) -> Tensors:
        """Return the points; the part held out is the last sixth of those to train on."""
        inputs, labels = self._points(self.train)
        test_inputs, test_labels = self._points(self.test)
        if split == "validation":
            kept = round(self.train * (1 - VALIDATION_SHARE))
            inputs, test_inputs = inputs[:kept], inputs[kept:]
            labels, test_labels = labels[:kept], labels[kept:]
        return Tensors(
            fingerprint=self.facts(source).fingerprint,
            train_inputs=torch.from_numpy(inputs).float(),
            train_labels=torch.from_numpy(labels),
            test_inputs=torch.from_numpy(test_inputs).float(),
            test_targets=torch.from_numpy(test_labels),
            classes=tuple(f"class {label}" for label in range(self.classes)),
            domain=self.domain,
        )

    def picture(self) -> dict[str, Any]:
        """Return the domain with the likeliest class at each point, and where the Gaussians are."""
        marks = [[*mean, str(index % self.classes)] for index, mean in enumerate(self._gaussians[0].round(4).tolist())]
        return {
            **self.domain.described(),
            "classes": self.classes,
            "target": self._likeliest(self.domain.grid()).tolist(),
            "marks": marks,
        }

    @cached_property
    def _gaussians(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means `(components, 2)`, and `(components, 2, 2)` matrices that make them of standard normal points."""
        random = _random(self.seed)
        means = random.uniform(-1, 1, (self.components, 2))
        angles, widths = random.uniform(0, pi, self.components), random.uniform(*WIDTHS, (self.components, 2))
        turned = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
        return means, turned * widths[:, None, :]

    def _points(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw points in a random order of Gaussians: `(number, 2)`, and their classes."""
        means, spreads = self._gaussians
        random = _random(self.seed + number)
        chosen = random.randint(self.components, size=number)
        points = means[chosen] + np.einsum("nij,nj->ni", spreads[chosen], random.standard_normal((number, 2)))
        return points, (chosen % self.classes).astype(np.int64)

    def _likeliest(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the class with the highest density at each point, the best answer there is."""
        means, spreads = self._gaussians
        whitened = np.einsum("kij,nkj->nki", np.linalg.inv(spreads), points[:, None] - means)
        densities = np.exp(-np.square(whitened).sum(2) / 2) / np.abs(np.linalg.det(spreads))
        together = np.stack([densities[:, label :: self.classes].sum(1) for label in range(self.classes)], axis=1)
        best: NDArray[np.int64] = together.argmax(1)
        return best


def _random(seed: int) -> np.random.RandomState:
    # The one generator of NumPy that is promised never to change.
    return np.random.RandomState(seed)


def hashed(*definition: object) -> str:
    """Return the SHA-256 of what defines data: of its JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(definition).encode()).hexdigest()
