"""What a card says in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._card.card import Card
    from softknee._card.kinks import Kink
    from softknee._card.precision import Threshold
    from softknee._card.propagation import Gain
    from softknee._card.shape import Asymptote, Piece

MOST = 6


def facts_of(card: Card) -> dict[str, str]:
    """Return what is known about an activation, by heading; what there is nothing to say about is left out."""
    facts = {
        "formula": card.formula,
        "parameters": _parameters(card),
        "properties": card.properties.sentence,
        "smoothness": smoothness_text(card),
        "monotonic": pieces_text(card.pieces),
        "extremes": ", ".join(f"{one.kind} {number(one.y)} at {number(one.x)}" for one in card.extrema[:MOST]),
        "asymptotes": " and ".join(
            f"{_line(line)} at the far {side}" for side, line in zip(("left", "right"), card.asymptotes, strict=True)
        ),
        "Lipschitz": lipschitz_text(card),
        "gain": gain_text(card.gains),
        "linear part": linear_text(card.linear_r2()),
        "edge of chaos": edge_text(card),
        "self-normalising": normalising_text(card),
        "gradient ends": thresholds_text(card.thresholds),
    }
    return {heading: fact for heading, fact in facts.items() if fact}


def gain_text(found: Gain) -> str:
    """Return the gains as a sentence."""
    verdict = "" if found.valid else "; no valid match: no weight scale suits both directions"
    return f"forward {found.forward:.4f}, backward {found.backward:.4f}, chi {found.chi:.4f}{verdict}"


def linear_text(share: float) -> str:
    """Return the linear share of an output; empty for a constant, which has no variance."""
    return "" if math.isnan(share) else f"{100 * share:.2f} % of the output's variance, for standard normal inputs"


def smoothness_text(card: Card) -> str:
    """Return how smooth an activation is, and where not."""
    return f"{card.smoothness}{_kinks(card.kinks)}"


def pieces_text(pieces: Sequence[Piece]) -> str:
    """Return the monotonic pieces."""
    if not pieces:
        return "rises and falls in many places"
    words = {"rises": "rises", "falls": "falls", "flat": "is constant"}
    if len(pieces) == 1:
        return f"{words[pieces[0].direction]} everywhere"
    shown = [f"{words[piece.direction]} {_interval(piece)}" for piece in pieces[:MOST]]
    more = len(pieces) - len(shown)
    return ", ".join(shown) + (f", and {more} more pieces" if more else "")


def lipschitz_text(card: Card) -> str:
    """Return the Lipschitz constant and where it is reached."""
    slope, place = card.lipschitz, card.lipschitz_at
    if math.isinf(slope):
        return "none: " + (f"it jumps at {number(place)}" if math.isfinite(place) else "its slope grows without bound")
    where = f"at {number(place)}" if math.isfinite(place) else f"at the far {'right' if place > 0 else 'left'}"
    return f"{slope:.7g}, the slope {where}"


def edge_text(card: Card) -> str:
    """Return the edge of chaos at unit variance, or why there is none."""
    edge, rate = card.edge_of_chaos(), card.edge_rate()
    if edge is None:
        reason = card.no_edge()
        return f"none at unit variance: {reason}"
    text = f"sigma_w2 {edge.sigma_w2:.4f}, sigma_b2 {edge.sigma_b2:.4f} at unit variance"
    if rate is None or not math.isfinite(rate.coefficient):
        return text
    if not rate.coefficient:
        return f"{text}; inputs keep their correlation"
    law = f"{rate.coefficient:.4g} / depth{'^2' if rate.power == 2 else ''}"
    if math.isfinite(rate.early):
        depth = float(f"{rate.coefficient / rate.early:.1g}")
        return f"{text}; there 1 - c falls like {rate.early:.4g} / depth, and like {law} from depth {depth:g} on"
    return f"{text}; there 1 - c falls like {law}"


def normalising_text(card: Card) -> str:
    """Return whether an activation keeps mean 0 and variance 1."""
    found = card.self_normalising()
    if not found.fixed:
        return ""
    drawn = "and draws others near" if found.attracting else "but draws no others near"
    return f"keeps mean 0 and variance 1 {drawn} (slope of the variance map {found.variance_slope:.4f})"


def thresholds_text(found: dict[str, Threshold]) -> str:
    """Return where gradients end, by dtype; they may do so by rounding, as of softsign."""
    parts = []
    for name, one in found.items():
        sides = [f"from {number(one.low)} down"] if one.low is not None else []
        sides += [f"from {number(one.high)} up"] if one.high is not None else []
        parts.append(f"{name} {' and '.join(sides) if sides else 'never'}")
    return f"as torch computes it, {'; '.join(parts)}"


def number(value: float) -> str:
    """Return a number for reading."""
    return f"{value + 0.0:.5g}"


def _parameters(card: Card) -> str:
    parts = []
    for name, value in card.parameters.items():
        shown = f"{len(value)} values" if isinstance(value, tuple) else number(float(value))
        parts.append(f"{name} = {shown}")
    return ", ".join(parts)


def _kinks(kinks: Sequence[Kink]) -> str:
    words = {"jump": "value", "kink": "slope", "bend": "second derivative"}
    parts = []
    for kind, what in words.items():
        places = [number(one.place) for one in kinks if one.kind == kind]
        more = f" and {len(places) - MOST} more places" if len(places) > MOST else ""
        parts += [f"{what} at {', '.join(places[:MOST])}{more}"] if places else []
    return f" ({'; '.join(parts)})" if parts else ""


def _interval(piece: Piece) -> str:
    if math.isinf(piece.low):
        return f"up to {number(piece.high)}"
    if math.isinf(piece.high):
        return f"from {number(piece.low)} on"
    return f"from {number(piece.low)} to {number(piece.high)}"


def _line(line: Asymptote | None) -> str:
    if line is None:
        return "none"
    if not line.slope:
        return f"the value {number(line.intercept)}"
    slope = "" if line.slope == 1 else "-" if line.slope == -1 else f"{number(line.slope)} "
    shift = f" {'-' if line.intercept < 0 else '+'} {number(abs(line.intercept))}" if line.intercept else ""
    return f"{slope}x{shift}"
