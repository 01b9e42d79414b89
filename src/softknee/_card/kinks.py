"""Where a function or one of its first two derivatives jumps: declared places and ones that are found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from softknee._card.function import HUGE

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._card.function import Function

# Scanned evenly near 0 and by powers further out.
NEAR, SPACING, FAR, STEPS = 20.0, 5e-3, 1e4, 400
KINDS = ("jump", "kink", "bend")
# How much of the variation over an interval must be left after this many halvings for it to be halved further.
EARLY, LEFT, ROUNDS = 6, 0.03, 60
# Jumps below are rounding, relatively to the size of the function or derivative.
LEAST = (1e-9, 1e-8, 1e-6)
# Within one interval of the scan at most this many are told apart.
MOST = 12
# Found places are within this of the true ones, relatively: those of a simple number are taken to be it.
SIMPLE, DECIMALS = 4e-15, 12
# How far beside a declared place its two sides are looked at, relatively.
BESIDE = 1e-9
# What is left of a change over half the step: half where it is smooth, all where it is a jump.
SHRINKING, GROWING = 0.7, 1.2


@dataclass(frozen=True)
class Kink:
    """A place where a function is not smooth.

    Attributes:
        place: Where.
        kind: What jumps there: `"jump"` for the value, `"kink"` for the slope, `"bend"` for the second derivative; the
            first of them, where several do.
        size: By how much, from left to right; in the channel where it
            is largest. Infinite where it grows without bounds.
        declared: Whether the catalogue says so, rather than that it was found.
    """

    place: float
    kind: str
    size: float
    declared: bool


def kinks_of(function: Function) -> tuple[Kink, ...]:
    """Return where a function, its slope or its second derivative jumps, in float64.

    Declared places are looked at from both sides. All others are found by a scan of [-20, 20] in steps of 0.005, and
    of [-1e4, 1e4] in steps of 1.6 %: each interval is halved towards the larger change until two neighbouring numbers
    are left; a change that is left is a jump. No distance between two of them is too small to be told apart but
    that of neighbouring numbers.

    Args:
        function: What to look at. Where the backward pass takes the derivative of something else, the kinks of both are
            listed.

    Returns:
        The places, ascending. Jumps of third and higher derivatives, and such as are a thirtieth of the variation
        within their step, are not among them.
    """
    found = _kinks(function)
    if function.value_formula is not None:
        backward = {one.place: one for one in found}
        found = [*_kinks(function.value_formula), *(one for one in found if one.kind != "jump")]
        found = [*{**backward, **{one.place: one for one in found}}.values()]
    return tuple(sorted(found, key=lambda one: one.place))


def _kinks(function: Function) -> list[Kink]:
    places = dict.fromkeys(function.declared, True)
    edges = _edges()
    found: list[Kink] = []
    every = function.derivatives(edges, 2)
    # Where numbers end, a formula stops with a kink that is not the function's.
    edges = edges[~(every[0].abs() >= HUGE).any(1)]
    sizes = tuple(one.abs().median().item() for one in every)
    for order in range(3):
        least = LEAST[order] * max(1.0, sizes[order] if math.isfinite(sizes[order]) else 1.0)
        known = {one.place for one in found}
        shut = torch.tensor([*places], dtype=torch.float64)
        cuts = torch.cat([edges, shut]).unique()
        # What is known to jump at an end is not looked for again.
        low = torch.where(torch.isin(cuts[:-1], shut), torch.nextafter(cuts[:-1], cuts[1:]), cuts[:-1])
        high = torch.where(torch.isin(cuts[1:], shut), torch.nextafter(cuts[1:], cuts[:-1]), cuts[1:])
        for pair in _search(function, order, low, high, least):
            _enter(places, _simple(*pair))
        for place, declared in places.items():
            size = _size(function, place, order, least)
            if size and place not in known:
                found.append(Kink(place, KINDS[order], size, declared))
    return found


def _enter(places: dict[float, bool], place: float) -> None:
    """Add a place that was found; a declared one that differs by rounding is moved there."""
    close = [one for one in places if abs(one - place) <= SIMPLE * max(1.0, abs(place))]
    places[place] = any(places.pop(one) for one in close)


def _edges() -> Tensor:
    near = torch.arange(-NEAR, NEAR + SPACING / 2, SPACING, dtype=torch.float64)
    # Simple numbers, where kinks are, shall be within steps.
    near[1:-1] += SPACING / math.pi
    far = torch.logspace(math.log10(NEAR), math.log10(FAR), STEPS, dtype=torch.float64)[1:]
    return torch.cat([-far.flip(0), near, far])


def _search(function: Function, order: int, low: Tensor, high: Tensor, least: float) -> list[tuple[float, float]]:
    """Return pairs of neighbouring numbers between which a derivative jumps."""
    found: list[tuple[float, float]] = []
    for _ in range(MOST):
        a, b = _narrowed(function, order, low, high, least)
        if not len(a):
            break
        found += zip(a.tolist(), b.tolist(), strict=True)
        # What else there is in the same intervals, on either side.
        inside = torch.searchsorted(low, a, right=True) - 1
        starts, ends = low[inside], high[inside]
        low, high = torch.cat([starts, b]), torch.cat([a, ends])
        order_of = low.argsort()
        low, high = low[order_of], high[order_of]
        wide = high - low > 1e-13 * low.abs().clamp_min(1)
        low, high = low[wide], high[wide]
    return found


def _narrowed(function: Function, order: int, low: Tensor, high: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Halve intervals towards the larger change, and return those over which one is left."""
    a, b = low, high
    left, right = _at(function, a, order), _at(function, b, order)
    first = _change(left, right)
    for step in range(ROUNDS):
        middle = (a + b) / 2
        at = _at(function, middle, order)
        to_left = _change(left, at) >= _change(at, right)
        a, b = torch.where(to_left, a, middle), torch.where(to_left, middle, b)
        left, right = torch.where(to_left[:, None], left, at), torch.where(to_left[:, None], at, right)
        keep = _change(left, right) > least
        if step >= EARLY:
            keep &= _change(left, right) > LEFT * first
        a, b, left, right, first = (one[keep] for one in (a, b, left, right, first))
        if not len(a) or bool((b - a <= 2e-16 * torch.maximum(a.abs(), b.abs()).clamp_min(1e-3)).all()):
            break
    return a, b


def _at(function: Function, x: Tensor, order: int) -> Tensor:
    return function.derivatives(x, order)[order].nan_to_num(0.0, math.inf, -math.inf)


def _change(left: Tensor, right: Tensor) -> Tensor:
    return (right - left).nan_to_num(0.0).abs().amax(1)


def _simple(low: float, high: float) -> float:
    """Return a simple number between two neighbouring ones, or the first of them."""
    plain = round(high, DECIMALS) + 0.0
    return plain if abs(plain - low) <= SIMPLE * max(1.0, abs(low)) else low


def _size(function: Function, place: float, order: int, least: float) -> float:
    """Return by how much a derivative jumps: what its change over a small step tends to; of channels, the largest."""
    beside = BESIDE * max(1.0, abs(place))
    steps = torch.tensor([-beside, -beside / 2, beside / 2, beside], dtype=torch.float64)
    far_left, left, right, far_right = _at(function, place + steps, order)
    wide, narrow = far_right - far_left, right - left
    # A smooth change is in proportion to the step, and is left out; one that grows as the step shrinks has no end.
    size = torch.where(narrow.abs() > GROWING * wide.abs(), narrow.sign() * math.inf, 2 * narrow - wide)
    size = torch.where((narrow.abs() <= least) | (narrow.abs() < SHRINKING * wide.abs()), 0.0, size)
    return size[size.abs().argmax()].item()
