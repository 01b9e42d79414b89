"""What a task is: where its data come from, and what it is scored by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from softknee._bench.examples import Examples
    from softknee._bench.metric import Metric
    from softknee._bench.runs import Split

# Where data come from that no user can replace, and how a message says so.
GENERATED, EMBEDDED = "generated", "embedded"
_OWN: Mapping[str, str] = MappingProxyType({GENERATED: "makes its data itself", EMBEDDED: "ships with softknee"})


@dataclass(frozen=True)
class Facts:
    """What a study writes down about its data.

    Attributes:
        name: Of their source.
        fingerprint: SHA-256 of the data, or of what defines them.
        train: Number of examples to train on; None where they never run out.
        test: Number of examples to evaluate on.
        about: What they are, where that does not follow from their source.
    """

    name: str
    fingerprint: str
    train: int | None
    test: int
    about: str = ""


@dataclass(frozen=True)
class Task(ABC):
    """Something to learn.

    Attributes:
        name: What recipes call it.
        metric: What runs are ranked by.
        given: Whether a user can say where the data come from.
        origin: Where they come from else: `"generated"`, or `"embedded"` in this package.
    """

    given: ClassVar[bool] = False
    origin: ClassVar[str] = GENERATED

    name: str
    metric: Metric

    def source(self, asked: str | Path | None) -> str:
        """Return where the data come from, as the other methods take it; here that is the task's `origin`.

        Args:
            asked: What the user gave.

        Returns:
            The source.

        Raises:
            UsageError: Something was given.
        """
        if asked is not None:
            raise UsageError(f"{self.name} {_OWN[self.origin]}; leave data out, got {str(asked)!r}")
        return self.origin

    @abstractmethod
    def facts(self, source: str) -> Facts:
        """Return what a study writes down about the data.

        Args:
            source: From `source`.

        Raises:
            DataError: The data are missing or damaged.
        """

    @abstractmethod
    def load(self, source: str, split: Split) -> Examples:
        """Return the data as tensors.

        Args:
            source: From `source`.
            split: Evaluate on the test part, or on a part held out of the training part.

        Raises:
            DataError: The data are missing or damaged, or have no such part.
        """

    def picture(self) -> dict[str, Any] | None:
        """Return the domain and the right answer on it, for the report; None where there is no picture to draw."""
        return None
