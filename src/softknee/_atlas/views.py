"""What the page of one activation says, ready for its template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._atlas.claims import Claim, claims_of, figure
from softknee._atlas.drawings import slope_panel, thumbnail, value_panel
from softknee._atlas.equivalences import Equivalence, equivalences_of
from softknee._atlas.examples import VectorExample, noise_of, vector_example
from softknee._atlas.facts import ADAPTATIONS, CHEAP, EXPENSIVE, needs_channels
from softknee._atlas.sliders import Slider, sliders_of
from softknee._card.source import source
from softknee._collisions import COLLISIONS, Meaning
from softknee._report.mathml import mathml, prose
from softknee._report.page import embedded_json
from softknee._report.table import listed, plural
from softknee.nn.options import stored

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
ENGINES = {
    "eager": "evaluated as it is written",
    "fused": "evaluated by kernels of its own, one pass forward and one backward, on large tensors",
    "table": "evaluated through a table made from its present parameters, on large tensors",
}
# Letters of LaTeX up to which a formula is shown at once.
LONG = 330
BUILT_IN = "torch has it as one operation, as fast as memory can be moved"
COST_TEXTS = {
    "cheap": "its time is that of moving the tensor",
    "moderate": "some arithmetic beside moving the tensor",
    "expensive": "more arithmetic than a lookup in a table",
    "not counted": "it is no arithmetic on single elements",
}


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
        formula: As MathML; None for functions of vectors.
        long: Whether the formula is longer than anybody reads at a glance.
        description: As markup.
        thumb: A small drawing.
        plot: The interactive figure, None for functions of vectors.
        example: What becomes of a vector, None for others.
        claims: Properties.
        facts: Terms with explanations: how it runs and trains.
        snippet: Source that makes it.
        source: Source of a module that stands alone; empty where there is none.
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
    latex = entry.subject.expression.to_latex() if curves is not None else ""
    names = (spec.name, *spec.aliases)
    mine = {
        name: meanings
        for name, meanings in COLLISIONS.items()
        if name in names or any(meaning.activation == spec.name for meaning in meanings)
    }
    return View(
        entry=entry,
        formula=mathml(latex, display=True) if curves is not None else None,
        long=len(latex) > LONG,
        description=prose(entry.description),
        thumb=thumb,  # type: ignore[arg-type]
        plot=_plot(entry) if curves is not None else None,
        example=example,
        claims=claims_of(entry),
        facts=_facts(entry),
        snippet=_snippet(entry),
        source=source(spec.name) if spec.kind == "elementwise" else "",
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
        value=value_panel(curves, entry.spec.title, band),
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


def _facts(entry: Entry) -> list[tuple[str, str]]:
    spec = entry.spec
    facts = [("Adapts", f"{entry.adaptation}: {ADAPTATIONS[entry.adaptation]}"), ("Parameters", _parameters(entry))]
    if entry.trained:
        names = listed(list(entry.trained))
        facts.append(("Weight decay", f"none for {names}: softknee.parameter_groups(model, weight_decay) sees to it"))
    if entry.gain is not None:
        gain = entry.gain
        verdict = (
            "one scale of the weights keeps signal and gradient within a factor of two a layer"
            if gain.valid
            else "no scale of the weights suits both directions"
        )
        numbers = f"forward {figure(gain.forward)}, backward {figure(gain.backward)}, χ {figure(gain.chi)}"
        facts.append(("Gain", f"{numbers}; {verdict}"))
    if spec.kind == "elementwise":
        price = "" if entry.price is None else f" ({entry.price} vector instructions an element, forward and backward)"
        facts += [
            ("Cost", f"{entry.cost}{price}: {COST_TEXTS[entry.cost]}"),
            ("Engine", f"{entry.engine}: {BUILT_IN if entry.built_in else ENGINES[entry.engine]}"),
        ]
    works = [
        name
        for name, holds in (("torch.compile", spec.promises.compiles), ("torch.func.vmap", spec.promises.vmap))
        if holds
    ]
    if works:
        facts.append(("Works under", listed(works)))
    return facts


def _parameters(entry: Entry) -> str:
    if entry.spec.kind == "contextual":
        count = sum(parameter.numel() for parameter in entry.module.parameters())
        return f"{count} trained numbers for {plural(8, 'channel')}, those of its network included"
    kept = stored(entry.spec)
    if not kept:
        return "none"
    parts = []
    for param in kept:
        value: Any = entry.subject.values.get(param.name)
        if isinstance(value, float | int):
            start = f" = {figure(float(value))}"
        else:
            start = f", {len(value)} entries" if isinstance(value, tuple) else ", a number for each channel"
        parts.append(f"{param.name}{start} ({'trained' if param.trainable else 'fixed'})")
    return "; ".join(parts)


def _snippet(entry: Entry) -> str:
    spec = entry.spec
    channels = "channels=64" if needs_channels(spec) else ""
    create = ", ".join(filter(None, [f'"{spec.name}"', channels]))
    lines = [
        "import softknee as sk",
        "",
        f"act = sk.create({create})",
        f"act = sk.nn.{spec.title}({channels})  # the same as a class",
    ]
    scalars = [param for param in stored(spec) if not param.vector and not param.integer and param.default is not None]
    if scalars and spec.kind in {"elementwise", "gated"}:
        first = scalars[0]
        lines.append(
            f'act = sk.create("{spec.name}", {first.name}={first.default:g}, trainable=True, per_channel=64)  # trained in each channel'
        )
    elif spec.terms:
        lines.append(f'act = sk.create("{spec.name}", terms={spec.terms + 4})')
    arguments = ", ".join(["x", *(param.name for param in spec.parameters if param.given)])
    if spec.kind != "contextual" and not any(param.vector for param in stored(spec)):
        lines.append(f"y = sk.functional.{spec.function.__name__}({arguments})  # the function alone")
    return "\n".join(lines)


def cost_note() -> str:
    """Return what the classes of cost mean."""
    return (
        f"Costs count the vector instructions of an element, forward and backward. Up to {CHEAP} are cheap: measured at up"
        f" to about 1.2 of ReLU's time, which is that of moving the tensor. Up to {EXPENSIVE} are moderate: up to 1.35."
        " Beyond, large tensors go through a table at 1.4 to 1.7 of ReLU's time, whatever the formula. As written, in"
        " plain PyTorch, such functions took 2.5 to 180 times ReLU's. See the benchmarks of the repository for the machine"
        " and the method."
    )
