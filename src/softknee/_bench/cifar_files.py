"""One file of CIFAR, in either published form, as images and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from softknee._bench.pickled import read_pickled
from softknee._errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


def read_records(stream: bytes, path: Path, *, header: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decode a file of the binary form: records of labels and pixels, one behind another.

    Args:
        stream: The file.
        path: Where it is from, for messages.
        header: Labels of a record, a byte each: 1 for CIFAR-10, 2 for CIFAR-100, coarse then fine. The last is taken.

    Returns:
        Images `(n, 3, 32, 32)` and labels `(n,)`.

    Raises:
        DataError: The file is empty or not made of whole records.
    """
    size = header + PIXELS
    if not stream or len(stream) % size:
        raise DataError(f"{path}: expected records of {size:,} bytes, got {len(stream):,} bytes in all")
    records = np.frombuffer(stream, np.uint8).reshape(-1, size)
    return records[:, header:].reshape(-1, *SHAPE), records[:, header - 1]


def read_batch(stream: bytes, path: Path, *, key: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Decode a file of the pickled form, a dictionary with `data` and labels, without unpickling arbitrary objects.

    Args:
        stream: The file.
        path: Where it is from, for messages.
        key: Of the labels: `b"labels"` for CIFAR-10, `b"fine_labels"` for CIFAR-100.

    Returns:
        Images `(n, 3, 32, 32)` and labels `(n,)`.

    Raises:
        DataError: As `read_pickled`, or the dictionary lacks the pixels or a label of 0 to 255 for each image.
    """
    batch = read_pickled(stream, path)
    pixels, labels = batch.get(b"data"), batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.shape[1] != PIXELS:
        raise DataError(f"{path}: expected data of {PIXELS:,} bytes an image, got {getattr(pixels, 'shape', pixels)}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        got = f"{len(labels):,}" if isinstance(labels, list) else "none"
        raise DataError(f"{path}: expected {key.decode()} for {len(pixels):,} images, got {got}")
    strange = [label for label in labels if not isinstance(label, int) or not 0 <= label <= 255]
    if strange:
        raise DataError(f"{path}: expected {key.decode()} of 0 to 255, got {strange[0]!r}")
    return pixels.reshape(-1, *SHAPE), np.array(labels, np.uint8)
