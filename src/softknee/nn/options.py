"""Checks the options of an activation before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from softknee._spec import Param, Spec


def stored(spec: Spec) -> tuple[Param, ...]:
    """Return the parameters a module of the spec keeps: all but those given with the input."""
    return tuple(param for param in spec.parameters if not param.given)


def can_be_trained(param: Param) -> bool:
    """Return whether the function has a derivative by a parameter."""
    return not (param.integer or param.fixed)


def check_options(
    spec: Spec,
    trainable: bool | Collection[str] | None,
    per_channel: int | None,
    terms: int | None,
    initialization: str | None,
    values: Mapping[str, float | Tensor],
) -> None:
    """Check the options of an activation before anything is built.

    Args:
        spec: The activation.
        trainable: As in `Elementwise`.
        per_channel: As in `Elementwise`.
        terms: As in `Elementwise`.
        initialization: As in `Elementwise`.
        values: Parameter values by name.

    Raises:
        OptionError: Naming the option, what was given and what is allowed.
    """
    names = [param.name for param in stored(spec)]
    named = [] if isinstance(trainable, bool | None) else trainable
    for name in (*values, *named):
        if name not in names:
            allowed = f"it has {', '.join(names)}" if names else "it has none"
            raise OptionError(f"{spec.name} has no parameter {name!r}{did_you_mean(name, names) or ';'} {allowed}")
    fixed = [param.name for param in stored(spec) if not can_be_trained(param)]
    for name in named:
        if name in fixed:
            raise OptionError(f"{name} of {spec.name} cannot be trained: the function has no derivative by it")
    if (trainable is True or per_channel is not None) and len(fixed) == len(names):
        raise OptionError(f"{spec.name} has no parameters that could be trained or set per channel")
    for option, number, least in (("per_channel", per_channel, 1), ("terms", terms, spec.fewest_terms)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
            raise OptionError(f"{option} of {spec.name} must be an integer of at least {least}, got {number!r}")
    vectors = bool(spec.initializations)
    if not vectors and (terms is not None or initialization is not None):
        raise OptionError(f"{spec.name} has no terms; it takes neither terms nor initialization")
    if initialization is not None and initialization not in spec.initializations:
        allowed = ", ".join(spec.initializations)
        raise OptionError(f"initialization of {spec.name} must be one of {allowed}, got {initialization!r}")
    for param in stored(spec):
        if param.name in values:
            _check_range(spec, param, _numbers(values[param.name]))
    _check_order(spec, values)


def _check_order(spec: Spec, values: Mapping[str, float | Tensor]) -> None:
    starts = {param.name: values.get(param.name, param.default) for param in stored(spec)}
    for param in stored(spec):
        if not param.not_below:
            continue
        low, high = _numbers(starts[param.not_below]), _numbers(starts[param.name])
        if not (low.is_meta or high.is_meta or (low <= high).all()):
            raise OptionError(
                f"{param.name} of {spec.name} must not be below {param.not_below}, "
                f"got {param.not_below}={shown(low)} and {param.name}={shown(high)}"
            )


def _numbers(value: Any) -> Tensor:
    """Return a value as a tensor that can be looked into, whatever the default device is."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")


def _check_range(spec: Spec, param: Param, value: Tensor) -> None:
    if value.is_meta:
        return
    low, high = param.low, param.high
    inside = value.isfinite()
    if param.integer:
        inside &= value == value.round()
    if low is not None:
        inside &= value > low if param.open_low else value >= low
    if high is not None:
        inside &= value <= high
    if not inside.all():
        bounds = [] if low is None else [f"{'above' if param.open_low else 'at least'} {low:g}"]
        bounds += [] if high is None else [f"at most {high:g}"]
        wanted = ("a whole number " if param.integer else "") + " and ".join(bounds) or "finite"
        raise OptionError(f"{param.name} of {spec.name} must be {wanted}, got {shown(value)}")


def shown(value: Tensor | float) -> str:
    """Return a value as it stands in messages: a number, or the shape of a larger tensor."""
    if isinstance(value, Tensor) and (value.numel() > 1 or value.is_meta):
        return f"<{' x '.join(map(str, value.shape))}>"
    return f"{float(value):g}"
