"""How the units of a watched model are doing, as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._diagnose.units.states import linear_r2, moments
from softknee._report.table import plural
from softknee._surgery.places import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._diagnose.units.site_health import SiteHealth
    from softknee._diagnose.units.states import State

_STATES = ("dead", "silent", "saturated", "linear", "dormant")
_HEADINGS = ("site", "kind", "units", "values", *_STATES, "z mean", "z std", "linear R2", "not finite")
_ABSENT = "-"


def summary(sites: Sequence[SiteHealth], steps: int, observed: int) -> str:
    """Return a table, one line for each site.

    Args:
        sites: How they do.
        steps: Runs of the model in training mode so far.
        observed: How many of them were observed.
    """
    head = f"{plural(steps, 'step')}, {observed} observed"
    if not sites:
        why = "" if steps else ": the model has not run in training mode, or only compiled, where hooks see nothing"
        return f"{head}; nothing was seen yet{why}"
    note = "units in percent; values: seen of each unit in the last observed steps, which is what the rest is said from"
    return "\n".join([head, *aligned([_HEADINGS, *map(_row, sites)]), note])


def _row(site: SiteHealth) -> list[str]:
    known, z = site.to_place(), moments(site.sums, "z")
    fit = linear_r2(site.sums)
    return [
        *(site.name, str(known["kind"]), str(site.sums.units), str(site.sums.n)),
        *(_percent(site.states[name]) for name in _STATES),
        *(f"{z.mean:.3g}", f"{z.std:.3g}", _ABSENT if fit is None else f"{fit:.3f}"),
        f"{100 * site.nonfinite:.3g}",
    ]


def _percent(state: State | None) -> str:
    return _ABSENT if state is None else f"{100 * state.share:.3g}"
