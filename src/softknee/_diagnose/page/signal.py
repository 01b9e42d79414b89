"""Signal and gradients against depth, theory beside measurement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import name_cell, number_cell, rough, short
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Figure, Fold, Gallery, Key, Measure, Note, Section
from softknee._report.ridge import Ridge, ridges
from softknee._report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._report.page import Block

    Layer = Mapping[str, Any]

_SIGNAL = (
    "q is the mean square of the pre-activations, the cosine is the mean over pairs of samples. Dots are measured, "
    "lines predicted from the first layer by mean-field theory, which assumes wide layers with independent weights."
)
_GRADIENTS = (
    "Of the mean loss over the whole sample, parameter by parameter. Histograms are in units of each tensor's own root "
    "mean square, on an axis that shows small values too."
)
_PHASES = (
    "Each layer by σ_w² = fan-in · Var W and the variance σ_b² of its bias. On the line χ = 1: below it gradients "
    "vanish, above it they explode."
)
_PLACES = (Key("He for ReLU", "main hue-4"), Key("PyTorch's default", "main hue-6"))
_LARGE = (340.0, 210.0)
# Tensors whose histograms are drawn; all of them are in the JSON.
_RIDGES = 32


def signal_section(data: Mapping[str, Any]) -> Section | None:
    """Return the section of the signal, None where it was not measured.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    signal = data["signal"]
    if not signal:
        return None
    blocks: list[Block] = []
    if signal.get("refused"):
        blocks.append(Note(f"Theory does not apply: {signal['refused']}"))
    layers = signal["layers"]
    if layers:
        phases = _phases(signal)
        legend = [Key("measured, dots", "main hue-0"), Key("theory", "main hue-1"), *(_PLACES if phases else ())]
        blocks += [Gallery([*_depth(layers), *phases], legend), *([Note(_PHASES)] if phases else ())]
        blocks.append(_gains(signal, data["method"].get("thresholds") or {}))
    return Section("signal", "Signal", _SIGNAL, blocks)


def signal_measures(data: Mapping[str, Any]) -> list[Measure]:
    """Return the large numbers of the signal."""
    product = (data["signal"] or {}).get("chi_product")
    return [] if product is None else [Measure(rough(product), "", "product of χ over the layers")]


def gradients_section(data: Mapping[str, Any]) -> Section | None:
    """Return the section of the gradients, None where they were not measured.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    gradients = data["gradients"]
    if not gradients or not gradients["layers"]:
        return None
    layers = gradients["layers"]
    weights = [one for one in layers if len(one["shape"]) > 1]
    blocks: list[Block] = [_norms(weights or layers)]
    for key, title in (("gradient", "Gradients"), ("weight", "Weights"), ("output", "Outputs")):
        found = [one for one in (weights if key != "output" else layers) if one[key] and one[key]["count"]]
        if found:
            blocks.append(Fold(f"{title}, layer by layer", [_ridges(found, key, title)], opened=key == "gradient"))
    blocks.append(Fold("All parameters", [_parameters(layers)]))
    return Section("gradients", "Gradients", _GRADIENTS, blocks)


def _depth(layers: Sequence[Layer]) -> list[Figure]:
    names = "Layers from the first to the last, counted from 1."
    figures = []
    for key, title, kind in (("q", "q against depth", "log"), ("cosine", "cosine against depth", "linear")):
        places = list(range(1, len(layers) + 1))
        measured = [one.get(key) for one in layers]
        theory = [one.get(f"{key}_theory") for one in layers]
        series = [Series("measured", places, measured, 0, "dots"), Series("theory", places, theory, 1)]
        axes = Axes(x="layer", whole=True, y_kind="log" if kind == "log" else "linear")
        picture = line_chart(
            series, title=title, description=f"{names} Dots measured, line theory.", axes=axes, size=_LARGE
        )
        figures.append(Figure(picture, title, name=False))
    ratios = [one.get("backward") for one in layers]
    chi = [one.get("chi") for one in layers]
    if any(one is not None for one in (*ratios, *chi)):
        places = list(range(1, len(layers) + 1))
        title = "ratio of squared gradients"
        series = [Series("measured", places, ratios, 0, "dots"), Series("χ by theory", places, chi, 1)]
        axes = Axes(x="layer", whole=True, y=_decades([*ratios, *chi]), y_kind="log")
        picture = line_chart(series, title=title, description=f"{names} χ = 1 keeps gradients.", axes=axes, size=_LARGE)
        figures.append(Figure(picture, title, name=False))
    return figures


def _phases(signal: Mapping[str, Any]) -> list[Figure]:
    """Return the layers in the plane of weights and biases, with the edge of chaos of each function."""
    layers = [one for one in signal["layers"] if one.get("sw2") is not None and one.get("sb2") is not None]
    if not layers:
        return []
    edges = signal.get("edges") or ()
    series = [Series(f"{edge['kind']}: edge of chaos", edge["sb2"], edge["sw2"], 1) for edge in edges]
    for one in layers:
        words = f"{one['layer']}: σ_w² {short(one['sw2'])}, σ_b² {short(one['sb2'])}"
        series.append(Series(words, [one["sb2"]], [one["sw2"]], 0, "dots"))
    series += [
        Series("He's initialization for ReLU", [0.0], [2.0], 4, "ring"),
        Series("PyTorch's default weights", [0.0], [1 / 3], 6, "ring"),
    ]
    far = max([1e-3, *(value for item in series for value in item.x)])
    picture = line_chart(
        series,
        title="Phase diagram",
        description="Each layer as a point: variance of weights against variance of biases, with the line of chi = 1.",
        axes=Axes(
            x="σ_b²",
            y=(0.0, max([2.2, *(1.1 * one["sw2"] for one in layers)])),
            y_name="σ_w²",
            x_ticks=tuple((part * far, short(part * far)) for part in (0.0, 0.5)),
        ),
        size=_LARGE,
    )
    return [Figure(picture, "phase diagram", name=False)]


def _gains(signal: Mapping[str, Any], limits: Mapping[str, float]) -> Table:
    limit = limits.get("gain_ratio", math.inf)
    columns = [
        Column("Layer", numeric=False),
        Column("Feeds", numeric=False, hint="the activation after it"),
        Column("σ_w", hint="sqrt(fan-in · Var W): the gain the weights have"),
        Column("Gain that fits", hint="forward gain of the activation before the layer"),
        Column("Ratio", hint="of the two; 1 keeps the mean square"),
        Column("χ", hint="σ_w² E[φ'²] at the q measured"),
        Column("Measured", hint="measured ratio of squared gradients"),
        Column("q"),
        Column("q, theory"),
        Column("Cosine"),
        Column("Cosine, theory"),
        Column("Kurtosis", hint="of the pre-activations; 3 for a Gaussian"),
        Column("Note", numeric=False),
    ]
    rows = [
        [
            name_cell(one["layer"]),
            Cell(one.get("site") or "", kind="code"),
            number_cell(one.get("gain")),
            number_cell(one.get("matched")),
            number_cell(one.get("ratio"), kind=_off(one.get("ratio"), limit)),
            *(number_cell(one.get(key)) for key in ("chi", "backward", "q", "q_theory", "cosine", "cosine_theory")),
            number_cell(one.get("kurtosis")),
            Cell(one.get("note") or "", kind="words"),
        ]
        for one in signal["layers"]
    ]
    return Table("Gains: your weights, and what the activation asks for", columns, rows, sortable=len(rows) > 1)


def _decades(values: Sequence[float | None]) -> tuple[float, float]:
    """Return powers of ten around positive values, and 1 among them."""
    there = [1.0, *(value for value in values if value and value > 0)]
    return 10.0 ** math.floor(math.log10(min(there)) - 0.01), 10.0 ** math.ceil(math.log10(max(there)) + 0.01)


def _off(ratio: float | None, limit: float) -> str:
    return "warning" if ratio and not 1 / limit <= ratio <= limit else ""


def _norms(layers: Sequence[Layer]) -> Gallery:
    places = list(range(1, len(layers) + 1))
    series = [
        Series("norm of the gradient", places, [one["gradient_norm"] for one in layers], 0),
        Series("norm of the gradient", places, [one["gradient_norm"] for one in layers], 0, "dots"),
        Series("norm of the weights", places, [one["weight_norm"] for one in layers], 6, "thin"),
    ]
    picture = line_chart(
        series,
        title="Norms against depth",
        description="Norm of the gradient and of the weights of each layer, in the order in which they run.",
        axes=Axes(x="layer", whole=True, y_kind="log"),
        size=_LARGE,
    )
    legend = [Key("gradient", "main hue-0"), Key("weights", "thin hue-6")]
    return Gallery([Figure(picture, "norms against depth", name=False)], legend)


def _ridges(layers: Sequence[Layer], key: str, title: str) -> Gallery:
    rows = [
        Ridge(one["path"], one[key]["edges"], one[key]["counts"], f"rms {short(one[key]['scale'], 2)}")
        for one in layers[:_RIDGES]
    ]
    picture = ridges(
        rows,
        title=f"{title}, layer by layer",
        description="One histogram a layer, in units of its own root mean square.",
        x="in units of the root mean square",
        kind="symlog",
        unit=0.1,
        width=760.0,
        label_width=210.0,
        note_width=100.0,
    )
    return Gallery([Figure(picture)], wide=True)


def _parameters(layers: Sequence[Layer]) -> Table:
    columns = [
        Column("Parameter", numeric=False),
        Column("Of", numeric=False),
        Column("Shape", numeric=False),
        Column("Norm"),
        Column("Gradient norm"),
        Column("Gradient rms"),
        Column("Gradient / weight", hint="norm of the gradient over that of the weights"),
        Column("Zero %", hint="entries of the gradient that are exactly 0"),
    ]
    rows = []
    for one in layers:
        gradient = one["gradient"] or {}
        zero = gradient.get("zero")
        rows.append(
            [
                name_cell(one["path"]),
                Cell(one["kind"]),
                Cell(" × ".join(map(str, one["shape"]))),
                *map(
                    number_cell, (one["weight_norm"], one["gradient_norm"], gradient.get("scale"), one.get("relative"))
                ),
                number_cell(None if zero is None else 100 * zero),
            ]
        )
    return Table("Parameters in the order in which they act", columns, rows, sortable=len(rows) > 1)
