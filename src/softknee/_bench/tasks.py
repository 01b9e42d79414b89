"""The tasks there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import torch

from softknee._bench import data
from softknee._bench.colour import ColourImages
from softknee._bench.digits import Digits
from softknee._bench.domain import Domain
from softknee._bench.examples import Tensors
from softknee._bench.generated import Mixture, Regression, bends, sines
from softknee._bench.metric import METRICS
from softknee._bench.mnist1d import MNIST1D
from softknee._bench.poisson import Poisson, forcing, solution
from softknee._bench.tabular import BreastCancer
from softknee._bench.task import Facts, Task
from softknee._bench.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from softknee._bench.examples import Examples
    from softknee._bench.runs import Split

ACCURACY, R2, SAVING = METRICS["accuracy"], METRICS["r2"], METRICS["saving"]


@dataclass(frozen=True)
class FashionMNIST(Task):
    """Fashion-MNIST, from wherever `data.load` finds it."""

    given: ClassVar[bool] = True

    def source(self, asked: str | Path | None) -> str:
        """Return where the data come from: the embedded part by default; folders as full paths."""
        source = "mini" if asked is None else str(asked)
        return source if source in {"mini", "full"} else str(Path(source).resolve())

    def facts(self, source: str) -> Facts:
        """Return the name, checksum and sizes of the data."""
        images = data.load(source)
        return Facts(images.name, images.fingerprint, len(images.train_labels), len(images.test_labels))

    def load(self, source: str, split: Split) -> Tensors:
        """Return the images as `(n, 784)` in [-1, 1]: pixels become `(p / 255 - 0.5) / 0.5`."""
        images = data.load(source) if split == "test" else data.load(source).validation()
        return Tensors(
            fingerprint=images.fingerprint,
            train_inputs=_normalize(images.train_images),
            train_labels=torch.tensor(images.train_labels, dtype=torch.int64),
            test_inputs=_normalize(images.test_images),
            test_targets=torch.tensor(images.test_labels, dtype=torch.int64),
            classes=data.CLASSES,
        )


FASHION = FashionMNIST("fashion-mnist", ACCURACY)

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            FASHION,
            ColourImages("cifar10", ACCURACY, images="cifar10"),
            ColourImages("cifar100", ACCURACY, images="cifar100"),
            ColourImages("fashion-rgb", ACCURACY, images="fashion-mnist"),
            Digits("digits", ACCURACY),
            MNIST1D("mnist1d", ACCURACY),
            BreastCancer("breast-cancer", ACCURACY),
            Text("text", SAVING, context=64, windows=512),
            Mixture(
                "gmm-2d",
                ACCURACY,
                components=10,
                classes=5,
                seed=7,
                train=2000,
                test=5000,
                domain=Domain(("x1", "x2"), -1.5, 1.5, 81),
            ),
            Regression(
                "regression-1d",
                R2,
                formula="sin(2 x) / 2 + (|x + 1.6| - 2 |x - 0.2| + |x - 2|) / 6 + sin(9 x) / 3",
                function=bends,
                domain=Domain(("x",), -3.0, 3.0, 301),
                grid=1001,
            ),
            Regression(
                "regression-2d",
                R2,
                formula="0.4 sin(9 x1 - 7 x2) + 0.1 sin(-9 x1 + 11 x2) + 0.15 sin(3 x1 + 13 x2) + "
                "0.15 sin(9 x1 + 9 x2) + 0.1 sin(13 x1 + 5 x2) + 0.1 sin(3 x1 + 19 x2)",
                function=sines,
                domain=Domain(("x1", "x2"), -1.0, 1.0, 51),
                grid=101,
            ),
            Poisson(
                "poisson",
                R2,
                formula="sin(pi x1) sin(pi x2) + sin(4 pi x1) sin(3 pi x2) / 2",
                function=solution,
                domain=Domain(("x1", "x2"), 0.0, 1.0, 51),
                grid=101,
                right=forcing,
            ),
        )
    }
)


@lru_cache(maxsize=2)
def load_tensors(source: str, split: Split, task: str = FASHION.name) -> Examples:
    """Load the data of a task once a process.

    Args:
        source: As the task's `source` returns it.
        split: As in `Task.load`.
        task: Its name.

    Returns:
        The data.

    Raises:
        DataError: As `Task.load`.
    """
    return TASKS[task].load(source, split)


def _normalize(images: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(images).flatten(1).float().div_(255).sub_(0.5).div_(0.5)
