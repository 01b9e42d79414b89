"""Curvature of the loss: spectrum, parts of its trace, landscape; and the tangent kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.place import place
from softknee._diagnose.page.words import interval, name_cell, number_cell, short
from softknee._report.field import field
from softknee._report.lines import Axes, Band, Series, line_chart
from softknee._report.page import Facts, Figure, Gallery, Note, Section
from softknee._report.surface import Surface
from softknee._report.table import ABSENT, Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from softknee._report.page import Block

_LEAD = (
    "The Hessian of the mean loss over a part of the sample, at the weights as they are. The Gauss-Newton part is what "
    "is left where the model is linear in its weights; the rest carries φ'' of the activations and products of layers."
)
_LANDSCAPE = (
    "The loss around the weights, along random directions whose filters have the norms of the filters of the weights "
    "(Li et al., arXiv 1712.09913). Two directions of many: a picture, not a measurement."
)
_LARGE = (340.0, 210.0)
# Residuals below this part of an eigenvalue are less than float32 knows of it, and are not shown.
_ROUNDING = 1e-6


def curvature_section(data: Mapping[str, Any]) -> Section | None:
    """Return the section of curvature and kernel, None where neither was measured.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    blocks: list[Block] = [*_curvature(data), *_landscape(data), *_kernel(data)]
    return Section("curvature", "Curvature and kernel", _LEAD, blocks) if blocks else None


def _curvature(data: Mapping[str, Any]) -> Iterator[Block]:
    found = data["curvature"]
    if not found:
        return
    ends = found["eigenvalues"]
    sharpness = found.get("sharpness") or {}
    momentum = sharpness.get("momentum")
    facts = [
        (
            "Largest",
            f"λ_max = {_end(ends, 'top')}: plain SGD is stable below a rate of {short(sharpness.get('lr_limit'))}",
        ),
        ("Smallest", f"λ_min = {_end(ends, 'bottom')}"),
        ("Trace", f"{interval(found['trace'])}, 95 %"),
        ("Frobenius", f"{interval(found['frobenius'])}, 95 %"),
        ("How", f"{found['method']}; {found['samples']:,} samples, {found['parameters']:,} parameters"),
    ]
    if momentum is not None:
        facts[0] = (
            facts[0][0],
            f"{facts[0][1]}, with momentum {momentum:g} below {short(sharpness['lr_limit_momentum'])}",
        )
    yield Facts(facts)
    if found.get("spectrum"):
        yield Gallery(_spectrum(found["spectrum"]))
    if found.get("split"):
        yield _split(data, found["split"])
    elif found.get("split_note"):
        yield Note(f"The trace was not split: {found['split_note']}.")


def _end(ends: Mapping[str, Any], name: str) -> str:
    value, residual = ends.get(name), ends.get(f"{name}_residual")
    known = value is None or residual is None or residual <= _ROUNDING * abs(value)
    return short(value, 4) + ("" if known else f" ± {short(residual, 2)}")


def _spectrum(spectrum: Mapping[str, Any]) -> list[Figure]:
    x = spectrum["x"]
    unit = spectrum.get("straight") or max(map(abs, x)) / 1000 or 1.0
    how = (
        "all eigenvalues"
        if spectrum.get("exact")
        else f"{spectrum['probes']} start vectors of {spectrum['steps']} steps"
    )
    tops = [value for value in spectrum["density"] if value and value > 0]
    floor = max(tops, default=1.0) * 1e-6
    # What lies far under the peaks is the tail of the smoothing.
    low, high, density = ([max(value or 0.0, floor) for value in spectrum[key]] for key in ("low", "high", "density"))
    axes = Axes(x="eigenvalue", x_kind="symlog", x_unit=unit, y_kind="log")
    picture = line_chart(
        [Series("density", x, density, 0)],
        title="Density of eigenvalues",
        description=f"Smoothed, from {how}; the band holds all of these.",
        axes=axes,
        bands=[Band("over start vectors", x, low, high, 0)],
        size=_LARGE,
    )
    share = line_chart(
        [Series("share below", x, spectrum["cumulative"], 0)],
        title="Share of eigenvalues below",
        description="Share of eigenvalues that are at most as large.",
        axes=Axes(x="eigenvalue", x_kind="symlog", x_unit=unit, y=(0.0, 1.0)),
        size=_LARGE,
    )
    return [
        Figure(picture, "density of eigenvalues", name=False),
        Figure(share, "share of eigenvalues below", name=False),
    ]


def _split(data: Mapping[str, Any], split: Mapping[str, Any]) -> Table:
    """Return the parts of the trace."""
    columns = [Column("Part of the trace", numeric=False), Column("Value"), Column("95 % interval")]
    named = [
        ("Gauss-Newton", split["gauss_newton"]),
        ("the rest", split["residual"]),
        ("of which φ'' of all activations", split["activation"]),
    ]
    rows = [[Cell(name), *_numbers(part)] for name, part in named if part]
    rows += [[name_cell(place(data, part["site"])), *_numbers(part)] for part in split.get("by_site") or ()]
    return Table("What the curvature comes from", columns, rows)


def _numbers(part: Mapping[str, Any]) -> list[Cell]:
    ends = ABSENT if part.get("low") is None else f"{short(part['low'])} to {short(part['high'])}"
    return [number_cell(part["value"]), Cell(ends)]


def _landscape(data: Mapping[str, Any]) -> Iterator[Block]:
    found = data["landscape"]
    if not found:
        return
    one, two = found["one"], found.get("two")
    figures = []
    if two:
        rows = [list(row) for row in zip(*two["loss"], strict=True)]
        ends = (two["a"][0], two["a"][-1]), (two["b"][0], two["b"][-1])
        names = ("first direction", "second direction")
        picture = field(
            rows,
            title="Loss from above",
            description="Loss along two directions; the cross marks the weights.",
            x=ends[0],
            y=ends[1],
            names=names,
            log=_is_wide(rows),
            contours=7,
            points=[(0.0, 0.0, "")],
        )
        surface = Surface(
            "Loss as a surface",
            "The same losses.",
            [value for row in rows for value in row],
            kind="grid",
            x=ends[0],
            y=ends[1],
            columns=len(two["a"]),
            names=names,
        )
        figures += [Figure(picture, "from above", name=False), Figure(surface, "as a surface", name=False)]
    line = line_chart(
        [Series("loss", one["a"], one["loss"], 0)],
        title="Loss along one direction",
        description="The weights are at 0.",
        axes=Axes(x="step along the first direction"),
        size=_LARGE,
    )
    yield Note(_LANDSCAPE)
    yield Gallery([*figures, Figure(line, "along the first direction", name=False)])


def _is_wide(rows: list[list[float | None]]) -> bool:
    values = [value for row in rows for value in row if value is not None]
    return bool(values) and min(values) > 0 and max(values) > 50 * min(values)


def _kernel(data: Mapping[str, Any]) -> Iterator[Block]:
    kernel = data["kernel"]
    if not kernel:
        return
    values = sorted((value for value in kernel["eigenvalues"] if value is not None), reverse=True)
    places = list(range(1, len(values) + 1))
    picture = line_chart(
        [Series("eigenvalue", places, values, 0, "dots")],
        title="Spectrum of the tangent kernel",
        description="Eigenvalues from the largest to the smallest.",
        axes=Axes(x="number", whole=True, y_kind="log"),
        size=_LARGE,
    )
    facts = [
        (
            "Tangent kernel",
            f"{kernel['samples']:,} samples, {kernel['outputs']:,} outputs, reduction {kernel['reduction']}",
        ),
        ("Condition", f"{short(kernel.get('condition'))}: largest over smallest eigenvalue"),
        ("Alignment", f"{short(kernel.get('alignment'))} with the targets, of at most 1"),
        ("Trace", short(kernel.get("trace"))),
    ]
    yield Facts(facts)
    yield Gallery([Figure(picture, "spectrum of the tangent kernel", name=False)])
