"""Builds the site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from softknee._atlas.characteristics import CLASSIC, row_of
from softknee._atlas.citations import citation
from softknee._atlas.corrections import corrections
from softknee._atlas.equivalences import EQUIVALENCES
from softknee._atlas.facts import ADAPTATIONS, COSTS, Entry, entry_of
from softknee._atlas.likeness import alike
from softknee._atlas.render import render, script, style
from softknee._atlas.script import functions_script
from softknee._atlas.usage import cost_note
from softknee._atlas.views import KINDS, View, view_of
from softknee._catalogue import bibliography, get
from softknee._collisions import COLLISIONS
from softknee._report.files import write_atomic
from softknee.functional import SPECS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGES = "activations"
TAGS = ("monotonic", "smooth", "bounded", "odd", "even", "zero at zero", "trainable")


def build(folder: Path, names: Sequence[str] | None = None) -> Path:
    """Write the atlas: an index, a page for each activation, a table of characteristics, a page of names.

    Everything is made from the specs and the functions; nothing is measured or downloaded.

    Args:
        folder: Made if it is not there; files in it are replaced, others stay.
        names: Only these activations, names or aliases, in the order of the catalogue; all by default.

    Returns:
        The index.

    Raises:
        UnknownActivation: There is no activation of one of the names.
        MissingExtra: Jinja2 is not installed.
    """
    wanted = None if names is None else {get(name).name for name in names}
    specs = [spec for spec in SPECS if wanted is None or spec.name in wanted]
    sources = bibliography()
    threads = torch.get_num_threads()
    # The tensors are small: more threads would wait for each other.
    torch.set_num_threads(1)
    try:
        entries = [entry_of(spec, citation(sources[spec.source])) for spec in specs]
        views = [view_of(entry) for entry in entries]
        _write(folder, entries, views)
    finally:
        torch.set_num_threads(threads)
    return folder / "index.html"


def _write(folder: Path, entries: Sequence[Entry], views: Sequence[View]) -> None:
    facts = {entry.name: entry for entry in entries}
    known = frozenset(facts)
    subjects = [entry.subject for entry in entries if entry.subject.elementwise]
    write_atomic(folder / "atlas.css", style())
    write_atomic(folder / "atlas.js", script())
    write_atomic(folder / "functions.js", functions_script(subjects))
    shown = {view.entry.name: view for view in views}
    neighbours = alike(entries)
    for place, view in enumerate(views):
        around = (views[place - 1] if place else None, views[place + 1] if place + 1 < len(views) else None)
        close = [(shown[other.name], other.distance) for other in neighbours.get(view.entry.name, [])]
        page = render("activation.html.j2", root="../", view=view, around=around, alike=close, known=known)
        write_atomic(folder / PAGES / f"{view.entry.name}.html", page)
    context = {"root": "", "known": known, "shown": shown}
    write_atomic(folder / "index.html", render("index.html.j2", **context, **_filters(views)))
    classic = [row_of(facts[name]) for name in CLASSIC if name in facts]
    table = render(
        "characteristics.html.j2", **context, rows=classic, corrections=corrections(facts), cost_note=cost_note()
    )
    write_atomic(folder / "characteristics.html", table)
    aliases = [entry for entry in entries if entry.spec.aliases]
    named = render(
        "names.html.j2",
        **context,
        collisions=COLLISIONS,
        equivalences=[(equal, equal.difference()) for equal in EQUIVALENCES],
        aliases=aliases,
    )
    write_atomic(folder / "names.html", named)


def _filters(views: Sequence[View]) -> dict[str, object]:
    """Return what the index shows and filters by; choices that nothing falls under are left out."""
    entries = [view.entry for view in views]

    def found(choices: Sequence[str], values: Sequence[str]) -> list[tuple[str, int]]:
        return [(choice, values.count(choice)) for choice in choices if choice in values]

    families = [entry.spec.family for entry in entries]
    tags = [tag for entry in entries for tag in entry.tags]
    return {
        "views": views,
        "families": found(tuple(dict.fromkeys(families)), families),
        "kinds": [(KINDS[kind], kind, count) for kind, count in found(tuple(KINDS), [e.spec.kind for e in entries])],
        "adaptations": found(tuple(ADAPTATIONS), [entry.adaptation for entry in entries]),
        "costs": found(COSTS, [entry.cost for entry in entries]),
        "tags": found(TAGS, tags),
        "sources": len({entry.spec.source for entry in entries}),
        "trainable": sum(bool(entry.trained) for entry in entries),
    }
