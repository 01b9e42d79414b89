"""A study's figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._bench.page_tables import SIGNS, done_runs, drawn_runs, kind_of, pairing
from softknee._report.forest import Slope, Span, forest, slopes
from softknee._report.heatmap import heatmap
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Figure, Gallery, Key
from softknee._report.svg import focus, padded
from softknee._report.table import ABSENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._bench.metric import Metric
    from softknee._bench.study_files import Run, StudyFiles
    from softknee._bench.tables import CellTable, Row

TEST, TRAIN, REFERENCE = 0, 1, 6


def condition_slopes(files: StudyFiles, tables: Sequence[CellTable]) -> Gallery:
    """Return one line for each activation through all conditions."""
    paths = [
        Slope(
            label,
            [table.row(label).mean for table in tables],
            hue=index,
            quiet=label in files.unmatched,
        )
        for index, label in enumerate(files.activations)
    ]
    columns = [table.cell.title.replace(", ", ",\n", 1) for table in tables]
    picture = slopes(
        columns,
        paths,
        title=f"{files.metric.capital} through the conditions",
        description=f"Mean {files.part} {files.metric.axis} of every activation under every condition, one line each.",
    )
    legend = [Key("no valid match", "main hue-6 quiet")] if files.unmatched else []
    return Gallery([Figure(picture)], legend, wide=True)


def difference_gallery(files: StudyFiles, tables: Sequence[CellTable]) -> Gallery:
    """Return a forest plot of the differences to the reference for each condition."""
    several = len(tables) > 1
    figures = [
        Figure(
            forest(
                [_span(row, files.metric, brief=several) for row in sorted(table.rows, key=_by_difference)],
                margin=files.margin,
                title=f"Differences to {files.reference}: {table.cell.title}",
                description=f"Mean {pairing(files)} difference in {files.part} {files.metric.title} with its 95 % "
                "interval, one row an activation.",
                unit=f"{files.metric.unit} against {files.reference}",
                width=490 if several else 820,
                note_width=95 if several else 150,
                label_width=150 if several else 180,
            ),
            table.cell.title if several else "",
            name=False,
        )
        for table in tables
    ]
    return Gallery(figures, wide=not several)


def tuning_gallery(files: StudyFiles) -> Gallery:
    """Return validation accuracy against learning rate for each activation and initialization."""
    metric = files.metric
    scores = [t[metric.name] for s in files.manifest["tuning"] for t in s["trials"] if t[metric.name] is not None]
    y = padded(scores)
    foot = y[0] + 0.04 * (y[1] - y[0])
    figures = []
    for label in files.activations:
        searches = [s for s in files.manifest["tuning"] if s["activation"] == label and s["trials"]]
        series = [item for hue, search in enumerate(searches) for item in _tuning_series(search, metric, hue, foot)]
        if series:
            rates = [trial["learning_rate"] for search in searches for trial in search["trials"]]
            powers = range(math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates))) + 1)
            axes = Axes(x="learning rate", y=y, x_ticks=tuple((float(power), f"{10.0**power:g}") for power in powers))
            picture = line_chart(
                series,
                title=f"Learning rates of {label}",
                description=f"Validation {metric.axis} against the learning rate, one line an initialization.",
                axes=axes,
            )
            figures.append(Figure(picture, label))
    names = list(dict.fromkeys(search["initialization"] for search in files.manifest["tuning"]))
    return Gallery(
        figures,
        [
            Key(f"{name} initialization", f"main hue-{hue}" + (" dashed" if hue else ""))
            for hue, name in enumerate(names)
        ],
    )


def learning_galleries(files: StudyFiles, table: CellTable) -> list[Gallery]:
    """Return score and loss against the epoch, a panel for each activation by rank, on common axes."""
    cell, metric = table.cell.name, files.metric
    legend = [
        Key("test", f"main hue-{TEST}"),
        Key("training", f"main hue-{TRAIN} dashed"),
        Key("one seed", f"thin hue-{TEST}"),
        Key(f"test, {files.reference}", f"main hue-{REFERENCE}"),
    ]
    galleries = []
    for field, name in ((metric.name, metric.axis), ("loss", f"loss ({metric.loss})")):
        values = [v for run in files.runs if run.done and run.cell == cell for v in _both(run, field)]
        # A single spike of what has no bounds may leave the panel; no accuracy may.
        shown = values if field == "accuracy" else focus(values)
        axes = Axes(x="epoch", y=padded(shown, share=0.04), whole=True)
        figures = []
        for label in table.order:
            series = _learning_series(files.of(cell, label), field)
            if series:
                if label != files.reference:
                    series = [*_reference_series(files, cell, field), *series]
                picture = line_chart(
                    series,
                    title=f"{name} of {label}",
                    description=f"Test and training {name} by epoch, seeds and their mean.",
                    axes=axes,
                )
                figures.append(Figure(picture, label))
        if figures:
            galleries.append(Gallery(figures, [Key(f"{name}:", ""), *legend]))
    return galleries


def confusion_gallery(files: StudyFiles, table: CellTable) -> Gallery:
    """Return the mean confusion matrix of every activation, by rank."""
    figures = []
    for label in table.order:
        runs = done_runs(files, table.cell.name, label)
        if runs and runs[0].get("confusion"):
            counts = np.mean([run.get("confusion") for run in runs], axis=0)
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            picture = heatmap(
                runs[0].get("classes"),
                shares.tolist(),
                title=f"Confusion matrix of {label}",
                description="Share of every true class (rows) that was taken for every class (columns), in percent.",
            )
            figures.append(Figure(picture, label))
    return Gallery(figures, [Key("right", "swatch right"), Key("wrong", "swatch wrong")])


def _span(row: Row, metric: Metric, *, brief: bool) -> Span:
    if row.verdict == "reference":
        return Span(row.activation, 0.0, None, None, "reference", "reference")
    if row.difference is None:
        return Span(row.activation, None, None, None, f"{ABSENT} {row.verdict}", kind_of(row.verdict))
    note = f"{metric.change(row.difference)} {SIGNS[row.verdict]}" + ("" if brief else f" {row.verdict}")
    return Span(row.activation, row.difference, row.difference_low, row.difference_high, note, kind_of(row.verdict))


def _by_difference(row: Row) -> float:
    if row.verdict == "reference":
        return 0.0
    return math.inf if row.difference is None else -row.difference


def _tuning_series(search: dict[str, Any], metric: Metric, hue: int, foot: float) -> list[Series]:
    """Return the line through the trials, its dots, the chosen one, and those that diverged at the foot."""
    trials = sorted(search["trials"], key=lambda trial: trial["learning_rate"])
    x = [math.log10(trial["learning_rate"]) for trial in trials]
    y = [trial[metric.name] for trial in trials]
    name = f"{search['initialization']} initialization"
    series = [Series(name, x, y, hue, dashed=hue > 0), Series(name, x, y, hue, "dots")]
    chosen = [(a, b) for a, b, trial in zip(x, y, trials, strict=True) if trial["learning_rate"] == search["chosen"]]
    if chosen:
        edge = ", at the edge of the rates tried" if search["at_edge"] else ""
        label = f"{name}: chosen rate {search['chosen']:g}{edge}"
        series.append(Series(label, [a for a, _ in chosen], [b for _, b in chosen], hue, "ring"))
    lost = [a for a, b in zip(x, y, strict=True) if b is None]
    if lost:
        series.append(Series(f"{name}: diverged", lost, [foot] * len(lost), hue, "cross"))
    return series


def _both(run: Run, field: str) -> list[float]:
    return [*run.get(f"test_{field}"), *run.get(f"train_{field}")]


def _learning_series(runs: Sequence[Run], field: str) -> list[Series]:
    series = []
    for part, hue in (("train", TRAIN), ("test", TEST)):
        curves = [(run, run.get(f"{part}_{field}") or []) for run in runs]
        for run in drawn_runs(runs):
            values = run.get(f"{part}_{field}")
            if values:
                end = "" if run.done else f" ({run.status})"
                label = f"seed {run.seed}, {part}{end}"
                series.append(Series(label, _epochs(values), values, hue, "thin", dashed=part == "train"))
        done = [values for run, values in curves if run.done]
        if done:
            mean = np.mean(done, axis=0).tolist()
            series.append(Series(f"mean, {part}", _epochs(mean), mean, hue, dashed=part == "train"))
    return series


def _reference_series(files: StudyFiles, cell: str, field: str) -> list[Series]:
    curves = [run.get(f"test_{field}") for run in done_runs(files, cell, files.reference)]
    if not curves:
        return []
    mean = np.mean(curves, axis=0).tolist()
    return [Series(f"{files.reference}, mean, test", _epochs(mean), mean, REFERENCE)]


def _epochs(values: Sequence[float]) -> list[float]:
    return [float(epoch) for epoch in range(1, len(values) + 1)]
