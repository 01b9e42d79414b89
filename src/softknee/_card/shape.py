"""The shape of a function of one number: steepest slope, monotonic pieces, extremes, asymptotes, smoothness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch

from softknee._card.function import HUGE
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from softknee._card.function import Function
    from softknee._card.kinks import Kink

# Looked at evenly near 0, and by powers further out.
NEAR, SPACING, FAR, STEPS = 20.0, 2.5e-3, 1e4, 800
# A slope that still grows by this factor from one far place to one ten times as far has no bound.
GROWTH = 1.05
# Places whose slopes differ by no more, relatively, may belong to equal extremes.
NEARLY = 1e-3
# A piece is flat where the slope beyond its end, this far on, is not that of a tail that merely rounds to 0.
BEYOND, TAIL = 0.05, 1e-9
# Slopes below have the sign of rounding errors.
UNDERFLOW = 1e-30
# Where asymptotes are looked at, and how well they must agree.
OUT = (1e5, 1.7e5, 1e6, 1.7e6, 1e7)
AGREE = 1e-3
# Most pieces that are listed: beyond, a function is a wave.
MOST = 60


@dataclass(frozen=True)
class Asymptote:
    """A straight line that a function approaches on one side.

    Attributes:
        slope: Of the line.
        intercept: Of the line.
    """

    slope: float
    intercept: float


@dataclass(frozen=True)
class Piece:
    """An interval on which a function only rises, only falls, or is constant.

    Attributes:
        low: Where it begins; minus infinity at the far left.
        high: Where it ends; infinity at the far right.
        direction: `"rises"`, `"falls"` or `"flat"`.
    """

    low: float
    high: float
    direction: str


@dataclass(frozen=True)
class Extremum:
    """A place where a function turns.

    Attributes:
        x: Where.
        y: The value there.
        kind: `"minimum"` or `"maximum"`.
    """

    x: float
    y: float
    kind: str


@dataclass(frozen=True)
class Steepest:
    """The Lipschitz constant of a function.

    Attributes:
        slope: `sup |phi'|`; infinite where the function jumps or gets ever steeper.
        place: Where it is reached or approached; infinite where that is far out.
    """

    slope: float
    place: float


@dataclass(frozen=True)
class Shape:
    """What a function looks like on [-1e4, 1e4], by evaluation in float64 and not by proof.

    Attributes:
        steepest: The Lipschitz constant and its place.
        pieces: On which it rises, falls or is constant; none where there are more than 60.
        extrema: Where it turns, likewise.
        left: Asymptote at the far left, if there is one.
        right: Asymptote at the far right.
    """

    steepest: Steepest
    pieces: tuple[Piece, ...]
    extrema: tuple[Extremum, ...]
    left: Asymptote | None
    right: Asymptote | None


def shape_of(function: Function, kinks: Sequence[Kink]) -> Shape:
    """Look at the shape of a function; of several channels, at that of the first.

    Args:
        function: To look at; its own slope counts, not one that the backward pass puts in its place.
        kinks: Where it is not smooth.

    Returns:
        What was seen.

    Raises:
        UsageError: It has no finite value anywhere.
    """
    function = function.value_formula or function
    x = _positions(kinks)
    value, slope = (one[:, 0] for one in function.derivatives(x, 1))
    steepest = _overflowing(x, value)
    seen = value.abs() < HUGE
    if not bool(seen.any()):
        raise UsageError(f"{function.name} has no finite value between -1e4 and 1e4")
    x, slope = x[seen], slope[seen]
    steepest = steepest or _steepest(function, x, slope, kinks)
    pieces = _pieces(function, x, slope, kinks)
    left, right = (_asymptote(function, sign) for sign in (-1.0, 1.0))
    few = len(pieces) <= MOST
    extrema = _extrema(function, pieces) if few else ()
    return Shape(steepest, pieces if few else (), extrema, left, right)


def smoothness(kinks: Sequence[Kink], *, promised: bool) -> str:
    """Say how smooth a function is.

    Args:
        kinks: Where it is not.
        promised: Whether the catalogue promises that it is smooth.

    Returns:
        A few words.
    """
    kinds = {kink.kind for kink in kinks}
    if "jump" in kinds:
        return "jumps"
    if "kink" in kinds:
        return "continuous; its slope jumps"
    if "bend" in kinds:
        return "once continuously differentiable; its second derivative jumps"
    return "smooth" if promised else "twice continuously differentiable, as far as seen"


def _positions(kinks: Sequence[Kink]) -> Tensor:
    near = torch.arange(-NEAR, NEAR, SPACING, dtype=torch.float64) + SPACING / math.pi
    far = torch.logspace(math.log10(NEAR + SPACING), math.log10(FAR), STEPS, dtype=torch.float64)
    places = torch.tensor([kink.place for kink in kinks], dtype=torch.float64)
    beside = places.abs().clamp_min(1) * 1e-12
    every: Tensor = torch.cat([-far, near, far, places - beside, places + beside]).unique()
    return every


def _overflowing(x: Tensor, value: Tensor) -> Steepest | None:
    """Return that a function gets ever steeper, where it leaves the numbers far out."""
    large = value.abs() >= HUGE
    ends = [end for end in (-1.0, 1.0) if bool((large & (end * x > NEAR)).any())]
    return Steepest(math.inf, ends[0] * math.inf) if ends else None


def _slopes(function: Function, x: Tensor) -> Tensor:
    _, slope = function.derivatives(x, 1)
    return slope[:, 0]


def _steepest(function: Function, x: Tensor, slope: Tensor, kinks: Sequence[Kink]) -> Steepest:
    jumps = [kink for kink in kinks if kink.kind == "jump" or math.isinf(kink.size)]
    steep = [kink for kink in jumps if kink.kind != "bend"]
    if steep:
        return Steepest(math.inf, steep[0].place)
    size = slope.abs().nan_to_num(0.0)
    for end in (-1.0, 1.0):
        # Of a wave, the steepest slope in each decade; none where a function is not defined.
        decades = (size[(end * x > low) & (end * x <= 10 * low)] for low in (FAR / 100, FAR / 10))
        inner, outer = (decade.max().item() if len(decade) else 0.0 for decade in decades)
        if outer > GROWTH * inner and outer >= size.max().item():
            return Steepest(math.inf, end * math.inf)
    most = size.max().item()
    # Of places that are as steep, the one closest to 0.
    as_steep = (size >= most * (1 - NEARLY)).nonzero()[:, 0]
    tops = [int(size.argmax()), int(as_steep[x[as_steep].abs().argmin()])]
    climbed = [_climb(function, x, top) for top in tops]
    place, most = climbed[int(climbed[1][1] >= climbed[0][1] * (1 - 1e-12))]
    # A slope that is approached far out seems to be reached where the difference is rounded away.
    end = -1 if size[-1] >= size[0] else 0
    if size[end].item() >= most * (1 - 1e-14) and not any(abs(kink.place - place) < SPACING for kink in kinks):
        return Steepest(size[end].item(), math.copysign(math.inf, x[end].item()))
    return Steepest(most, round(place, 7) + 0.0)


def _climb(function: Function, x: Tensor, start: int) -> tuple[float, float]:
    """Return where a slope is steepest around one of some places, and how steep: by ever finer looks."""
    low, high = x[max(start - 1, 0)].item(), x[min(start + 1, len(x) - 1)].item()
    best = (x[start].item(), _size(function, x[start].item()))
    for _ in range(12):
        closer = torch.linspace(low, high, 33, dtype=torch.float64)
        size = _slopes(function, closer).abs().nan_to_num(0.0)
        at = int(size.argmax())
        if size[at].item() > best[1]:
            best = (closer[at].item(), size[at].item())
        low, high = closer[max(at - 1, 0)].item(), closer[min(at + 1, 32)].item()
    return best


def _size(function: Function, x: float) -> float:
    return abs(_slopes(function, torch.tensor([x], dtype=torch.float64)).item())


class _Run(NamedTuple):
    """Places one after another where the slope has one sign, behind a jump or not."""

    sign: int
    low: float
    high: float
    jump: float | None


def _pieces(function: Function, x: Tensor, slope: Tensor, kinks: Sequence[Kink]) -> tuple[Piece, ...]:
    """Return maximal intervals of one direction."""
    slope = slope.nan_to_num(0.0)
    signs = torch.where(slope.abs() < UNDERFLOW, 0.0, slope).sign()
    jumps = _jumps(x, signs, kinks)
    starts = sorted({0, *((signs[1:] != signs[:-1]).nonzero()[:, 0] + 1).tolist(), *jumps, len(x)})
    if len(starts) > 4 * MOST:
        return tuple(Piece(0.0, 0.0, "flat") for _ in range(MOST + 1))
    runs = [_Run(int(signs[a]), x[a].item(), x[b - 1].item(), jumps.get(a)) for a, b in pairwise(starts)]
    joined: list[_Run] = []
    for run in runs:
        if not run.sign and _rounded(function, run, runs):
            continue
        if joined and joined[-1].sign == run.sign and run.jump is None:
            joined[-1] = joined[-1]._replace(high=run.high)
        else:
            joined.append(run)
    ends = [-math.inf, *(_turn(function, a, b) for a, b in pairwise(joined)), math.inf]
    names = {1: "rises", -1: "falls", 0: "flat"}
    return tuple(Piece(low, high, names[run.sign]) for run, (low, high) in zip(joined, pairwise(ends), strict=True))


def _jumps(x: Tensor, signs: Tensor, kinks: Sequence[Kink]) -> dict[int, float]:
    """Return jumps that end a piece, by the first place behind them: those that go another way than both sides."""
    found = {}
    for kink in kinks:
        behind = int(torch.searchsorted(x, kink.place, right=True))
        if kink.kind == "jump" and 0 < behind < len(x):
            around = {*signs[behind - 1 : behind + 1].tolist(), math.copysign(1.0, kink.size)}
            if len(around) > 1:
                found[behind] = kink.place
    return found


def _rounded(function: Function, run: _Run, runs: Sequence[_Run]) -> bool:
    """Whether a flat run is a tail whose slope merely rounds to 0, or a single point."""
    others = [one for one in runs if one.sign]
    if not others or run.low == run.high:
        return bool(others)
    beyond = [place for place in (run.low - BEYOND, run.high + BEYOND) if abs(place) < FAR]
    return all(_size(function, place) < TAIL for place in beyond)


def _turn(function: Function, before: _Run, after: _Run) -> float:
    """Return where the sign of the slope changes, or a jump is, between two runs."""
    if after.jump is not None:
        return after.jump
    low, high = before.high, after.low
    for _ in range(80):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        slope = _slopes(function, torch.tensor([middle], dtype=torch.float64)).item()
        sign = 0 if abs(slope) < UNDERFLOW else int(math.copysign(1, slope))
        low, high = (middle, high) if sign == before.sign else (low, middle)
    # Where one side is flat, it ends where the other begins.
    place = high if before.sign else low
    return 0.0 if abs(place) < 1e-13 else place


def _extrema(function: Function, pieces: Sequence[Piece]) -> tuple[Extremum, ...]:
    found = []
    for before, after in pairwise(pieces):
        kind = {("falls", "rises"): "minimum", ("rises", "falls"): "maximum"}.get((before.direction, after.direction))
        if kind is not None:
            y = function(torch.tensor([before.high], dtype=torch.float64))[0, 0].item()
            found.append(Extremum(before.high, y, kind))
    return tuple(found)


def _asymptote(function: Function, sign: float) -> Asymptote | None:
    """Return the line that a function approaches; none where it does not, or too slowly to be seen."""
    x = sign * torch.tensor(OUT, dtype=torch.float64)
    value, slope = (one[:, 0] for one in function.derivatives(x, 1))
    if not bool((value.isfinite() & slope.isfinite()).all()):
        return None
    line = slope[-1].item()
    rests = value - line * x
    if (slope - line).abs().max().item() > AGREE or (rests[2:] - rests[-1]).abs().max().item() > AGREE:
        return None
    # What is left falls like 1 / x, if not faster.
    near, far = rests[2].item(), rests[4].item()
    intercept = (far * OUT[4] - near * OUT[2]) / (OUT[4] - OUT[2])
    # A formula that stops at the largest number of its dtype approaches no line.
    return Asymptote(round(line, 9) + 0.0, round(intercept, 6) + 0.0) if math.isfinite(intercept) else None
