"""What a spec promises of a function, beside what is seen of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._report.table import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._atlas.facts import Entry
    from softknee._card.properties import Properties

ROUNDING = 1e-9
# A derivative jumps where it differs so much between two points this far on either side.
BESIDE, JUMPS = 1e-7, 1e-5
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
    """Return where which derivative jumps, in words."""
    places = entry.subject.kinks
    if not places:
        return "no kink" if entry.spec.promises.smooth else "a higher derivative jumps"
    sides = torch.tensor([(kink - BESIDE, kink + BESIDE) for kink in places], dtype=torch.float64)
    _, slope, bend = entry.subject.derivatives(sides.flatten())
    jumps = [(y.view(-1, 2).diff(dim=1).flatten().abs() > JUMPS).tolist() for y in (slope, bend)]
    kinks = [kink for kink, jump in zip(places, jumps[0], strict=True) if jump]
    bends = [kink for kink, jump in zip(places, jumps[1], strict=True) if jump and kink not in kinks]
    parts = [f"kink{'s' * (len(kinks) > 1)} at {_places(kinks)}"] if kinks else []
    parts += [f"second derivative jumps at {_places(bends)}"] if bends else []
    return "; ".join(parts) or ("no kink at these values" if not entry.subject.knots else "a higher derivative jumps")


def _places(kinks: Sequence[float]) -> str:
    if len(kinks) > MOST_KINKS:
        return plural(len(kinks), "place")
    return ", ".join(map(figure, kinks))


def range_of(entry: Entry, digits: int = 4) -> str:
    """Return the range of values as seen, closed at ends that are reached."""
    seen = entry.seen
    if seen is None:
        return NONE
    left, right = ("[" if entry.reached[0] else "("), ("]" if entry.reached[1] else ")")
    return f"{left}{figure(seen.minimum, digits)}, {figure(seen.maximum, digits)}{right}"


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
