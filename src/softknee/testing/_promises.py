"""What a spec promises beyond its formula."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from softknee.testing._subject import SEED, Subject, at_defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from softknee._spec import Spec

# Smoothness is looked at up to this derivative, on this range, in this many places.
ORDERS = 3
REACH = 10.0
PLACES = 600
HALVINGS = 26
JUMP = 1e-5
# Symmetries hold up to this.
EXACT = 1e-10
# A Lipschitz constant that no secant comes this near is too large.
NEARLY = 0.99


def check_monotonic(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promise never to decrease, in float64 on sorted points from [-1e4, 1e4]; nothing if it is not made.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: The function decreases by more than rounding.
    """
    subject = at_defaults(activation, values)
    if not subject.spec.promises.monotonic:
        return
    x = _samples()
    for channel in subject.channels:
        y = subject(x, subject.defaults, channel=channel)
        falls = (y[1:] < y[:-1] - 4 * torch.finfo(y.dtype).eps * y[:-1].abs()).nonzero().flatten().tolist()
        for i in falls[:1]:
            subject.fail("monotonic", x[i + 1].item(), y[i + 1].item(), f"at least {y[i].item()}")


def check_bounds(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promised bounds on [-1e4, 1e4], strictly in float64 and to a rounding in other dtypes.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A value is outside.
    """
    subject = at_defaults(activation, values)
    low, high = subject.spec.promises.lower_bound, subject.spec.promises.upper_bound
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = _samples().to(dtype)
        slack = 0.0 if dtype is torch.float64 else torch.finfo(dtype).eps
        for channel in subject.channels:
            y = subject(x, subject.defaults, channel=channel).double()
            if low is not None and (y < low - slack * abs(low)).any():
                subject.fail(f"lower_bound in {dtype}", x[y.argmin()].item(), y.min().item(), f"at least {low}")
            if high is not None and (y > high + slack * abs(high)).any():
                subject.fail(f"upper_bound in {dtype}", x[y.argmax()].item(), y.max().item(), f"at most {high}")


def check_idempotent(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promise that a second application changes neither value nor derivative, on [-1e4, 1e4] and at kinks.

    Like every check of values, at the default parameters and at others.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: One differs.
    """
    subject = Subject(activation, values)
    if not subject.spec.promises.idempotent:
        return
    for setting in subject.settings():
        x = torch.cat([_samples(), torch.tensor(subject.kinks(setting), dtype=torch.float64)])
        x, again = x.requires_grad_(), subject(x, setting).detach().requires_grad_()
        first, second = (subject(point, setting) for point in (x, again))
        slopes = [torch.autograd.grad(y.sum(), point)[0] for y, point in ((first, x), (second, again))]
        for one, other in ((first, second), slopes):
            i = int((one != other).int().argmax())
            if one[i] != other[i]:
                subject.fail(f"idempotent with {setting}", x[i].item(), other[i].item(), one[i].item())


def check_symmetric(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promises `f(-x) = -f(x)`, `f(-x) = f(x)`, `f(0) = 0` and `f(x + p) = f(x)`, in float64.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: One does not hold.
    """
    subject = at_defaults(activation, values)
    promises, x = subject.spec.promises, _samples()
    near = x[x.abs() <= REACH]
    zero, whole = torch.zeros(1, dtype=torch.float64), promises.period or 0.0
    claims = {
        "odd": (promises.odd, x, -x, -1),
        "even": (promises.even, x, -x, 1),
        "zero_at_zero": (promises.zero_at_zero, zero, zero, -1),
        "period": (promises.period is not None, near, near + whole, 1),
    }
    for name, (made, here, there, sign) in claims.items():
        for channel in subject.channels if made else ():
            got, wanted = (subject(at, subject.defaults, channel=channel) for at in (there, here))
            wrong = (got - sign * wanted).abs() - EXACT * (1 + wanted.abs())
            i = int(wrong.argmax())
            if wrong[i] > 0:
                subject.fail(name, there[i].item(), got[i].item(), sign * wanted[i].item())


def check_lipschitz(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promised Lipschitz constant on secants in [-1e4, 1e4], in float64, and that it is nearly reached.

    The latter at the defaults only.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A secant is steeper, or none is nearly as steep.
    """
    subject = at_defaults(activation, values)
    constant = subject.spec.promises.lipschitz
    if constant is None:
        return
    x = _samples().unique()
    for channel in subject.channels:
        y = subject(x, subject.defaults, channel=channel)
        rises, runs = (y[1:] - y[:-1]).abs(), x[1:] - x[:-1]
        rounding = 4 * torch.finfo(y.dtype).eps * (y[1:].abs() + y[:-1].abs())
        slopes = (rises - rounding) / runs
        i = int(slopes.argmax())
        if slopes[i] > constant:
            subject.fail("lipschitz", x[i].item(), f"a secant of slope {slopes[i].item()}", f"at most {constant}")
        if not values and slopes[i] < NEARLY * constant:
            subject.fail("lipschitz", x[i].item(), f"no secant steeper than {slopes[i].item()}", f"nearly {constant}")


def check_smooth(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the promise of smoothness on [-10, 10]: neither the formula nor its first three derivatives jump.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: One does.
    """
    subject = Subject(activation, values)
    if not subject.spec.promises.smooth:
        return
    kinks = subject.kinks(subject.defaults)
    if kinks:
        subject.fail("smooth", ", ".join(map(str, kinks)), "declared kinks", "none")
    derivatives = subject.oracle.derivatives(subject.defaults, ORDERS)
    exact = subject.oracle.derivatives(subject.defaults, ORDERS, digits=True)
    for order, (derivative, certain) in enumerate(zip(derivatives, exact, strict=True)):
        place = _jump(derivative, certain)
        if place is not None:
            subject.fail("smooth", place, f"a jump of derivative {order}", "none")


def _samples() -> Tensor:
    """Return sorted points, dense around zero, where functions bend."""
    generator = torch.Generator().manual_seed(SEED)
    exponents = 8 * torch.rand(4000, generator=generator, dtype=torch.float64) - 4
    signs = 2 * torch.randint(2, (4000,), generator=generator) - 1
    return torch.cat([signs * 10**exponents, torch.linspace(-12, 12, 4801, dtype=torch.float64)]).sort().values


def _jump(function: Callable[[float], float], certain: Callable[[float], float]) -> float | None:
    """Return a place where a function jumps: halving an interval towards the larger change does not end it.

    What is found by floats, which cancel near removable singularities, is confirmed by its form with many digits.
    """
    step = 2 * REACH / PLACES
    # Off the round numbers, where kinks like to be.
    edges = [-REACH + step * (i + 0.37) for i in range(PLACES)]
    heights = [_real(function, x) for x in edges]
    tolerance = JUMP * max((abs(height) for height in heights if height is not None), default=0.0)
    for ends in pairwise(edges):
        # A smooth function bends little over such an interval; only a large change is worth following.
        if _stays(function, ends, tolerance) and _stays(certain, ends, tolerance):
            return ends[0]
    return None


def _stays(function: Callable[[float], float], ends: tuple[float, float], tolerance: float) -> bool:
    start, end = ends
    low, high = _real(function, start), _real(function, end)
    for _ in range(HALVINGS):
        if low is None or high is None or abs(high - low) <= tolerance:
            return False
        middle = (start + end) / 2
        between = _real(function, middle)
        if between is None:
            return False
        if abs(between - low) > abs(high - between):
            end, high = middle, between
        else:
            start, low = middle, between
    return low is not None and high is not None and abs(high - low) > tolerance


def _real(function: Callable[[float], float], x: float) -> float | None:
    """Return a value, or None where the formula has none (a logarithm outside its domain, an overflow)."""
    try:
        return float(function(x))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
