"""The public protocol's tasks: images of 32 x 32 in three channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import torch

from softknee._bench.image_sets import load_images
from softknee._bench.images import Images, resized
from softknee._bench.task import Facts, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._bench.images import Pixels
    from softknee._bench.runs import Split

# Held out where the protocol is iterated on.
HELD_OUT = 5000
SIDE = 32

# Of each channel. The smaller deviations of CIFAR-10, which many use, are means over images of each image's own; those
# of Fashion-MNIST are of its images as they were published, 28 x 28.
CONSTANTS: Mapping[str, Mapping[str, tuple[Pixels, Pixels]]] = MappingProxyType(
    {
        "cifar10": {
            "exact": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            "common": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        },
        "cifar100": {"exact": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))},
        "fashion-mnist": {"exact": ((0.2860,), (0.3530,))},
    }
)


@dataclass(frozen=True)
class ColourImages(Task):
    """A set of images, grey ones in three channels alike and resized.

    Attributes:
        images: Name of the set.
        default: Where it comes from unless the user says something else.
    """

    given: ClassVar[bool] = True

    images: str
    default: str = "full"

    def source(self, asked: str | Path | None) -> str:
        """Return where the data come from; folders as full paths."""
        source = self.default if asked is None else str(asked)
        return source if source in {"mini", "full"} else str(Path(source).resolve())

    def facts(self, source: str) -> Facts:
        """Return the name, checksum and sizes of the data."""
        found = load_images(self.images, source)
        return Facts(found.name, found.fingerprint, len(found.train_labels), len(found.test_labels))

    def load(self, source: str, split: Split) -> Images:
        """Return the images as bytes, `(n, 1 or 3, 32, 32)`; the part held out is 5,000, or a tenth of fewer."""
        found = load_images(self.images, source)
        if split != "test":
            found = found.validation(min(HELD_OUT / len(found.train_labels), 0.1))
        return Images(
            fingerprint=found.fingerprint,
            train_inputs=_square(torch.tensor(found.train_images)),
            train_labels=torch.tensor(found.train_labels, dtype=torch.int64),
            test_inputs=_square(torch.tensor(found.test_images)),
            test_targets=torch.tensor(found.test_labels, dtype=torch.int64),
            classes=found.classes,
            constants=CONSTANTS[self.images],
        )


def _square(images: torch.Tensor) -> torch.Tensor:
    return images if images.ndim > 3 else resized(images, SIDE)
