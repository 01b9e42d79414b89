"""The sets of images there are, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._bench import cifar, data
from softknee._bench.cifar_sets import SETS
from softknee._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from softknee._bench.data import ImageData

FASHION = "fashion-mnist"
NAMES = (FASHION, *SETS)


def load_images(name: str, source: str = "full") -> ImageData:
    """Load and verify a set of images.

    Args:
        name: `"fashion-mnist"`, `"cifar10"` or `"cifar100"`.
        source: `"full"`, for Fashion-MNIST also `"mini"`, or a folder; see `softknee._bench.data.load` and
            `softknee._bench.cifar.load`.

    Returns:
        The images and labels.

    Raises:
        UsageError: No set goes by the name.
        DataError: The set is missing or damaged.
    """
    if name == FASHION:
        return data.load(source)
    if name in SETS:
        return cifar.load(SETS[name], source)
    raise UsageError(f"no set of images is called {name!r}; there are {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
