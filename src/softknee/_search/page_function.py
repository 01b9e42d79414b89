"""What a search returned: formula, curve against its relatives, numbers far out, price, source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._diagnose.page.words import short
from softknee._report.lines import Axes, Series, line_chart
from softknee._report.page import Block, Code, Facts, Figure, Fold, Formula, Gallery, Key, Note, Section
from softknee._report.table import Cell, Column, Table, listed, plural
from softknee._search.page_words import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Described = Mapping[str, Any]

SIZE = (340.0, 236.0)
# Numbers below stand for 0: the next one that a dtype has.
NEXT_TO_ZERO = 1e-30
# Shifts below are not seen.
UNSEEN = 1e-3
# Sites that are named.
_SITES = 6


def function_section(data: Mapping[str, Any]) -> Section:
    """Return the returned functions, one fold for each group where there are several.

    Args:
        data: A result.

    Returns:
        The section.
    """
    shown = data["functions"]
    lead = "Nothing beat this baseline." if data["outcome"] == "baseline" else "What was found, as it is evaluated."
    blocks = list(_blocks(shown[0])) if len(shown) == 1 else _folds(shown)
    found = data.get("found") or []
    if data["outcome"] == "baseline" and found:
        title = "The best candidate, which did not beat it"
        inner = list(_blocks(found[0])) if len(found) == 1 else _folds(found)
        blocks.append(Fold(title, inner))
    return Section("function", "The function", lead, blocks)


def audit_section(data: Mapping[str, Any]) -> Section | None:
    """Return how the returned functions behave far out and in few bits; None where that is not known.

    Args:
        data: A result.

    Returns:
        The section.
    """
    tables = [_audit_table(one, several=len(data["functions"]) > 1) for one in data["functions"] if one["audit"]]
    lead = (
        "On [−10,000, 10,000], at every number that the 16-bit formats have there and as many of float32. Dead means "
        "that the gradient is exactly 0 from there on: a unit whose inputs all lie there does not learn."
    )
    return Section("audit", "Far out and in few bits", lead, tables) if tables else None


def price_section(data: Mapping[str, Any]) -> Section | None:
    """Return what the returned functions cost to run; None where it was not measured.

    Args:
        data: A result.

    Returns:
        The section.
    """
    tables = [_cost_table(one["cost"]) for one in data["functions"] if one["cost"]]
    lead = (
        "Forward and backward on this machine, medians of interleaved rounds. auto is softknee's own module with its "
        "engines, eager plain torch, which is what the source below does unless it is compiled."
    )
    return Section("price", "What it costs to run", lead, tables) if tables else None


def source_section(data: Mapping[str, Any]) -> Section | None:
    """Return the source of a module for each returned function; None where there is none.

    Args:
        data: A result.

    Returns:
        The section.
    """
    blocks: list[Block] = [
        Code(
            f"class {one['class_name']}, for {one['group']}" if len(data["functions"]) > 1 else "Source", one["source"]
        )
        for one in data["functions"]
        if one["source"]
    ]
    lead = "A module that needs torch and nothing else. A click selects all of it."
    return Section("source", "To copy", lead, blocks) if blocks else None


def _folds(shown: Sequence[Described]) -> list[Block]:
    return [
        Fold(f"{one['group']}: {brief(one['text'])}", list(_blocks(one)), opened=not index)
        for index, one in enumerate(shown)
    ]


def _blocks(one: Described) -> Sequence[Block]:
    blocks: list[Block] = []
    if one["latex"]:
        blocks.append(Formula(f"f(x) = {brief(one['latex'])}"))
    told = _recognised(one)
    blocks += [Note(told)] if told else []
    if one["curves"]:
        blocks.append(_gallery(one))
    blocks.append(Facts(_facts(one)))
    if one["latex"]:
        blocks.append(Code("LaTeX", one["latex"]))
    return [*blocks, Code("In softknee's language", one["text"])]


def _recognised(one: Described) -> str:
    """Return which known activation it is, or which it is most like."""
    known = one["recognised"]
    if known and known["exact"]:
        return f"This is {known['title']}."
    if known:
        return f"This is {known['title']}, up to parameters or scales: {known['text']}."
    if not one["relatives"] or not one["relatives"]["nearest"]:
        return ""
    near = [f"{like['name']} ({100 * like['left']:.2g} %)" for like in one["relatives"]["nearest"]]
    return (
        f"No activation of the catalogue. The nearest, once scaled and shifted, are {listed(near)}: in brackets what "
        "is left between the two on [−5, 5], relative to how much the function varies there."
    )


def _facts(one: Described) -> list[tuple[str, str]]:
    entries: list[tuple[str, str]] = []
    if one["constants"]:
        told = ", ".join(f"{name} = {short(value, 6)}" for name, value in one["constants"].items())
        entries.append(("constants", f"{told}; {'trained with the network from there' if one['trained'] else 'fixed'}"))
    sites = one["sites"]
    if sites:
        more = f" and {plural(len(sites) - _SITES, 'more')}" if len(sites) > _SITES else ""
        entries.append(("sites", f"{', '.join(sites[:_SITES])}{more}"))
    return [*entries, *(one["facts"] or {}).items()]


def _gallery(one: Described) -> Gallery:
    """Draw value and derivative against known activations."""
    others = one["relatives"]["curves"]
    lines = one["curves"]
    keys = [Key("f", "main hue-0")]
    keys += [Key(_legend(other), f"main hue-{index} dashed") for index, other in enumerate(others, 1)]
    figures = []
    for kind, caption, reach in (("value", "value", "values"), ("slope", "derivative", "slopes")):
        series = [
            *(
                Series(_legend(other), lines["x"], other[kind], hue=index, dashed=True)
                for index, other in enumerate(others, 1)
            ),
            Series("f", lines["x"], lines[kind]),
        ]
        picture = line_chart(
            series,
            title=f"{brief(one['text'])}: {caption}",
            description=f"Its {caption} from {-lines['reach']:g} to {lines['reach']:g}, beside "
            f"{listed([other['name'] for other in others])}.",
            axes=Axes(x="x", y=tuple(lines[reach]), zero=True),
            size=SIZE,
        )
        figures.append(Figure(picture, caption, name=False))
    return Gallery(figures, keys)


def _legend(other: Mapping[str, Any]) -> str:
    scale, shift = other["scale"], other["shift"]
    if (scale, shift) == (1.0, 0.0):
        return str(other["name"])
    factor = "" if short(scale) == "1" else f"{short(scale)} "
    added = f" {'−' if shift < 0 else '+'} {short(abs(shift))}" if abs(shift) > UNSEEN else ""
    return f"{factor}{other['name']}{added}"


def _audit_table(one: Described, *, several: bool) -> Table:
    audit = one["audit"]
    rows = [
        [
            Cell(row["format"], "code"),
            Cell("yes") if row["finite"] else Cell(f"no, from {short(row['first_not_finite'])}", "warning"),
            *(Cell(short(row[name]), value=row[name]) for name in ("largest", "steepest", "error")),
            *(_dead(row[name], below=name == "dead_low") for name in ("dead_low", "dead_high")),
        ]
        for row in audit["formats"]
    ]
    columns = [
        Column("Format", numeric=False),
        Column("All finite", numeric=False, hint="value and slope at every number looked at"),
        Column("Largest value"),
        Column("Steepest slope"),
        Column("Error", hint="largest against float64; relative where values are large"),
        Column("Dead below"),
        Column("Dead above"),
    ]
    ends = [_line(audit["asymptotes"][side], side) for side in ("left", "right")]
    steep = "unbounded" if audit["lipschitz"] is None else short(audit["lipschitz"], 5)
    caption = f"Steepest slope in float64: {steep}. {'. '.join(ends)}."
    return Table(f"{one['group']}: {caption}" if several else caption, columns, rows)


def _dead(value: float | None, *, below: bool) -> Cell:
    if value is None:
        return Cell("never", "quiet")
    if abs(value) < NEXT_TO_ZERO or value == 0:
        return Cell("0", hint="every negative number" if below else "every positive number")
    return Cell(short(value))


def _line(line: Mapping[str, float] | None, side: str) -> str:
    """Return what a function approaches on one side."""
    if line is None:
        return f"No line at the far {side}"
    slope, shift = line["slope"], line["intercept"]
    if not slope:
        return f"Towards {short(shift)} at the far {side}"
    rest = f" {'−' if shift < 0 else '+'} {short(abs(shift))}" if shift else ""
    factor = "" if slope == 1 else "−" if slope == -1 else f"{short(slope)} "
    return f"Along {factor}x{rest} at the far {side}"


def _cost_table(cost: Mapping[str, Any]) -> Table:
    columns = [
        Column("Activation", numeric=False),
        Column("Engine", numeric=False),
        Column("Forward / ReLU"),
        Column("Forward + backward / ReLU"),
        Column("Saved bytes", hint="kept for the backward pass, per element"),
        Column("ms", hint="forward and backward"),
    ]
    rows = [
        [
            Cell(brief(one["activation"]), "name"),
            Cell(one["engine"] if one["engine"] == one["used"] else f"{one['engine']}: {one['used']}"),
            *(Cell(f"{one[name]:.2f}") for name in ("forward_to_relu", "both")),
            Cell(f"{one['saved_bytes']:.1f}"),
            Cell(f"{one['milliseconds']:.3g}"),
        ]
        for one in cost["costs"]
    ]
    machine = ", ".join(
        f"{name} {' × '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in cost["machine"].items()
    )
    return Table(f"Measured with {machine}", columns, rows)
