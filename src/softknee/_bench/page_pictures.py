"""Figures of what models learned, over the domain of a generated task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._bench.page_tables import done_runs
from softknee._report.field import field
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Figure, Gallery, Key
from softknee._report.svg import padded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.study_files import Run, StudyFiles
    from softknee._bench.tables import CellTable
    from softknee._report.svg import Svg

FITTED, TARGET = 0, 6
CONTOURS = 5


def picture_galleries(files: StudyFiles, table: CellTable) -> list[Gallery]:
    """Return what each activation's model learned at the first seed it finished, by rank, beside the right answer."""
    picture: Mapping[str, Any] | None = files.manifest.get("picture")
    runs = [(label, run) for label in table.order for run in done_runs(files, table.cell.name, label)[:1]]
    shown = [(label, run, _caption(label, run, files.metric)) for label, run in runs if run.get("drawn")]
    if picture is None or not shown:
        return []
    if len(picture["axes"]) == 1:
        legend = [Key("the function", f"main hue-{TARGET}"), Key("the model", f"main hue-{FITTED}")]
        return [Gallery([Figure(_curve(picture, label, run), caption) for label, run, caption in shown], legend)]
    answer: Sequence[float] = picture["target"]
    heights = min(answer), max(answer)
    target = Figure(_map(picture, answer, "the right answer", heights), "the right answer", name=False)
    maps = [Figure(_map(picture, run.get("drawn"), label, heights), caption) for label, run, caption in shown]
    galleries = [Gallery([target, *maps])]
    if "classes" not in picture:
        galleries.append(_errors(picture, [(label, run) for label, run, _ in shown]))
    return galleries


def _errors(picture: Mapping[str, Any], runs: Sequence[tuple[str, Run]]) -> Gallery:
    """Draw the errors of all models in the same colours."""
    errors = [
        [
            None if value is None else value - right
            for value, right in zip(run.get("drawn"), picture["target"], strict=True)
        ]
        for _, run in runs
    ]
    largest = max((abs(value) for error in errors for value in error if value is not None), default=1.0)
    return Gallery(
        [
            Figure(_error(picture, error, label, (-largest, largest)), f"error of {label} · seed {run.seed}")
            for error, (label, run) in zip(errors, runs, strict=True)
        ]
    )


def _caption(label: str, run: Run, metric: Metric) -> str:
    return f"{label} · seed {run.seed} · {metric.value(run.last(metric.test))} {metric.sign}".rstrip()


def _curve(picture: Mapping[str, Any], label: str, run: Run) -> Svg:
    """Draw the function and what was learned of it."""
    number = picture["points"]
    step = (picture["high"] - picture["low"]) / (number - 1)
    x = [picture["low"] + step * index for index in range(number)]
    target, fitted = picture["target"], run.get("drawn")
    return line_chart(
        [Series("the function", x, target, TARGET), Series(f"{label}, seed {run.seed}", x, fitted, FITTED)],
        title=f"What {label} learned",
        description="The function and the model's output over the interval.",
        axes=Axes(x=picture["axes"][0], y=padded(target)),
    )


def _map(picture: Mapping[str, Any], values: Sequence[float | None], name: str, heights: tuple[float, float]) -> Svg:
    """Draw a function of the square, or classes and the middles of the Gaussians."""
    classes = picture.get("classes")
    what = "The class at each point" if classes else "The value at each point"
    return field(
        _rows(picture, values),
        title=f"Domain: {name}",
        description=f"{what} of the domain.",
        **_axes(picture),
        palette="size" if classes else "sign",
        heights=heights,
        contours=0 if classes else CONTOURS,
        points=[(x, y, text) for x, y, text in picture.get("marks", ())],
    )


def _error(picture: Mapping[str, Any], error: Sequence[float | None], label: str, heights: tuple[float, float]) -> Svg:
    return field(
        _rows(picture, error),
        title=f"Error of {label}",
        description="What the model gives, less the value of the function, at each point of the domain.",
        **_axes(picture),
        palette="sign",
        heights=heights,
    )


def _axes(picture: Mapping[str, Any]) -> dict[str, Any]:
    ends = (picture["low"], picture["high"])
    return {"x": ends, "y": ends, "names": tuple(picture["axes"])}


def _rows(picture: Mapping[str, Any], values: Sequence[float | None]) -> list[Sequence[float | None]]:
    number = picture["points"]
    return [values[start : start + number] for start in range(0, number**2, number)]
