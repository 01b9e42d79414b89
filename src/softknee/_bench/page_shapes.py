"""Figures of what training does to activations: their curves and their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from softknee._bench.page_tables import done_runs, drawn_runs
from softknee._report.lines import Axes, Band, Series, line_chart
from softknee._report.page import Figure, Gallery, Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._bench.study_files import Run, StudyFiles
    from softknee._bench.tables import CellTable

# Curves are cut here, so that exponentials and lines share a scale.
CURVE_RANGE = (-5.0, 5.0)
# Sites take turns with the other colours, and every second one is dashed.
BEFORE = 6


class Look(TypedDict):
    """How the lines of a site look, as arguments of `Series`."""

    hue: int
    dashed: bool


def shape_gallery(files: StudyFiles, table: CellTable) -> Gallery:
    """Return every activation's curve before training, and after it where it was trained; by rank."""
    cell = table.cell.name
    figures = []
    for label in table.order:
        curve = files.manifest["curves"].get(label)
        series = _trained_shapes(done_runs(files, cell, label))
        if curve:
            series.append(Series("before training", curve["x"], curve["y"], BEFORE))
        if series:
            values = [value for item in series for value in item.y if value is not None]
            picture = line_chart(
                series,
                title=f"Curve of {label}",
                description="The function before training, and after it at every site where it was trained.",
                axes=Axes(y=_curve_range(values), zero=True),
            )
            figures.append(Figure(picture, label))
    sites = _sites(files, cell)
    return Gallery(figures, [Key("before training", f"main hue-{BEFORE}"), *map(_site_key, sites)])


def trajectory_gallery(files: StudyFiles, table: CellTable) -> Gallery:
    """Return how every trainable parameter moved: a panel for scalars at all sites, one a site for vectors."""
    figures = []
    for label in table.order:
        runs = done_runs(files, table.cell.name, label)
        for name, entries in _by_parameter(runs).items():
            scalars = [site for site, found in entries.items() if _is_scalar(found)]
            vectors = [site for site in entries if site not in scalars]
            if scalars:
                series = [item for site in scalars for item in _scalar_series(site, entries[site])]
                figures.append(_trajectory_figure(label, name, series, []))
            for site in vectors:
                series, bands = _vector_series(entries[site])
                figures.append(_trajectory_figure(label, f"{site}.{name}", series, bands))
    return Gallery(
        figures, [Key("thick: mean over seeds; thin: one seed", ""), *map(_site_key, _sites(files, table.cell.name))]
    )


def _trained_shapes(runs: Sequence[Run]) -> list[Series]:
    return [
        Series(f"{site} after training, seed {run.seed}", shape["x"], shape["after"], **_look(site), weight="thin")
        for run in drawn_runs(runs)
        for site, shape in (run.get("shapes") or {}).items()
    ]


def _curve_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range the curve needs, within what all curves are cut to."""
    low, high = (min(max(end, CURVE_RANGE[0]), CURVE_RANGE[1]) for end in (min(values), max(values)))
    return (low - 0.15, high + 0.15) if high > low else (low - 1, low + 1)


def _sites(files: StudyFiles, cell: str) -> list[str]:
    runs = [run for run in files.runs if run.done and run.cell == cell]
    return sorted({site for run in runs for site in run.get("shapes") or {}}, key=_depth)


def _site_key(site: str) -> Key:
    look = _look(site)
    return Key(site, f"main hue-{look['hue']}" + (" dashed" if look["dashed"] else ""))


def _look(site: str) -> Look:
    """Return a site's colour and dash, by its number, so that the same depth always looks the same."""
    return Look(hue=_depth(site) % BEFORE, dashed=_depth(site) % 2 == 1)


def _depth(site: str) -> int:
    digits = "".join(character for character in site if character.isdigit())
    return int(digits or 0)


def _by_parameter(runs: Sequence[Run]) -> dict[str, dict[str, list[tuple[Run, Mapping[str, Any]]]]]:
    """Group recorded trajectories by parameter name, then by site."""
    found: dict[str, dict[str, list[tuple[Run, Mapping[str, Any]]]]] = {}
    for run in runs:
        for path, trajectory in (run.get("trajectories") or {}).items():
            site, _, name = path.rpartition(".")
            found.setdefault(name, {}).setdefault(site, []).append((run, trajectory))
    return found


def _is_scalar(found: Sequence[tuple[Run, Mapping[str, Any]]]) -> bool:
    return all(not trajectory["summary"] and len(trajectory["values"][0]) == 1 for _, trajectory in found)


def _scalar_series(site: str, found: Sequence[tuple[Run, Mapping[str, Any]]]) -> list[Series]:
    lines = {run.seed: [value for (value,) in trajectory["values"]] for run, trajectory in found}
    values = np.array(list(lines.values()))
    epochs = [float(epoch) for epoch in range(values.shape[1])]
    thin = [
        Series(f"{site}, seed {run.seed}", epochs, lines[run.seed], **_look(site), weight="thin")
        for run in drawn_runs([run for run, _ in found])
    ]
    return [*thin, Series(f"{site}, mean", epochs, values.mean(axis=0).tolist(), **_look(site))]


def _vector_series(found: Sequence[tuple[Run, Mapping[str, Any]]]) -> tuple[list[Series], list[Band]]:
    """Return the entries of the first seed (those of others started elsewhere), or quartiles averaged over seeds."""
    run, first = found[0]
    epochs = [float(epoch) for epoch in range(len(first["values"]))]
    if not first["summary"]:
        columns = np.array(first["values"]).T.tolist()
        return [Series(f"entry {i}, seed {run.seed}", epochs, column, i) for i, column in enumerate(columns)], []
    low, early, median, late, high = np.mean([item["values"] for _, item in found], axis=0).T.tolist()
    bands = [Band("smallest to largest", epochs, low, high), Band("middle half", epochs, early, late)]
    return [Series("median", epochs, median)], bands


def _trajectory_figure(label: str, parameter: str, series: Sequence[Series], bands: Sequence[Band]) -> Figure:
    picture = line_chart(
        series,
        title=f"{parameter} of {label}",
        description="A trainable parameter by epoch; epoch 0 is before training.",
        axes=Axes(x="epoch", whole=True),
        bands=bands,
    )
    return Figure(picture, f"{parameter} · {label}")
