"""The network as a strip: one row a site, with its function over what it sees, and the states of its units."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import name_cell, number_cell, share_cell
from softknee._report.bars import Bar, stacked_bars
from softknee._report.field import field
from softknee._report.page import Figure, Fold, Gallery, Key, Note, Section
from softknee._report.svg import Scale, Svg, drawing, element, path_data, simplified, steps_data
from softknee._report.table import Cell, Column, Table, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from softknee._report.page import Block

    Site = Mapping[str, Any]

_LEAD = (
    "One row a site, in the order of the calls. The picture has the function there now, over the histogram of what it "
    "is given. Shares are percent of units; what could not be measured has a dash."
)
_WIDE, _TALL = 112.0, 40.0
_TAIL = 0.0005
# As fine as can be seen.
_BINS, _PIXEL = 44, 0.2
# States in the order of the bars, with their colours.
_STATES = (("dead", 1), ("silent", 4), ("saturated", 3), ("linear", 0))
_WORDS = ("dead", "silent, not dead", "saturated, not dead", "always on one line")
# Units in one of these states are listed, so many of them.
_WORST = frozenset({"dead", "silent", "constant", "saturated"})
_LISTED = 60
# Bars that are shown without unfolding.
_SHOWN = 24


def sites_section(data: Mapping[str, Any]) -> Section:
    """Return the section of the sites.

    Args:
        data: A diagnosis.

    Returns:
        The section.
    """
    sites = data["sites"]
    if not sites:
        return Section("sites", "Network", _LEAD, [Note("No site of an activation was seen.")])
    return Section(
        "sites", "Network", _LEAD, [_strip(data), *_bars(sites), *_units(sites), *_raster(data), *_notes(sites)]
    )


def share(site: Site, state: str) -> float | None:
    """Return the share of units in a state, None where it could not be measured."""
    found = site["states"].get(state)
    return None if not found else found["share"]


def mini(site: Site) -> Svg | None:
    """Draw a site's function over the histogram of its inputs.

    Args:
        site: Of the schema.

    Returns:
        The drawing; None where neither was measured.
    """
    histogram, curve = site.get("hist"), site.get("curve")
    bins = _bins(histogram) if histogram else []
    if not bins and not curve:
        return None
    x = curve["x"] if curve else ()
    low, high = (bins[0][0], bins[-1][1]) if bins else (min(x), max(x))
    across = Scale(low, high if high > low else low + 1.0, 1.0, _WIDE - 1)
    parts = []
    if bins:
        tallest = max(density for *_, density in bins) or 1.0
        foot = _TALL - 1
        bars = [(across(right), foot - (_TALL - 4) * density / tallest) for _, right, density in bins]
        parts.append(element("path", d=steps_data(across(low), foot, bars), class_="ridge hue-6"))
    if across.holds(0):
        parts.append(element("path", d=f"M{across(0):.1f} 1V{_TALL - 1}", class_="zero"))
    if curve:
        parts += _curve(curve, across)
    return drawing(_WIDE, _TALL, parts, title=site["kind"], description=_what(site), class_="spark")


def _what(site: Site) -> str:
    z = (site.get("moments") or {}).get("z") or {}
    if z.get("min") is None or z.get("max") is None:
        return "The function over the histogram of its inputs."
    return f"The function over the histogram of its inputs, which lie between {z['min']:.3g} and {z['max']:.3g}."


def _curve(curve: Mapping[str, Any], across: Scale) -> list[str]:
    inside = [(x, y) for x, y in zip(curve["x"], curve["y"], strict=True) if y is not None and across.holds(x)]
    if not inside:
        return []
    values = [y for _, y in inside]
    low, high = min(values), max(values)
    up = Scale(low, high if high > low else low + 1.0, _TALL - 3, 3.0)
    points = simplified([(across(x), up(y)) for x, y in inside], slack=_PIXEL)
    return [element("path", d=path_data(points), class_="line main hue-0")]


def _bins(histogram: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return left, right and density of the bins between the far tails, at most as many as there are pixels for."""
    edges, inner = histogram["edges"], histogram["counts"][1:-1]
    whole = sum(inner)
    if not whole:
        return []
    kept = [(left, right, count) for (left, right), count in zip(pairwise(edges), inner, strict=True)]
    for end in (0, -1):
        tail = 0
        while len(kept) > 1 and tail + kept[end][2] <= _TAIL * whole:
            tail += kept.pop(end)[2]
    low, high = kept[0][0], kept[-1][1]
    width = (high - low) / _BINS
    merged: list[tuple[float, float, float]] = []
    left, total = low, 0.0
    for _, right, count in kept:
        total += count
        if right - left >= width:
            merged.append((left, right, total / (right - left)))
            left, total = right, 0.0
    if total:
        merged.append((left, high, total / (high - left)))
    return merged


def _strip(data: Mapping[str, Any]) -> Table:
    limits = data["method"].get("thresholds") or {}
    layers = {one["site"]: one for one in (data["signal"] or {}).get("layers", ()) if one.get("site")}
    columns = [
        Column("Site", numeric=False),
        Column("Function and inputs", numeric=False),
        Column("Units", hint="channels or features"),
        Column("Dead", hint="slope exactly 0 at every sample, in percent of units"),
        Column("Silent", hint="output exactly 0 at every sample, in percent of units"),
        Column("Saturated", hint="slope under 1 % of its largest at 95 % of the samples or more, in percent of units"),
        Column("Linear", hint="slope the same at every sample, in percent of units"),
        Column("Linear R²", hint="share of the variance of the output that a line explains"),
        Column("q", hint="mean square of the input"),
        Column("χ", hint="σ_w² E[φ'²] of the layer before: the theory's ratio of squared gradients"),
        Column("Outliers", hint="largest output over the root mean square"),
        Column("No slope", hint="percent of inputs at which the gradient is exactly 0 in this precision"),
    ]
    rows = [_row(site, layers.get(site["name"]) or {}, limits) for site in data["sites"]]
    return Table("Sites in the order of their calls", columns, rows, sortable=len(rows) > 1)


def _row(site: Site, layer: Mapping[str, Any], limits: Mapping[str, float]) -> list[Cell]:
    moments, precision = site.get("moments") or {}, site.get("precision") or {}
    states = site["states"]
    linear = moments.get("linear_r2")
    outliers = moments.get("outlier_ratio")
    return [
        name_cell(site["name"]),
        Cell(site["kind"], kind="pictured", picture=mini(site)),
        number_cell(site.get("units")),
        share_cell(share(site, "dead"), warn=limits.get("dead_warn", 2.0), hint=_bound(states.get("dead"))),
        share_cell(share(site, "silent"), hint=_bound(states.get("silent"))),
        share_cell(share(site, "saturated"), hint=_bound(states.get("saturated"))),
        share_cell(share(site, "linear"), hint=_bound(states.get("linear"))),
        number_cell(linear, kind="warning" if linear and linear > limits.get("linear_r2", 2.0) else ""),
        number_cell((moments.get("z") or {}).get("q")),
        number_cell(layer.get("chi")),
        number_cell(outliers, kind="warning" if outliers and outliers >= limits.get("outliers_warn", 1e9) else ""),
        share_cell(precision.get("beyond")),
    ]


def _bound(found: Mapping[str, Any] | None) -> str:
    if not found or not found.get("n"):
        return ""
    return f"{plural(found['count'], 'unit')}, from {found['n']:,} values each" if found["count"] else ""


def _bars(sites: Sequence[Site]) -> Iterator[Block]:
    """Yield the states of the units as bars."""
    rows = [Bar(site["name"], _parts(site), f"{site['units']:,} units") for site in sites if site.get("units")]
    if not any(part for row in rows for part in row.shares):
        yield Note("No unit is dead, silent, saturated or always on one line.")
        return
    picture = stacked_bars(
        rows,
        _WORDS,
        title="States of the units",
        description="Share of the units of each site that are dead, silent, saturated, or always on one line.",
        hues=[hue for _, hue in _STATES],
        width=760.0,
        label_width=190.0,
    )
    legend = [Key(word, f"swatch hue-{hue}") for word, (_, hue) in zip(_WORDS, _STATES, strict=True)]
    gallery = Gallery([Figure(picture, "States of the units", name=False)], legend, wide=True)
    yield gallery if len(rows) <= _SHOWN else Fold("States of the units", [gallery])


def _parts(site: Site) -> list[float | None]:
    """Return shares that add up: each unit is counted in the first of its states."""
    dead = share(site, "dead") or 0.0
    found: list[float | None] = [share(site, "dead")]
    room = 1.0 - dead
    for state in ("silent", "saturated", "linear"):
        part = share(site, state)
        only = None if part is None else min(max(part - dead, 0.0), room)
        room -= only or 0.0
        found.append(only)
    return found


def _units(sites: Sequence[Site]) -> Iterator[Block]:
    """Yield the worst units, of sites that have any, in the order of the sites."""
    found = [(site, unit) for site in sites for unit in site.get("flagged") or () if _WORST & set(unit["states"])]
    if not found:
        return
    # As many of each site as there is room for.
    room = max(1, _LISTED // len({site["name"] for site, _ in found}))
    taken: Counter[str] = Counter()
    rows: list[list[Cell]] = []
    for site, unit in found:
        taken[site["name"]] += 1
        if taken[site["name"]] <= room and len(rows) < _LISTED:
            numbers = (unit.get(key) for key in ("mean", "std", "min", "max"))
            rows.append(
                [
                    name_cell(site["name"]),
                    number_cell(unit["unit"]),
                    Cell(", ".join(unit["states"]).replace("_", " ")),
                    share_cell(unit.get("firing")),
                    *map(number_cell, numbers),
                ]
            )
    columns = [
        Column("Site", numeric=False),
        Column("Unit"),
        Column("States", numeric=False),
        Column("Not 0", hint="percent of outputs that are not 0"),
        *map(Column, ("Mean", "Standard deviation", "Smallest", "Largest")),
    ]
    table = Table("The worst units of each site, by their outputs", columns, rows, sortable=len(rows) > 1)
    yield Fold("Single units", [table])


def _raster(data: Mapping[str, Any]) -> Iterator[Block]:
    """Yield how often units fired over training, if that was watched."""
    figures = []
    for site in (data["history"] or {}).get("sites", ()):
        rates = site.get("firing")
        if not rates or len(rates) < 2:
            continue
        # One row a unit, the ones that fired least in the end first.
        rows = sorted(zip(*rates, strict=True), key=lambda row: row[-1] if row[-1] is not None else -1.0)
        steps = site["steps"]
        picture = field(
            rows,
            title=f"Firing of {site['name']}",
            description="Share of inputs at which each unit is not 0, by step; dark rows are dead.",
            x=(steps[0], steps[-1]),
            y=(0, len(rows) - 1),
            names=("step", "unit"),
        )
        figures.append(Figure(picture, site["name"]))
    if figures:
        yield Fold("Firing of the units over training", [Gallery(figures)])


def _notes(sites: Sequence[Site]) -> Iterator[Block]:
    rows = [[name_cell(site["name"]), Cell(note, kind="words")] for site in sites for note in site.get("notes") or ()]
    if rows:
        columns = [Column("Site", numeric=False), Column("What could not be measured", numeric=False)]
        yield Fold("What could not be measured at single sites", [Table("Sites", columns, rows)])
