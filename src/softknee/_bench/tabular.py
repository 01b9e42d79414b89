"""A real table to classify, which ships with softknee: breast masses, benign or malignant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from softknee._bench import data
from softknee._bench.examples import Tensors
from softknee._bench.task import EMBEDDED, Facts, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softknee._bench.runs import Split

FILE = "breast-cancer.csv"
MD5, SIZE = "36ef90874abc87f4b4a8554dcc17cf6f", 119_913
SHA256 = "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"
CLASSES = ("malignant", "benign")
# Of each class, one row in three is evaluated on, and one in six of the others is held out.
TEST, HELD_OUT = 3, 6


@dataclass(frozen=True)
class BreastCancer(Task):
    """The 569 masses of the Wisconsin diagnostic table: 30 measurements of cell nuclei each."""

    origin: ClassVar[str] = EMBEDDED

    def facts(self, source: str) -> Facts:
        """Return the checksum and sizes of the data."""
        _, labels = read_table()
        test = int(_every(labels, TEST).sum())
        train = len(labels) - test
        about = (
            "Breast Cancer Wisconsin (Diagnostic), Wolberg, Mangasarian, Street and Street 1993, CC BY 4.0: 30 "
            f"measurements of {len(labels)} breast masses. One in three of each class is evaluated on, {test} of them; "
            f"the other {train} are there to train on, and each column is standardized by those."
        )
        return Facts(source, SHA256, train, test, about)

    def load(self, source: str, split: Split) -> Tensors:
        """Return the table as `(n, 30)`, each column with mean 0 and deviation 1 on the rows to train on."""
        del source
        rows, labels = read_table()
        tested = _every(labels, TEST)
        if split == "validation":
            rows, labels = rows[~tested], labels[~tested]
            tested = _every(labels, HELD_OUT)
        rows = (rows - rows[~tested].mean(0)) / rows[~tested].std(0)
        return Tensors(
            fingerprint=SHA256,
            train_inputs=torch.from_numpy(rows[~tested]).float(),
            train_labels=torch.from_numpy(labels[~tested]),
            test_inputs=torch.from_numpy(rows[tested]).float(),
            test_targets=torch.from_numpy(labels[tested]),
            classes=CLASSES,
        )


@lru_cache(maxsize=1)
def read_table() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the measurements `(569, 30)` and the classes, in the order of the file.

    Raises:
        DataError: The file is missing or damaged.
    """
    path, stream = data.unpack(data.EMBEDDED, FILE)
    data.verify(path, stream, MD5, SIZE)
    table = np.loadtxt(StringIO(stream.decode()), delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int64)


def _every(labels: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
    """Return a mask of the last of every `step` rows of each class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in range(len(CLASSES)):
        chosen[np.flatnonzero(labels == label)[step - 1 :: step]] = True
    return chosen
