"""No NaN and no needless infinity, in every dtype."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee.testing._subject import Subject
from softknee.testing._values import gradients_at

if TYPE_CHECKING:
    from softknee._spec import Spec
    from softknee.testing._oracle import Values

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Parameters far from the defaults, as in `softknee.testing._subject.SETTINGS`.
EXTREMES = ((0.05, 3.0), (20.0, -3.0))
# Logarithms of the largest numbers of float16, float32 and float64: where exponentials overflow.
OVERFLOWS = tuple(math.log(torch.finfo(dtype).max) for dtype in (torch.float16, torch.float32, torch.float64))
# Accuracy is asked for where a rounding of the inputs changes the value by less than this.
CONDITIONED = 0.05


def check_finite(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check every dtype on [-1e4, 1e4]: value and all derivatives, per element.

    They are finite wherever the exact value fits the dtype, else they may be infinite of the right sign; they are never
    NaN. The points include both zeros, subnormals, powers of two and the surroundings of every exponential's overflow.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: Naming dtype, quantity and point.
    """
    subject = Subject(activation, values)
    for exact in subject.settings(*EXTREMES):
        for dtype in DTYPES:
            setting = _rounded(exact, dtype)
            for channel in subject.channels:
                x = _points(dtype).requires_grad_()
                y, grads = gradients_at(subject, x, setting, channel=channel)
                fixed = subject(x.detach(), setting, channel=channel)
                for name, got in {"": y, " at fixed parameters": fixed, **grads}.items():
                    if got.dtype != dtype or got.shape != x.shape:
                        subject.fail("dtype and shape", f"{dtype}", (got.dtype, got.shape), (dtype, x.shape))
                    _check_infinities(subject, name, x.detach(), got, setting, channel)


def check_accuracy(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check values in every dtype against the formula, where they are well conditioned.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A value is off by more than 8 roundings of the inputs and of the value, as after an overflow
            inside the function.
    """
    subject = Subject(activation, values)
    for channel in subject.channels:
        for x in _shared_points():
            exact = subject.oracle.value(x, subject.defaults, channel=channel)
            condition = _condition(subject, x, channel)
            for dtype in DTYPES if exact is not None and condition is not None else ():
                eps, largest = torch.finfo(dtype).eps, torch.finfo(dtype).max
                got = subject(torch.tensor(x, dtype=dtype), subject.defaults, channel=channel).item()
                fits = abs(exact) < largest / 2 and condition * eps < CONDITIONED * (1 + abs(exact))
                if fits and not abs(got - exact) <= 8 * eps * (1 + abs(exact) + condition):
                    subject.fail(f"accuracy in {dtype}", x, got, float(exact))


def _check_infinities(subject: Subject, name: str, x: Tensor, got: Tensor, values: Values, channel: int) -> None:
    largest = torch.finfo(got.dtype).max * (1 - 2 * torch.finfo(got.dtype).eps)
    for i in (~got.isfinite()).nonzero().flatten().tolist():
        point, number = x[i].item(), got[i].item()
        what = f"{got.dtype} {f'derivative by {name}' if name.isidentifier() else f'value{name}'} with {values}"
        if math.isnan(number):
            subject.fail(what, point, number, "never NaN")
        exact = _exact(subject, name, point, values, channel)
        value = subject.oracle.value(point, values, channel=channel)
        if exact is None or max(abs(exact), abs(value)) < largest or exact * number < 0:
            subject.fail(what, point, number, exact if exact is None else float(exact))


def _rounded(values: Values, dtype: torch.dtype) -> Values:
    """Return parameters as a dtype holds them: an oscillating function of large inputs is another with others."""
    held = {name: torch.tensor(value, dtype=dtype).tolist() for name, value in values.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in held.items()}


def _exact(subject: Subject, name: str, x: float, values: Values, channel: int) -> Any:
    if not name.isidentifier():
        return subject.oracle.value(x, values, channel=channel)
    sides = subject.backward.slopes(name, x, values, channel=channel)
    return None if sides is None else max(sides, key=abs)


def _condition(subject: Subject, x: float, channel: int) -> Any:
    """Return by how much the value changes for relative changes of size 1 of all inputs; None where undefined."""
    entries = {"x": x}
    for name, value in subject.defaults.items():
        entries |= dict(zip(subject.oracle.names(name), value if isinstance(value, tuple) else (value,), strict=True))
    slopes = [subject.oracle.slopes(name, x, subject.defaults, channel=channel) for name in entries]
    if None in slopes:
        return None
    return sum(abs(size) * max(map(abs, sides)) for size, sides in zip(entries.values(), slopes, strict=True) if sides)


def _points(dtype: torch.dtype) -> Tensor:
    info = torch.finfo(dtype)
    sizes = [0.0, info.smallest_normal, info.smallest_normal * info.eps, *[2.0**k for k in range(-24, 14)], 1e4]
    near = [edge + step for edge in OVERFLOWS for step in (-0.6, -0.1, -0.01, 0.0, 0.01, 0.1, 0.7)]
    positive = torch.tensor([*sizes, *near], dtype=torch.float64)
    dense = torch.cat([torch.linspace(-1e4, 1e4, 401), torch.linspace(-130, 130, 1041)]).double()
    return torch.cat([positive, -positive, dense]).to(dtype)


def _shared_points() -> list[float]:
    """Return numbers that all dtypes hold exactly."""
    sizes = [part * 2.0**k for k in range(-12, 13) for part in (1.0, 1.375)]
    return [0.0, *sizes, *[-size for size in sizes]]
