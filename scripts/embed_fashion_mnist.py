"""Make the embedded subset: the first 1,000 training and 200 test images of each class, in file order.

Usage: python scripts/embed_fashion_mnist.py FOLDER   (a folder with the four files of Fashion-MNIST)
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np

from softknee._bench.data import EMBEDDED, FILES, read_idx, unpack

PER_CLASS = {"train": 1000, "t10k": 200}


def main(folder: str) -> None:
    """Write the four xz-packed files of the subset."""
    EMBEDDED.mkdir(exist_ok=True)
    for images, labels in (FILES[:2], FILES[2:]):
        pixels, classes = (read_idx(unpack(Path(folder), name)[1]) for name in (images, labels))
        per_class = PER_CLASS[images.partition("-")[0]]
        keep = np.sort(np.concatenate([np.flatnonzero(classes == c)[:per_class] for c in range(10)]))
        for name, values in ((images, pixels[keep]), (labels, classes[keep])):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            packed = lzma.compress(header + values.tobytes(), preset=9 | lzma.PRESET_EXTREME)
            (EMBEDDED / f"{name}.xz").write_bytes(packed)


if __name__ == "__main__":
    main(sys.argv[1])
