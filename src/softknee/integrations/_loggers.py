"""Where results go: anything with a method `log`, and a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from softknee._report.plain import plain

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from softknee._diagnose.units.histogram import Histogram


class Logger(Protocol):
    """Takes the results of recorded steps."""

    def log(self, values: Mapping[str, float | Histogram], step: int) -> None:
        """Take the results of a step.

        Args:
            values: Numbers and histograms by their tags.
            step: Number of the step.
        """


class JsonLines:
    """Appends one line of JSON for each recorded step: `{"step": 50, "activations/...": ...}`.

    A histogram is an object with the fields of `Histogram`, and a number that is not finite is null.

    Args:
        path: The file; its folder is made if it is missing. What is already there is kept.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def log(self, values: Mapping[str, float | Histogram], step: int) -> None:
        """Append a line.

        Args:
            values: Numbers and histograms by their tags.
            step: Number of the step.
        """
        line = json.dumps({"step": step, **plain(values)}, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
