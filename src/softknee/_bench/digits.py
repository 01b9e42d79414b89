"""Handwritten digits of 8 x 8 pixels, which ship with softknee: the test part of the UCI repository's set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from softknee._bench.data import EMBEDDED, ImageData, read_idx, unpack, verify
from softknee._bench.examples import Tensors
from softknee._bench.task import Facts, Task
from softknee._errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

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

    def source(self, asked: str | Path | None) -> str:
        """Return where the data come from: this package.

        Args:
            asked: What the user gave.

        Returns:
            The source.

        Raises:
            UsageError: Something was given.
        """
        if asked is not None:
            raise UsageError(f"{self.name} ship with softknee; leave data out, got {str(asked)!r}")
        return "embedded"

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
            train_inputs=torch.tensor(images.train_images).flatten(1).float() / (BRIGHTEST / 2) - 1,
            train_labels=torch.tensor(images.train_labels, dtype=torch.int64),
            test_inputs=torch.tensor(images.test_images).flatten(1).float() / (BRIGHTEST / 2) - 1,
            test_targets=torch.tensor(images.test_labels, dtype=torch.int64),
            classes=tuple("0123456789"),
        )


@lru_cache(maxsize=1)
def load_digits() -> ImageData:
    """Return the images `(n, 8, 8)`, pixels from 0 to 16, and their labels.

    Raises:
        DataError: A file is missing or damaged.
    """
    digest = hashlib.sha256()
    arrays = []
    for file, (md5, size) in zip(FILES, SUMS, strict=True):
        path, stream = unpack(EMBEDDED, file)
        verify(path, stream, md5, size)
        digest.update(stream)
        arrays.append(read_idx(stream))
    images, labels = arrays
    return ImageData("embedded", digest.hexdigest(), images[:-TEST], labels[:-TEST], images[-TEST:], labels[-TEST:])
