"""Handwritten digits of 8 x 8 pixels, which ship with softknee: the test part of the UCI repository's set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch

from softknee._bench import data
from softknee._bench.data import ImageData
from softknee._bench.examples import Tensors
from softknee._bench.task import EMBEDDED, Facts, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from softknee._bench.runs import Split

FILES = ("digits-images-idx3-ubyte", "digits-labels-idx1-ubyte")
SUMS = (("a5adabccf8d3e2540826a202a7bfb422", 115_024), ("497796a0698e25d3920a9422b635bf34", 1_805))
# The last ones, which other people wrote than most of the first.
TEST = 500
# Pixels count the dark points of 4 x 4.
BRIGHTEST = 16


@dataclass(frozen=True)
class Digits(Task):
    """The 1,797 digits: the first ones to train on, the last 500 to evaluate on."""

    origin: ClassVar[str] = EMBEDDED

    def facts(self, source: str) -> Facts:
        """Return the checksum and sizes of the data."""
        images = load_digits()
        train, test = len(images.train_labels), len(images.test_labels)
        about = (
            f"Handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998, CC BY 4.0): the first {train:,} to train "
            f"on, the last {test:,} to evaluate on."
        )
        return Facts(source, images.fingerprint, train, test, about)

    def load(self, source: str, split: Split) -> Tensors:
        """Return the images as `(n, 64)` in [-1, 1]; the part held out is a sixth of each digit."""
        del source
        images = load_digits() if split == "test" else load_digits().validation()
        return Tensors(
            fingerprint=images.fingerprint,
            train_inputs=_scaled(images.train_images),
            train_labels=torch.tensor(images.train_labels, dtype=torch.int64),
            test_inputs=_scaled(images.test_images),
            test_targets=torch.tensor(images.test_labels, dtype=torch.int64),
            classes=tuple("0123456789"),
        )


@lru_cache(maxsize=1)
def load_digits() -> ImageData:
    """Return the images `(n, 8, 8)`, pixels from 0 to 16, and their labels.

    Raises:
        DataError: A file is missing or damaged.
    """
    fingerprint, (images, labels) = data.read_streams(data.EMBEDDED, FILES, SUMS)
    return ImageData(EMBEDDED, fingerprint, images[:-TEST], labels[:-TEST], images[-TEST:], labels[-TEST:])


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(images).flatten(1).float() / (BRIGHTEST / 2) - 1
