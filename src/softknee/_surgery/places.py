"""Where in a model activations act, and what could not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, overload

from softknee._errors import UsageError

_PRODUCT = "mul"
_HEADINGS = ("path", "call", "kind", "role", "how", "shape", "units", "range", "times", "shared")


class Misfit(UsageError):
    """What is asked for cannot be done at one place, but may at others."""


@dataclass(frozen=True)
class Place:
    """How to find an activation again in a model of the same architecture: words and numbers, which can be saved.

    Attributes:
        owner: Path of the module in whose `forward` the activation is called.
        module: Path of the activation, empty if it is a function.
        turn: Which call of the module within one run of the owner it is.
        turns: How many there are.
        operation: The function whose result is that of the activation, empty if it is a module.
        occurrence: Which call of this function within one run of the owner it is.
        source: Function, occurrence and argument at which the input of the activation is found.
        inner: Functions with their occurrences whose results are needed for nothing else.
        in_place: Whether what is overwritten is used again, under another name.
        eager_only: Whether compilers do not show the function to what replaces it.
        experts: Number of the experts that use the activation in turn, 0 if there are none.
        product: The product with a second stream, if it is one of a pair: occurrence, and argument that is activated.
        value: Argument of the function that is a second input, -1 if there is none.
        calls: Functions that it consists of and how often they were called in one run of the owner, as far as these are
            activations by themselves; empty for experts, who call them as the data wills.
        passing: Path of a module that passes its input on instead of activating it, empty if there is none.
    """

    owner: str
    module: str = ""
    turn: int = 0
    turns: int = 1
    operation: str = ""
    occurrence: int = 0
    source: tuple[str, int, int] | None = None
    inner: tuple[tuple[str, int], ...] = ()
    in_place: bool = False
    eager_only: bool = False
    experts: int = 0
    product: tuple[int, int] | None = None
    value: int = -1
    calls: tuple[tuple[str, int], ...] = ()
    passing: str = ""

    @property
    def of_both(self) -> Place | None:
        """Where activation and product are one, for gated pairs; None if there is no such product."""
        if self.product is None or self.turns > 1:
            return None
        occurrence, gate = self.product
        replaced = ((self.operation, self.occurrence),) if self.operation else ()
        return replace(
            self,
            module="",
            operation=_PRODUCT,
            occurrence=occurrence,
            source=self.source or (_PRODUCT, occurrence, gate),
            inner=(*self.inner, *replaced),
            product=None,
            value=1 - gate,
            passing=self.module,
        )


@dataclass(frozen=True)
class Site:
    """One place where an activation acts.

    Attributes:
        path: Path of the activation in the model, or of the module that calls it as a function.
        call: Which activation of that path it is within one run of the module that calls it, from 0.
        kind: What it is, by the catalogue's name where it has one.
        role: `"activation"`; `"pair"` if it is multiplied with a second stream of the same shape, as in SwiGLU;
            `"gate"` if a value between 0 and 1 weights another tensor; `"output"` if it is what the model returns;
            `"normaliser"` if its outputs depend on one another, as in softmax.
        how: `"module"`, `"function"`, or `"expression"` if it is written out, such as `x * sigmoid(x)`.
        shape: Of its input in the example, empty without one.
        result: Shape of its output.
        unit_axis: Dimension of the channels or features in that input.
        low: Smallest input seen.
        high: Largest input seen.
        times: How often it ran.
        shared: Whether the same instance also acts elsewhere.
        place: How to find it again.
    """

    path: str
    call: int
    kind: str
    role: str
    how: str
    shape: tuple[int, ...]
    result: tuple[int, ...]
    unit_axis: int | None
    low: float
    high: float
    times: int
    shared: bool
    place: Place

    @property
    def units(self) -> int | None:
        """Number of channels or features, None if no example was given."""
        return None if self.unit_axis is None else self.shape[self.unit_axis]

    @property
    def name(self) -> str:
        """Path and call as one text."""
        return self.path if self.place.module and not self.call else f"{self.path or 'model'}#{self.call}"


@dataclass(frozen=True)
class Unseen:
    """Something that may hide an activation.

    Attributes:
        path: Of the module.
        reason: Why it was not seen, or cannot be changed.
        site: The activation, where it was seen but cannot be changed.
    """

    path: str
    reason: str
    site: Site | None = None


@dataclass(frozen=True, repr=False)
class Sites(Sequence[Site]):
    """The activations of a model in the order of their calls.

    Attributes:
        found: The sites.
        unseen: What could not be seen, with the reasons.
    """

    found: tuple[Site, ...]
    unseen: tuple[Unseen, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Site]: ...
    def __getitem__(self, index: int | slice) -> Site | Sequence[Site]:
        """Return a site, or several."""
        return self.found[index]

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return "\n".join([*aligned([_HEADINGS, *map(_row, self.found)]), *_notes(self)])

    def _repr_html_(self) -> str:
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in _row(site)) for site in self.found]
        head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        notes = "".join(f"<p>{escape(note)}</p>" for note in _notes(self))
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{notes}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(site: Site) -> tuple[str, ...]:
    seen = f"{site.low:.3g} to {site.high:.3g}" if site.low <= site.high else "-"
    numbers: tuple[Any, ...] = ("x".join(map(str, site.shape)) or "-", "-" if site.units is None else site.units, seen)
    shared = "yes" if site.shared else "no"
    return tuple(
        map(str, (site.path or "(model)", site.call, site.kind, site.role, site.how, *numbers, site.times, shared))
    )


def _notes(sites: Sites) -> list[str]:
    count = f"{len(sites)} site{'s' * (len(sites) != 1)}"
    return [count, *(f"not seen: {one.path or 'the model'}: {one.reason}" for one in sites.unseen)]
