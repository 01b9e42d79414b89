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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softknee._engine.build import NATIVE, NoCompiler, load

PLACES = (0.0, 0.25, 0.5, 1.0)
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
TINY = 1e-30
# Slopes (times h) at the four places to the coefficients of 1, t, t^2, t^3; the quarter serves the check alone.
_TO_CUBIC = ((0.0, 1.0, -1.5, 2 / 3), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, -4 / 3), (0.0, 0.0, -0.5, 2 / 3))
# Slopes at the four places to the error at the quarter, and to the integral over the bin.
_TO_CHECKS = ((0.375, 1 / 6), (-1.0, 0.0), (0.75, 2 / 3), (-0.125, 1 / 6))
_LIMITS = (VALUE_TOLERANCE, SLOPE_TOLERANCE, ROUNDINGS, CAUTION, VALUE_RATIO)


class Fit(NamedTuple):
    """Cubics over the bins of a grid.

    Attributes:
        rows: `(channels, bins, 4)` float32 coefficients of 1, t, t^2, t^3, with t in [0, 1] across a bin.
        value_error: No value errs by more.
        slope_error: No slope errs by more, except within bins that hold a kink.
        excess: By which factor the worse of the errors exceeds its tolerance; infinite where something is not finite.
    """

    rows: Tensor
    value_error: float
    slope_error: float
    excess: float


def fit(values: Tensor, slopes: Tensor, offsets: Tensor, distances: Tensor, step: float) -> Fit:
    """Fit cubics.

    Args:
        values: `(channels, bins, 2)` of the formula near both ends of each bin, float32, contiguous.
        slopes: `(channels, bins, 4)` near the four places.
        offsets: `(bins, 4)` by how much "near" is off.
        distances: `(bins,)` of the bins from zero.
        step: Width of a bin.

    Returns:
        The cubics and their errors.
    """
    library = _library() if values.device.type == "cpu" else None
    if library is None:
        return _fit_in_torch(values, slopes, offsets, distances, step)
    rows, found = torch.empty_like(slopes), (ctypes.c_float * 3)()
    arrays = (tensor.data_ptr() for tensor in (values, slopes, offsets, distances))
    library.sk_fit(*arrays, step, *slopes.shape[:2], (ctypes.c_float * 5)(*_LIMITS), rows.data_ptr(), found)
    return Fit(rows, *found)


@cache
def _library() -> Any:
    """Return the native code, None without a compiler."""
    try:
        library = load((NATIVE / "fit.c").read_text(encoding="utf-8"))
    except NoCompiler:
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    library.sk_fit.argtypes = [pointer] * 4 + [ctypes.c_float, long, long, pointer, pointer, pointer]
    library.sk_fit.restype = None
    return library


def _fit_in_torch(values: Tensor, slopes: Tensor, offsets: Tensor, distances: Tensor, step: float) -> Fit:
    values = values - slopes[..., ::3] * offsets[:, ::3]
    rows = torch.matmul(slopes, step * constant(_TO_CUBIC, slopes.device))
    rows[..., 0] = values[..., 0]
    quarter, integral = torch.matmul(slopes, constant(_TO_CHECKS, slopes.device)).unbind(-1)
    slope_errors = CAUTION * quarter.abs()
    value_errors = (values[..., 0] + step * integral - values[..., 1]).abs() + step * VALUE_RATIO * slope_errors
    value_scale, slope_scale = values.abs().amax(), slopes.abs().amax()
    bend = (slopes[..., 3] - slopes[..., 0]).abs().amax() / step
    value_noise = ROUNDINGS * (value_scale + distances * slope_scale)
    slope_noise = ROUNDINGS * (slope_scale + distances * bend)
    excess = torch.maximum(
        value_errors / (VALUE_TOLERANCE * value_scale + value_noise + TINY),
        slope_errors / (SLOPE_TOLERANCE * slope_scale + slope_noise + TINY),
    )
    found = (value_errors + value_noise, slope_errors + slope_noise, excess)
    value_error, slope_error, worst = (float(part.amax()) for part in found)
    return Fit(rows, value_error, slope_error, worst if math.isfinite(worst) else math.inf)


@lru_cache(maxsize=8)
def constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return a small matrix, made once, float32 on a device."""
    return torch.tensor(rows, dtype=torch.float32, device=device)
