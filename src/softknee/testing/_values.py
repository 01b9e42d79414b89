"""Values and derivatives in float64 against the formula."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

from softknee.testing._oracle import SIDE
from softknee.testing._subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from softknee._spec import Spec
    from softknee.testing._oracle import Values

TOLERANCE = 1e-12
# At a kink, derivatives are taken this far beside it, for its position may have been rounded.
BESIDE = "1e-14"
# Differences are not taken so near to a place where the first or the second derivative jumps.
NEXT_TO = 1e-3
# Beyond this, float64 may overflow on the way.
LARGEST = 1e300
PLAIN = torch.linspace(-6, 6, 49, dtype=torch.float64).tolist()
FAR = [sign * size for size in (1e-6, 1e-3, 9.0, 15.0, 50.0, 700.0, 1e4) for sign in (-1.0, 1.0)]


def check_values(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check values in float64 against the formula, at the defaults and at other parameters, kinks included.

    Args:
        activation: A spec, or a name of the catalogue.
        **values: Parameter values in place of the defaults.

    Raises:
        AssertionError: A value differs by more than 1e-12 `(1 + |f|) (1 + |x|)`; inputs are at most 1e4.
    """
    subject = Subject(activation, values)
    if subject.spec.kernel is not None:
        check_values(_kernel_form(subject.spec), **values)
    for setting in subject.settings():
        points = _points(subject, setting)
        for channel in subject.channels:
            got = subject(torch.tensor(points, dtype=torch.float64), setting, channel=channel).tolist()
            for x, value in zip(points, got, strict=True):
                exact = subject.oracle.value(x, setting, channel=channel)
                fits = exact is not None and abs(exact) < LARGEST
                if fits and not abs(exact - value) <= TOLERANCE * (1 + abs(exact)) * (1 + abs(x)):
                    subject.fail(f"its formula with {setting}", x, value, float(exact))


def check_derivatives(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check the derivatives by `x` and by every parameter in float64 against the differentiated formula.

    At a kink, the derivative must lie between those from the left and from the right, or be zero.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A derivative differs by more than 1e-12 `(1 + |f'|) (1 + |x|)^2`; inputs are at most 1e4.
    """
    subject = Subject(activation, values)
    if subject.spec.kernel is not None:
        check_derivatives(_kernel_form(subject.spec), **values)
    for setting in subject.settings():
        points, kinks = _points(subject, setting), set(subject.kinks(setting))
        for channel in subject.channels:
            for name, got in gradients(subject, points, setting, channel=channel).items():
                for x, slope in zip(points, got, strict=True):
                    at_kink = x in kinks
                    exact = subject.backward.slopes(name, x, setting, channel=channel, side=BESIDE if at_kink else SIDE)
                    if exact is None or max(map(abs, exact)) > LARGEST:
                        continue
                    if not _is_between(slope, exact, x, at_kink=at_kink):
                        wanted = " to ".join(str(float(side)) for side in dict.fromkeys(exact))
                        subject.fail(f"the derivative by {name} with {setting}", x, slope, wanted)


def check_gradients(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check gradients by differences (`torch.autograd.gradcheck`), parameters scalar and per channel.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A gradient differs from the differences.
    """
    subject = Subject(activation, values)
    if not subject.spec.surrogate:
        _check_by_differences(subject, gradcheck, subject.settings())


def check_second_derivatives(activation: Spec | str, **values: float | tuple[float, ...]) -> None:
    """Check second derivatives by differences (`torch.autograd.gradgradcheck`), parameters scalar and per channel.

    Parameters of 0 are taken at 0.01: derivatives may jump there, as those of an absolute value do. That by `x` is
    never NaN, not at 0 nor far out.

    Args:
        activation: As in `check_values`.
        **values: As in `check_values`.

    Raises:
        AssertionError: A gradient of the gradients differs from the differences.
    """
    subject = Subject(activation, values)
    _check_by_differences(subject, gradgradcheck, map(_off_zero, subject.settings()))
    x = torch.tensor([0.0, *FAR], dtype=torch.float64, requires_grad=True)
    y = subject(x, subject.defaults)
    if not y.requires_grad:
        return
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    bend = torch.zeros_like(x)
    if slope.requires_grad:
        bend += torch.autograd.grad(slope.sum(), x, allow_unused=True, materialize_grads=True)[0]
    for place, value in zip(x.tolist(), bend.tolist(), strict=True):
        if math.isnan(value):
            subject.fail("the second derivative", place, value, "never NaN")


def _off_zero(values: Values) -> Values:
    return {
        name: tuple(entry or 0.01 for entry in value) if isinstance(value, tuple) else value or 0.01
        for name, value in values.items()
    }


def _check_by_differences(subject: Subject, check: Callable[..., bool], settings: Iterable[Values]) -> None:
    for setting in settings:
        kinks = subject.kinks(setting)
        points = [
            x
            for x in (-2.9, -1.1, -0.3, 0.2, 0.7, 2.6)
            if all(abs(x - kink) > NEXT_TO for kink in kinks)
            if subject.in_one_piece(x - NEXT_TO, x + NEXT_TO, setting)
        ]
        columns = len(points)
        x = torch.tensor(points, dtype=torch.float64).repeat(2, 1).requires_grad_()
        for shape in ((), (columns,)):
            arguments = subject.tensors(setting, shape, torch.float64)
            try:
                check(lambda x, *a: subject.apply(x, list(a)), (x, *arguments))
            except (GradcheckError, RuntimeError) as error:
                subject.fail(f"{check.__name__} with {setting}, parameters of shape {shape}", points, error, "none")


def gradients(subject: Subject, points: Iterable[float], values: Values, *, channel: int = 0) -> dict[str, list[float]]:
    """Return the derivatives by `x` and by each parameter's entries at every point, in float64."""
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    return {name: grad.tolist() for name, grad in gradients_at(subject, x, values, channel=channel)[1].items()}


def gradients_at(subject: Subject, x: Tensor, values: Values, *, channel: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the values and the derivatives per element, in the dtype of `x`, which needs gradient."""
    arguments = subject.tensors(values, tuple(x.shape), x.dtype)
    y = subject.apply(x, arguments, channel)
    inputs: list[Any] = [x, *arguments]
    grads = torch.autograd.grad(y, inputs, torch.ones_like(y), allow_unused=True, materialize_grads=True)
    named = {"x": grads[0]}
    for param, grad in zip(subject.spec.parameters, grads[1:], strict=True):
        entries = grad.unbind() if param.vector else (grad,)
        named |= dict(zip(subject.oracle.names(param.name), entries, strict=True))
    return y.detach(), named


def _kernel_form(spec: Spec) -> Spec:
    """Return a spec whose function is the form that kernels are made from."""
    return replace(spec, function=spec.kernel or spec.function, kernel=None)


def _points(subject: Subject, values: Values) -> list[float]:
    kinks = subject.kinks(values)
    beside = [kink + side for kink in kinks for side in (-1e-7, 1e-7)]
    return [*PLAIN, *FAR, *kinks, *beside]


def _is_between(slope: float, exact: tuple[Any, Any], x: float, *, at_kink: bool) -> bool:
    low, high = sorted(exact)
    if at_kink:
        low, high = min(low, 0), max(high, 0)
    slack = TOLERANCE * (1 + abs(x)) ** 2
    return bool(low - slack * (1 + abs(low)) <= slope <= high + slack * (1 + abs(high)))
