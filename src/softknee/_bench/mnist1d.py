"""MNIST-1D (Greydanus and Kobak 2024, arXiv:2011.14439): ten templates of digits as noisy, shifted, sheared series.

Made as the authors' package makes it with its default settings and seed, number by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from softknee._bench.data import VALIDATION_SHARE
from softknee._bench.examples import Tensors
from softknee._bench.generated import hashed
from softknee._bench.task import Facts, Task
from softknee._extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softknee._bench.runs import Split

# Strokes of the digits from 0 to 9, a digit a row, as published.
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
# Of each digit; four fifths of all are there to train on.
EXAMPLES, TRAIN = 500, 4000
LENGTH, SEED = 40, 42
# Zeros behind a template, from and to; its length with the most of them, to which all are stretched.
PADDING = (36, 60)
STRETCHED = 12 + 60
# Ranges of the factor, the shift and the shear; deviations of the smooth noise, its width, and of the other noise.
SCALE, SHIFTS, SHEAR = 0.4, 48, 0.75
SMOOTH, WIDTH, ROUGH = 0.25, 2, 0.02
# Added to a template, so that only padding is zero.
TINY = 1e-8


@dataclass(frozen=True)
class MNIST1D(Task):
    """The 5,000 series, of which the first 4,000 are there to train on."""

    def facts(self, source: str) -> Facts:
        """Return the numbers of series, and what they are."""
        definition = (TEMPLATES, EXAMPLES, TRAIN, LENGTH, SEED, PADDING, SCALE, SHIFTS, SHEAR, SMOOTH, WIDTH, ROUGH)
        test = EXAMPLES * len(TEMPLATES) - TRAIN
        about = (
            f"MNIST-1D (Greydanus and Kobak 2024), made as published: digits as series of {LENGTH} numbers, padded, "
            f"stretched, scaled, shifted, sheared, with noise; the same for all runs, {TRAIN:,} to train on, {test:,} "
            "to evaluate on."
        )
        return Facts(source, hashed(self.name, *definition), TRAIN, test, about)

    def load(self, source: str, split: Split) -> Tensors:
        """Return the series as `(n, 40)`; the part held out is the last sixth of those to train on."""
        inputs, labels = make_series()
        kept, end = TRAIN, len(labels)
        if split == "validation":
            kept, end = round(TRAIN * (1 - VALIDATION_SHARE)), TRAIN
        return Tensors(
            fingerprint=self.facts(source).fingerprint,
            train_inputs=torch.from_numpy(inputs[:kept]).float(),
            train_labels=torch.from_numpy(labels[:kept]),
            test_inputs=torch.from_numpy(inputs[kept:end]).float(),
            test_targets=torch.from_numpy(labels[kept:end]),
            classes=tuple("0123456789"),
        )


@lru_cache(maxsize=1)
def make_series() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the series `(5000, 40)`, of mean 0 and deviation 1 over all of them, and their digits.

    Raises:
        MissingExtra: scipy is not installed.
    """
    # The one generator of NumPy that is promised never to change, and the one of the published data.
    random = np.random.RandomState(SEED)
    templates = _templates()
    made = np.stack([_series(template, random) for template in templates for _ in range(EXAMPLES)])
    labels = np.repeat(np.arange(len(templates), dtype=np.int64), EXAMPLES)
    order = random.permutation(len(labels))
    made = made[order]
    return (made - made.mean()) / made.std(), labels[order]


def _templates() -> NDArray[np.float64]:
    """Return the strokes `(10, 12)`, each of deviation 1/6 and beginning at 0."""
    strokes = np.array(TEMPLATES, dtype=np.float64)
    strokes -= strokes.mean(1, keepdims=True)
    strokes /= strokes.std(1, keepdims=True)
    return (strokes - strokes[:, :1]) / 6


def _series(template: NDArray[np.float64], random: np.random.RandomState) -> NDArray[np.float64]:
    """Make one example; the order of what is drawn is part of the data."""
    low, high = PADDING
    zeros = low + int(random.rand() * (high - low + 1))
    line = _resampled(np.concatenate([template + TINY, np.zeros(zeros)]), STRETCHED)
    line *= 1 + SCALE * (random.rand() - 0.5)
    line = np.roll(line, random.choice(SHIFTS))
    smooth = require("scipy.ndimage", extra="bench").gaussian_filter(SMOOTH * random.randn(STRETCHED), WIDTH)
    line = np.where(line == 0, smooth, line) + ROUGH * random.randn(STRETCHED)
    line -= SHEAR * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, STRETCHED)
    return _resampled(line, LENGTH)


def _resampled(line: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return a line at other even distances."""
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(line)), line)
