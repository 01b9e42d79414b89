"""What a spec promises of a function, beside what is seen of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softknee._report.table import plural

if TYPE_CHECKING:
    from softknee._atlas.facts import Entry
    from softknee._card.properties import Properties

ROUNDING = 1e-9
# Kinks that are listed one by one.
MOST_KINKS = 6
YES, NO, NONE = "yes", "no", "–"


@dataclass(frozen=True)
class Claim:
    """A property.

    Attributes:
        title: Its name.
        promised: What the spec guarantees and tests check, a dash where it says nothing.
        seen: What evaluation shows.
        hint: What the property means.
    """

    title: str
    promised: str
    seen: str
    hint: str = ""


def claims_of(entry: Entry) -> list[Claim]:
    """Return the properties of a function of one number, promised ones beside seen ones."""
    seen = entry.seen
    if seen is None:
        return []
    promises = entry.spec.promises
    claims = [
        Claim("Range", _bounds(promises.lower_bound, promises.upper_bound), range_of(entry)),
        Claim("Never decreases", _said(holds=promises.monotonic), _answer(holds=seen.monotonic)),
        Claim("Smooth", _said(holds=promises.smooth), kinks_text(entry), "Infinitely often differentiable everywhere"),
        Claim("Symmetry", _symmetry(odd=promises.odd, even=promises.even) or NONE, _seen_symmetry(seen)),
        Claim("Value at 0", "0" if promises.zero_at_zero else NONE, figure(seen.at_zero)),
        Claim("Steepest slope", _at_most(promises.lipschitz), figure(seen.lipschitz), "The Lipschitz constant"),
        Claim(
            "Slope far left, far right", NONE, f"{figure(seen.left_slope)}, {figure(seen.right_slope)}", "At ±10,000"
        ),
        Claim("Flat", NONE, f"{100 * seen.flat:.1f} %", "Share of standard normal inputs with a slope below 0.001"),
    ]
    if promises.period is not None:
        claims.insert(4, Claim("Period", figure(promises.period), NONE))
    if promises.idempotent:
        claims.append(
            Claim("Idempotent", YES, NONE, "f(f(x)) = f(x), so that the output can be kept instead of the input")
        )
    return claims


def kinks_text(entry: Entry) -> str:
    """Return where the derivative jumps, in words."""
    places = entry.subject.kinks
    if entry.subject.knots and len(places) > MOST_KINKS:
        return f"{plural(len(places), 'place')} where pieces meet"
    if not places:
        return "no kink"
    listed = ", ".join(map(figure, places[:MOST_KINKS])) + (", …" if len(places) > MOST_KINKS else "")
    return f"{'kink' if len(places) == 1 else 'kinks'} at {listed}"


def range_of(entry: Entry) -> str:
    """Return the range of values as seen, closed at ends that are reached."""
    seen = entry.seen
    if seen is None:
        return NONE
    left, right = ("[" if entry.reached[0] else "("), ("]" if entry.reached[1] else ")")
    return f"{left}{figure(seen.minimum)}, {figure(seen.maximum)}{right}"


def figure(value: float, digits: int = 4) -> str:
    """Return a number for people: a few digits, a true minus, an infinity sign."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{0.0 if abs(value) < ROUNDING else value:.{digits}g}".replace("-", "−")


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {figure(low)} to {figure(high)}"
    if low is not None:
        return f"at least {figure(low)}"
    return NONE if high is None else f"at most {figure(high)}"


def _at_most(value: float | None) -> str:
    return NONE if value is None else f"at most {figure(value)}"


def _said(*, holds: bool) -> str:
    return YES if holds else NONE


def _answer(*, holds: bool) -> str:
    return YES if holds else NO


def _symmetry(*, odd: bool, even: bool) -> str:
    return "odd" if odd else "even" if even else ""


def _seen_symmetry(seen: Properties) -> str:
    return _symmetry(odd=seen.odd, even=seen.even) or "none"
