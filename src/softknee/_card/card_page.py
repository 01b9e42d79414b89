"""The page of cards: one activation in full, or several compared and then each in full."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from softknee._card.card_figures import (
    correlation_figure,
    curve_figures,
    curve_keys,
    curves,
    layer_keys,
    phase_figure,
    settings,
    sketch,
    surface_figures,
    variance_figure,
)
from softknee._errors import UsageError
from softknee._report.page import Block, Facts, Fold, Gallery, Measure, Note, Page, Section, render_page
from softknee._report.svg import tick_text
from softknee._report.table import ABSENT, Cell, Column, Table, number, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.card import Card

SCHEMA = 1
# Points along an axis of a surface; of more cards than can be looked at side by side, fewer, and no maps of layers.
FINE, COARSE = 41, 25
SIDE_BY_SIDE = 24
VARIANCES = (0.25, 0.5, 1.0, 2.0, 4.0)
FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
SURFACE_LEAD = (
    "f(x) + f(y), and the length of its gradient, √(f′(x)² + f′(y)²), over the same square. Both come from the one "
    "curve and hold no more than it. Drag a surface, or use the arrow keys, to turn it; a double click turns it back."
)
SIGNAL_LEAD = (
    "What a wide layer with independent normal weights of variance σw² / fan_in and biases of variance σb² does to the "
    "correlation of two inputs and to the variance q of its pre-activations (Poole et al. 2016, Schoenholz et al. "
    "2017). Trained weights are not like that. PyTorch's default starts with σw² = 1/3."
)
LIMIT_LEAD = (
    "Inputs from which on the gradient is exactly 0, as torch computes it in that format: a unit whose inputs all lie "
    "there does not learn."
)

MANY_LEAD = " What layers do to correlations and variances is on pages of fewer activations."


def cards_data(cards: Sequence[Card]) -> dict[str, Any]:
    """Return the numbers of cards as plain data: what the page embeds and `softknee card --json` writes.

    Args:
        cards: The cards.

    Returns:
        `{"schema": 1, "cards": [...]}` with finite numbers or None.
    """
    return {"schema": SCHEMA, "cards": [card.to_dict() for card in cards]}


def card_page(cards: Sequence[Card]) -> str:
    """Return the page of one card, or of several: a comparison, then each.

    Args:
        cards: At least one.

    Returns:
        One self-contained HTML document.

    Raises:
        UsageError: There is no card.
        MissingExtra: Jinja2 is not installed.
    """
    if not cards:
        raise UsageError("a page takes at least one card")
    return render_page(_single(cards[0]) if len(cards) == 1 else _several(cards))


def comparison(cards: Sequence[Card]) -> Table:
    """Return cards side by side, to be sorted by any column.

    Args:
        cards: The cards.

    Returns:
        The table, one row a card.
    """
    columns = [
        Column("activation", numeric=False),
        Column("gain", hint="1/√E[f(z)²] for z ~ N(0, 1): keeps the variance of the signal"),
        Column("backward gain", hint="1/√E[f′(z)²]: keeps the variance of the gradient"),
        Column("χ₁", hint="σw² E[f′(z)²] at the forward gain: what a layer does to the gradient's variance"),
        Column("edge σw²", hint="edge of chaos at q = 1"),
        Column("edge σb²", hint="edge of chaos at q = 1"),
        Column("linear R²", hint="share of the output's variance that a line explains, for z ~ N(0, 1)"),
        Column("Lipschitz", hint="sup |f′|"),
        *(
            Column(f"{side} {short}", hint=f"the gradient is exactly 0 in {name} from here on")
            for name, short in FORMATS.items()
            if name != "float16"
            for side in ("dead ≤", "dead ≥")
        ),
    ]
    return Table(plural(len(cards), "activation"), columns, [_row(card) for card in cards], sortable=True)


def gain_table(card: Card) -> Table:
    """Return the gains at several variances.

    Args:
        card: Of one function.

    Returns:
        The table, one row a variance.
    """
    rows = []
    for q in VARIANCES:
        at = card.moments(q)
        scale = q / at.square if at.square else math.inf
        forward, backward = math.sqrt(scale), at.slope_square**-0.5 if at.slope_square else math.inf
        linear = _cell(card.linear_r2(q), exact=False)
        rows.append([*map(_cell, (q, forward, backward, scale * at.slope_square)), linear])
    columns = [
        Column("variance q"),
        Column("forward gain", hint="√(q/E[f(z)²]) for z ~ N(0, q)"),
        Column("backward gain", hint="1/√E[f′(z)²]"),
        Column("χ₁ at the forward gain", hint="by which a layer multiplies the gradient's variance"),
        Column("linear R²", hint="share of the output's variance that a line explains"),
    ]
    return Table("Gains by the variance of the inputs", columns, rows)


def limit_table(card: Card) -> Table:
    """Return from where on the gradient is exactly 0 in each floating-point format.

    Args:
        card: Of one function.

    Returns:
        The table, one row a format.
    """
    columns = [Column("format", numeric=False), Column("0 at and below"), Column("0 at and above")]
    rows = [
        [Cell(name, "code"), _cell(limit.low, absent="never"), _cell(limit.high, absent="never")]
        for name, limit in card.thresholds.items()
    ]
    return Table("Where the gradient is exactly 0", columns, rows)


def _single(card: Card) -> Page:
    shown = curves(card)
    return Page(
        kicker="softknee card",
        title=card.name,
        finding=[card.formula or "A function of one number."],
        measures=[
            Measure(_text(card.gain), "", "forward gain at unit variance"),
            Measure(_text(card.backward_gain), "", "backward gain"),
            Measure(
                _text(card.gains.chi), "χ₁", "a layer multiplies the gradient's variance by it at the forward gain"
            ),
            Measure(_text(card.lipschitz), "", "Lipschitz constant"),
        ],
        sections=[
            Section(
                "function",
                "The function",
                "Value and derivatives, computed in float64.",
                [Gallery(curve_figures(card, shown), curve_keys(card, shown))],
            ),
            Section(
                "surface",
                "Surface and gradient map",
                SURFACE_LEAD,
                [Gallery(surface_figures(card, shown.reach, points=FINE, named=False))],
            ),
            Section("layers", "Through layers", SIGNAL_LEAD, [*_signal(card), gain_table(card)]),
            Section("limits", "Where it stops learning", LIMIT_LEAD, [limit_table(card)]),
            Section("facts", "Facts", "The same in words.", [Facts(list(card.facts.items()))]),
        ],
        data=cards_data([card]),
    )


def _several(cards: Sequence[Card]) -> Page:
    few = len(cards) <= SIDE_BY_SIDE
    shown = [curves(card) for card in cards]
    points = FINE if few else COARSE
    pictures = [surface_figures(card, lines.reach, points=points) for card, lines in zip(cards, shown, strict=True)]
    folds = [
        Fold(
            card.name,
            [
                Gallery(curve_figures(card, lines), curve_keys(card, lines)),
                *(_signal(card) if few else [Gallery(surfaces)]),
                gain_table(card),
                limit_table(card),
                Facts(list(card.facts.items())),
            ],
        )
        for card, lines, surfaces in zip(cards, shown, pictures, strict=True)
    ]
    lead = "For standard normal inputs; click on a heading to sort. Hover over one for what it means."
    each = f"{SIGNAL_LEAD if few else SURFACE_LEAD} {LIMIT_LEAD}" + ("" if few else MANY_LEAD)
    together = [Gallery([figure for pair in pictures for figure in pair], pairs=True)]
    return Page(
        kicker="softknee card",
        title=plural(len(cards), "activation"),
        finding=_findings(cards),
        sections=[
            Section("comparison", "Side by side", lead, [comparison(cards)]),
            *([Section("surfaces", "Surfaces and gradient maps", SURFACE_LEAD, together)] if few else []),
            Section("each", "One by one", each, folds),
        ],
        data=cards_data(cards),
    )


def _findings(cards: Sequence[Card]) -> list[str]:
    """Return what the gains say about all."""
    gains = sorted((card.gain, card.name) for card in cards if 0 < card.gain < math.inf)
    found = []
    if gains:
        (low, first), (high, last) = gains[0], gains[-1]
        found.append(f"Forward gains go from {low:.4g} ({first}) to {high:.4g} ({last}).")
    bad = [card.name for card in cards if not card.gains.valid]
    if bad:
        names = ", ".join(bad[:SIDE_BY_SIDE]) + (
            f" and {len(bad) - SIDE_BY_SIDE} more" if len(bad) > SIDE_BY_SIDE else ""
        )
        found.append(f"No weight scale keeps signal and gradient within a factor of two a layer for {names}.")
    return found


def _signal(card: Card) -> list[Block]:
    """Return the maps of a layer, or why there are none."""
    figures = [figure for figure in (correlation_figure(card), variance_figure(card), phase_figure(card)) if figure]
    reason = card.no_edge(1.0)
    blocks: list[Block] = [Gallery(figures, layer_keys(card))] if settings(card) else []
    return [*blocks, *([Note(reason)] if reason else [])]


def _row(card: Card) -> list[Cell]:
    edge = card.edge_of_chaos(1.0)
    limits = [card.thresholds[name] for name in FORMATS if name != "float16"]
    return [
        Cell(card.name, "name", picture=sketch(card)),
        *map(_cell, (card.gain, card.backward_gain, card.gains.chi)),
        *(
            (_cell(edge.sigma_w2), _cell(edge.sigma_b2, exact=False))
            if edge is not None
            else (Cell(ABSENT, hint=card.no_edge(1.0)),) * 2
        ),
        _cell(card.linear_r2(), exact=False),
        _cell(card.lipschitz),
        *(_cell(end, 2) for limit in limits for end in (limit.low, limit.high)),
    ]


def _cell(value: float | None, digits: int = 4, *, absent: str = ABSENT, exact: bool = True) -> Cell:
    """Return a number's cell; what is tiny but for rounding is not `exact`."""
    if value is None or math.isnan(value):
        return Cell(absent, "quiet")
    text = _text(value, digits) if exact else number(value, digits)
    return Cell(text, value=value if math.isfinite(value) else None)


def _text(value: float, digits: int = 4) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return number(value, digits) if 1e-3 <= abs(value) < 1e4 or value == 0 else tick_text(float(f"{value:.3g}"))
