"""What the page of one activation says, ready for its template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._atlas.claims import Claim, claims_of
from softknee._atlas.drawings import thumbnail
from softknee._atlas.equivalences import Equivalence, equivalences_of
from softknee._atlas.examples import VectorExample, noise_of, vector_example
from softknee._atlas.sliders import Slider, sliders_of
from softknee._atlas.usage import facts_text, snippet
from softknee._card.panels import slope_panel, value_panel
from softknee._card.source import source
from softknee._collisions import COLLISIONS, Meaning
from softknee._report.mathml import mathml, prose
from softknee._report.page import embedded_json
from softknee._report.table import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._atlas.facts import Entry
    from softknee._report.mathml import Markup
    from softknee._report.svg import Svg

KINDS = {
    "elementwise": "function of one element",
    "gated": "gated pair",
    "contextual": "with a network of its own",
    "vector": "function of vectors",
}
# Letters of LaTeX up to which a formula is shown at once.
LONG = 330


@dataclass(frozen=True)
class Group:
    """Sliders that belong together.

    Attributes:
        title: Of the group.
        sliders: The sliders, each with its symbol as MathML.
        more: How many entries have none.
    """

    title: str
    sliders: Sequence[tuple[Slider, Markup]]
    more: int = 0


@dataclass(frozen=True)
class Plot:
    """Everything about the interactive figure.

    Attributes:
        value: Value, drawn.
        slope: Derivatives, drawn.
        groups: Sliders.
        data: For the script, as JSON.
        reach: Drawn from minus this to this.
        noise: What the band means; empty where there is none.
    """

    value: Svg
    slope: Svg
    groups: Sequence[Group]
    data: str
    reach: float
    noise: str


@dataclass(frozen=True)
class View:
    """The page of one activation.

    Attributes:
        entry: The facts.
        formula: As MathML; None where there are words only.
        long: Whether the formula is longer than anybody reads at a glance.
        description: As markup.
        thumb: A small drawing.
        plot: The interactive figure, None for functions of vectors.
        example: What becomes of a vector, None for others.
        claims: Properties.
        facts: Terms with explanations: how it runs and trains.
        snippet: Source that makes it.
        source: Source of a module that stands alone.
        meanings: Names it shares with other functions.
        equivalences: Other ways to the same function.
    """

    entry: Entry
    formula: Markup | None
    long: bool
    description: Markup
    thumb: Svg
    plot: Plot | None
    example: VectorExample | None
    claims: Sequence[Claim]
    facts: Sequence[tuple[str, str]]
    snippet: str
    source: str
    meanings: Mapping[str, Sequence[Meaning]]
    equivalences: Sequence[Equivalence]

    @property
    def kind(self) -> str:
        """The kind in words."""
        return KINDS[self.entry.spec.kind]


def view_of(entry: Entry) -> View:
    """Return what a page says.

    Args:
        entry: The facts.

    Returns:
        The page's content.
    """
    spec, curves = entry.spec, entry.curves
    example = vector_example(entry.module) if curves is None else None
    thumb = thumbnail(curves, spec.title) if curves is not None else example.thumbnail(spec.title) if example else None
    latex = entry.subject.expression.to_latex() if spec.statement is None and curves is not None else ""
    names = (spec.name, *spec.aliases)
    mine = {
        name: meanings
        for name, meanings in COLLISIONS.items()
        if name in names or any(meaning.activation == spec.name for meaning in meanings)
    }
    return View(
        entry=entry,
        formula=mathml(latex, display=True) if latex else None,
        long=len(latex) > LONG,
        description=prose(entry.description),
        thumb=thumb,  # type: ignore[arg-type]
        plot=_plot(entry) if curves is not None else None,
        example=example,
        claims=claims_of(entry),
        facts=facts_text(entry),
        snippet=snippet(spec),
        source=source(spec.name),
        meanings=mine,
        equivalences=equivalences_of(spec.name),
    )


def _plot(entry: Entry) -> Plot:
    curves = entry.curves
    assert curves is not None  # noqa: S101 (plots are of functions of one number)
    noise = noise_of(entry.subject, curves.reach)
    band = noise.band if noise is not None else None
    data = {
        "name": entry.name,
        "band": None if band is None else {"x": band.x, "low": band.low, "high": band.high, "reach": curves.reach},
    }
    return Plot(
        value=value_panel(curves, entry.spec.title, band=band),
        slope=slope_panel(curves, entry.spec.title),
        groups=_groups(entry),
        data=embedded_json(data),
        reach=curves.reach,
        noise=_noise_text(noise.changed) if noise is not None else "",
    )


def _noise_text(changed: Mapping[str, float]) -> str:
    where = f" with {listed([f'{name} = {value:g}' for name, value in changed.items()])}" if changed else ""
    return f"90 % of the values in training{where}"


def _groups(entry: Entry) -> list[Group]:
    sliders = sliders_of(entry.subject)
    shown = [(slider, mathml(slider.symbol)) for slider in sliders]
    given = {param.name for param in entry.spec.parameters if param.given}
    groups = [
        Group("Given with x", [pair for pair in shown if pair[0].name in given]),
        Group("Parameters", [pair for pair in shown if pair[0].entry is None and pair[0].name not in given]),
    ]
    for name in dict.fromkeys(slider.name for slider in sliders if slider.entry is not None):
        entries = [pair for pair in shown if pair[0].name == name]
        value: Any = entry.subject.values[name]
        groups.append(Group(f"Entries of {name.replace('_', ' ')}", entries, len(value) - len(entries)))
    return [group for group in groups if group.sliders]
