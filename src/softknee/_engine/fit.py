"""Cubics from slopes and values, and how far they are off: by native code, or by torch operations.

Each bin holds the cubic whose slope passes through the formula's own at both ends and in the middle, and whose value is
right at the left end. Slopes thus never come from differences of rounded values. Where the formula is smooth, the slope
errs most near a quarter of the bin, which is where it is checked; the value, its integral, errs most in the middle and
is right again at the right end, which is checked too.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._engine.build import NATIVE, NoCompiler, load

if TYPE_CHECKING:
    from softknee._engine.division import Points

# Relative to the largest value and slope on the grid.
VALUE_TOLERANCE = 2e-6
SLOPE_TOLERANCE = 1e-5
# Of the input and of the value, at their worst over thousands of points. What rounding `x` and the result does to the
# formula anyway, no table can be asked to undercut.
ROUNDINGS = 2 * torch.finfo(torch.float32).eps
# The derivative that decides may vary within a bin, so more than the error at the quarter is assumed.
CAUTION = 2.0
# The largest error of the value over that of the slope times h, where the fourth derivative is constant.
VALUE_RATIO = 72 * math.sqrt(3) / 384
# How much better the value is to be where pieces meet, for the slope may err there; and where that was not reached.
BETTER, STILL_BETTER = 32.0, 4.0
# Of the tolerance for slopes of a function in pieces: derivatives by its parameters bend more than itself.
IN_PIECES = 0.25
# What is found for the value, at most, in a bin where pieces meet: of the jump of the second derivative times h^2.
WORST = 0.083
# Slopes are compared with no more than so many times their mean, unless the bin itself is steeper, so that a slope of
# thousands somewhere does not spoil all others.
PEAK = 128.0
# Rounding `x` moves what a formula adds up to its value by no more than so many times the mean slope, unless the bin
# itself is steeper; the same holds for its slope.
SWING = 16.0
TINY = 1e-30
# Slopes (times h) at the four places to the coefficients of 1, t, t^2, t^3; the quarter serves the check alone.
_TO_CUBIC = ((0.0, 1.0, -1.5, 2 / 3), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, -4 / 3), (0.0, 0.0, -0.5, 2 / 3))
# Slopes at the four places to the error at the quarter, and to the integral over the bin.
_TO_CHECKS = ((0.375, 1 / 6), (-1.0, 0.0), (0.75, 2 / 3), (-0.125, 1 / 6))
# Widths of what is between the places.
_BETWEEN = (0.25, 0.25, 0.5)
_LIMITS = (VALUE_TOLERANCE, SLOPE_TOLERANCE, ROUNDINGS, CAUTION, VALUE_RATIO, BETTER, WORST, PEAK, SWING, IN_PIECES)


class Scales(NamedTuple):
    """What values and slopes on a grid are compared with.

    Attributes:
        value: The largest.
        steepest: The largest slope.
        slope: No more than so many times the mean slope.
        swing: Likewise, for what rounding `x` does to the value.
        bend: Of the second derivative, for what it does to the slope.
    """

    value: float
    steepest: float
    slope: float
    swing: float
    bend: float


class Fit(NamedTuple):
    """Cubics over the bins of a grid.

    Attributes:
        rows: `(channels, bins, 4)` float32 coefficients of 1, t, t^2, t^3, with t in [0, 1] across a bin.
        errors: `(channels, bins, 4)` by how much the value of a bin errs, and its slope; by which factor the worse of
            both exceeds its tolerance in a smooth bin, and the value in one where pieces meet, else 0.
        scales: What values and slopes are compared with, and those of finer bins in turn.
        value_error: No value errs by more.
        slope_error: No slope errs by more, except within bins that hold a kink or the end of a piece.
        excess: By which factor the worst of the errors exceeds its tolerance, on a whole grid that for the value where
            pieces meet, which is to be `BETTER` there; infinite where something is not finite.
    """

    rows: Tensor
    errors: Tensor
    scales: Scales
    value_error: float
    slope_error: float
    excess: float


def fit(
    values: Tensor,
    slopes: Tensor,
    points: Points,
    pieces: Tensor | None = None,
    scales: Scales | None = None,
) -> Fit:
    """Fit cubics.

    Args:
        values: `(channels, bins, 2)` of the formula near both ends of each bin, float32, contiguous.
        slopes: `(channels, bins, 4)` near the four places.
        points: Where that is.
        pieces: `(channels, bins, 2)` numbers of the pieces that both ends are in. The second derivative jumps between
            pieces, so that the slope errs by the step itself there, and is not asked to err by less.
        scales: What values and slopes are compared with, of the whole grid; None where this is it, its bins even.

    Returns:
        The cubics and their errors.
    """
    library = native(values.device)
    if library is None:
        return _fit_in_torch(values, slopes, points, pieces, scales)
    rows, errors, found = torch.empty_like(slopes), torch.empty_like(slopes), (ctypes.c_float * 3)()
    known = (ctypes.c_float * 5)(*(scales or ()))
    library.sk_fit(
        values.data_ptr(),
        slopes.data_ptr(),
        None if pieces is None else pieces.data_ptr(),
        *(part.data_ptr() for part in (points.offsets, points.distances, points.steps)),
        len(points.steps) == 1,
        *slopes.shape[:2],
        (ctypes.c_float * len(_LIMITS))(*_LIMITS),
        known,
        scales is None,
        rows.data_ptr(),
        errors.data_ptr(),
        found,
    )
    return Fit(rows, errors, Scales(*known), *found)


def native(device: torch.device) -> Any:
    """Return the native code, None without a compiler and on other devices."""
    return _library() if device.type == "cpu" else None


@cache
def _library() -> Any:
    try:
        library = load((NATIVE / "fit.c").read_text(encoding="utf-8"))
    except NoCompiler:
        return None
    pointer, long, whole = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    real, double = ctypes.c_float, ctypes.c_double
    library.sk_fit.argtypes = [*[pointer] * 6, whole, long, long, pointer, pointer, whole, *[pointer] * 3]
    library.sk_fit.restype = None
    limits: list[Any] = [real, real, double, double, long, whole, double, pointer]
    library.sk_divide.argtypes = [pointer, long, long, *limits, pointer]
    library.sk_divide_again.argtypes = [pointer, long, long, long, *limits]
    library.sk_divide.restype = library.sk_divide_again.restype = long
    library.sk_cells.argtypes = [pointer, *[long] * 3, double, double, long, double, double, *[pointer] * 6]
    library.sk_cells.restype = None
    return library


def _fit_in_torch(values: Tensor, slopes: Tensor, points: Points, pieces: Tensor | None, scales: Scales | None) -> Fit:
    fresh, steps = scales is None, points.steps
    bend = (slopes.diff(dim=-1).abs() / constant((_BETWEEN,), slopes.device)).amax(-1) / steps
    if scales is None:
        largest, mean = slopes.abs().amax(), slopes[..., 2].abs().mean()
        usual = [torch.min(largest, peak * mean) for peak in (PEAK, SWING)]
        found = (values.abs().amax(), largest, *usual, torch.min(bend.amax(), SWING * bend.mean()))
        scales = Scales(*torch.stack(found).tolist())
    else:
        scales = scales._replace(steepest=max(scales.steepest, float(slopes.abs().amax())))
    values = values - slopes[..., ::3] * points.offsets[..., ::3]
    rows = torch.matmul(slopes, constant(_TO_CUBIC, slopes.device)) * steps[..., None]
    rows[..., 0] = values[..., 0]
    quarter, integral = torch.matmul(slopes, constant(_TO_CHECKS, slopes.device)).unbind(-1)
    by_slope = CAUTION * quarter.abs()
    by_value = (values[..., 0] + steps * integral - values[..., 1]).abs() + steps * VALUE_RATIO * by_slope
    steepest = slopes.abs().amax(-1)
    slope_scales, bends = steepest.clamp(min=scales.slope), bend.clamp(min=scales.bend)
    value_noise = ROUNDINGS * (scales.value + points.distances * steepest.clamp(min=scales.swing))
    slope_noise = ROUNDINGS * (slope_scales.clamp(min=scales.steepest) + points.distances * bends)
    value_limit = VALUE_TOLERANCE * scales.value + value_noise + TINY
    tolerance = IN_PIECES * SLOPE_TOLERANCE if fresh and pieces is not None else SLOPE_TOLERANCE
    slope_excess = by_slope / (tolerance * slope_scales + slope_noise + TINY)
    smooth = torch.maximum(by_value / value_limit, slope_excess)
    found_slopes, joined = by_slope + slope_noise, torch.zeros_like(smooth)
    if pieces is not None:
        whole = pieces[..., 0] == pieces[..., 1]
        likely = WORST * steps * _jumps(slopes) if fresh else joined
        joined = torch.where(whole, joined, torch.maximum(by_value, likely) / value_limit)
        found_slopes, smooth = found_slopes * whole, smooth * whole
    errors = torch.stack((by_value + value_noise, found_slopes, smooth, joined), -1)
    value_error, slope_error, excess, joint = errors.flatten(0, 1).amax(0).tolist()
    finite = bool(values.isfinite().all() & slopes.isfinite().all())
    excess = max(excess, joint * BETTER if fresh else joint) if finite else math.inf
    return Fit(rows, errors, scales, value_error, slope_error, excess)


def _jumps(slopes: Tensor) -> Tensor:
    """Return by how much the derivative of the slope, times h, jumps between the bins next to each, of even bins."""
    left, right = slopes[:, :-2], slopes[:, 2:]
    inside = 2 * ((right[..., 2] - right[..., 0]) - (left[..., 3] - left[..., 2])).abs()
    return F.pad(inside, (1, 1)) if slopes.shape[1] > 1 else torch.zeros_like(slopes[..., 0])


@lru_cache(maxsize=8)
def constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return a small matrix, made once, float32 on a device."""
    return torch.tensor(rows, dtype=torch.float32, device=device)
