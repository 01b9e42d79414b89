"""Parameters of trainable activations over a training, and their shapes: from a watch, or from a run of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._errors import DataError
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    import os

    from softknee._diagnose.units.watch import Watch

_RESULT = "result.json"
_SOURCES = "a softknee.watch, a file that it saved, or a folder of one run of `softknee bench` (runs/KEY)"


@dataclass(frozen=True)
class Trajectory:
    """One parameter over a training.

    Attributes:
        site: Name of the activation.
        parameter: Its name there.
        steps: At which it was noted: runs of the model, or epochs.
        values: For each step all values, or a summary of many: minimum, mean and maximum from a watch, minimum,
            quartiles and maximum from a study.
        summary: Whether it is a summary.
    """

    site: str
    parameter: str
    steps: tuple[int, ...]
    values: tuple[tuple[float | None, ...], ...]
    summary: bool

    @property
    def path(self) -> str:
        """Of the parameter in the model."""
        return f"{self.site}.{self.parameter}" if self.parameter else self.site


@dataclass(frozen=True)
class ShapeHistory:
    """An activation at several times of a training.

    Attributes:
        site: Name of the activation.
        x: Points.
        steps: At which it was noted.
        curves: Values at the points, for each step; the mean over the units where they differ.
    """

    site: str
    x: tuple[float, ...]
    steps: tuple[int, ...]
    curves: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Trajectories:
    """What became of the trainable activations.

    Attributes:
        unit: What steps count: `"step"` or `"epoch"`.
        parameters: Over the steps.
        shapes: At some of them.
    """

    unit: str
    parameters: tuple[Trajectory, ...]
    shapes: tuple[ShapeHistory, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: `trajectory` and `shapes` are as in a diagnosis."""
        return {
            "unit": self.unit,
            "parameters": [
                {
                    "site": one.site,
                    "parameter": one.parameter,
                    "path": one.path,
                    "summary": one.summary,
                    "trajectory": {"steps": list(one.steps), "values": [list(row) for row in one.values]},
                }
                for one in self.parameters
            ],
            "shapes": [
                {
                    "site": one.site,
                    "x": list(one.x),
                    "curves": [{"step": step, "y": list(y)} for step, y in zip(one.steps, one.curves, strict=True)],
                }
                for one in self.shapes
            ],
        }


def trajectories(source: Watch | Mapping[str, Any] | str | os.PathLike[str]) -> Trajectories:
    """Return what became of trainable activations in a training.

    Args:
        source: What `softknee.watch` saw, its `to_dict()` or a file that it saved; or a folder of one run of a study,
            or the `result.json` in it.

    Returns:
        Parameters and shapes; empty if nothing was trainable.

    Raises:
        DataError: The source is none of these, or cannot be read.
    """
    data = watched(source)
    if isinstance(data.get("trainable"), list):
        return _of_watch(data)
    if isinstance(data.get("trajectories"), Mapping) and isinstance(data.get("shapes"), Mapping):
        return _of_run(data)
    raise DataError(f"{excerpt(source)} has no trajectories; give {_SOURCES}")


def watched(source: Any) -> Mapping[str, Any]:
    """Return what was watched as plain data.

    Args:
        source: As in `trajectories`.

    Raises:
        DataError: It cannot be read.
    """
    if isinstance(source, Mapping):
        return source
    if hasattr(source, "to_dict"):
        found: Mapping[str, Any] = source.to_dict()
        return found
    try:
        path = Path(source)
    except TypeError as error:
        raise DataError(f"trajectories cannot be read from {excerpt(source)}; give {_SOURCES}") from error
    file = path / _RESULT if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; give {_SOURCES}") from error
    if not isinstance(data, dict):
        raise DataError(f"{file} holds no trajectories; give {_SOURCES}")
    return data


def _of_watch(data: Mapping[str, Any]) -> Trajectories:
    parameters = tuple(
        Trajectory(one["site"], one["parameter"], tuple(one["steps"]), _rows(one["values"]), one["summary"])
        for one in data["trainable"]
    )
    shapes = tuple(
        ShapeHistory(
            site,
            tuple(one["x"]),
            tuple(curve["step"] for curve in one["curves"]),
            _rows(curve["y"] for curve in one["curves"]),
        )
        for site, one in data["shapes"].items()
    )
    return Trajectories("step", parameters, shapes)


def _of_run(data: Mapping[str, Any]) -> Trajectories:
    parameters = []
    for path, one in data["trajectories"].items():
        site, _, parameter = path.rpartition(".")
        parameters.append(
            Trajectory(site, parameter, tuple(range(len(one["values"]))), _rows(one["values"]), one["summary"])
        )
    epochs = len(next(iter(data["trajectories"].values()))["values"]) - 1 if data["trajectories"] else 0
    shapes = tuple(
        ShapeHistory(site, tuple(one["x"]), (0, epochs), _rows([one["before"], one["after"]]))
        for site, one in data["shapes"].items()
    )
    return Trajectories("epoch", tuple(parameters), shapes)


def _rows(values: Any) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(row) for row in values)
