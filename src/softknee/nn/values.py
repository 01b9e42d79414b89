"""Checks the values that an activation's parameters are given: numbers, ranges, shapes, lengths of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.distributed import is_distributed
from softknee._errors import EXCERPT, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from softknee._spec import Param, Spec


def check_values(spec: Spec, params: Iterable[Param], per_channel: int | None, values: Mapping[str, Any]) -> None:
    """Check the values of parameters, but for the lengths of vectors.

    Args:
        spec: The activation.
        params: Its parameters.
        per_channel: Number of channels, where there are values for each.
        values: By name.

    Raises:
        OptionError: One is no number, has another shape or is outside its range.
    """
    numbers = {param.name: _numbers(spec, param, values[param.name]) for param in params if param.name in values}
    for param in params:
        if param.name in numbers:
            _check_shape(spec, param, numbers[param.name], per_channel)
            _check_range(spec, param, numbers[param.name])
    starts = {param.name: numbers.get(param.name, param.default) for param in params}
    for param in params:
        other = param.not_below or param.above
        if other and not numbers.keys().isdisjoint((param.name, other)):
            _check_order(spec, param, torch.as_tensor(starts[other]), torch.as_tensor(starts[param.name]))


def check_vectors(spec: Spec, drawn: Mapping[str, Tensor], values: Mapping[str, Any], terms: int | None) -> None:
    """Check that vectors that are given have the sizes of those drawn, or others that fit together.

    Args:
        spec: The activation.
        drawn: Vectors as its initialization draws them.
        values: Given ones by name, whose shapes have been checked, and other parameters.
        terms: Number of terms, if asked for.

    Raises:
        OptionError: One is too short or too long, or does not fit the others.
    """
    vectors = {param.name: param for param in spec.parameters if param.name in drawn}
    given = [name for name in vectors if name in values]
    if spec.kind == "vector":
        for name in given:
            shape, wanted = _shape(values[name]), _shape(drawn[name])
            if shape != wanted:
                raise OptionError(f"{name} of {spec.name} must be {wanted} with channels={terms}, got {shape}")
        return
    lengths = {name: len(values.get(name, drawn[name])) for name in vectors}
    # How many terms there are more than were drawn, by each of the vectors.
    more = {name: lengths[name] - len(drawn[name]) for name in vectors}
    asked = spec.terms if terms is None else terms
    for name in given:
        param = vectors[name]
        least = param.free_from or len(drawn[name]) - asked + spec.fewest_terms
        if lengths[name] < least:
            raise OptionError(f"{name} of {spec.name} must have at least {_entries(least)}, got {lengths[name]}")
        if spec.most_terms is not None and not param.shorter_than and asked + more[name] > spec.most_terms:
            most = len(drawn[name]) - asked + spec.most_terms
            raise OptionError(f"{name} of {spec.name} must have at most {_entries(most)}, got {lengths[name]}")
        if terms is not None and more[name] and not param.free_from:
            raise OptionError(
                f"{name} of {spec.name} must have {_entries(len(drawn[name]))} with terms={terms}, got {lengths[name]}"
            )
        if not param.free_from:
            _check_others(spec, name, given, lengths, {n: more[n] for n in vectors if not vectors[n].free_from})
    for name, param in vectors.items():
        if param.shorter_than and lengths[name] >= lengths[param.shorter_than]:
            raise OptionError(
                f"{name} of {spec.name} must have fewer entries than {param.shorter_than}, "
                f"got {lengths[name]} and {lengths[param.shorter_than]}"
            )


def _check_others(
    spec: Spec, name: str, given: Iterable[str], lengths: Mapping[str, int], more: Mapping[str, int]
) -> None:
    for other in more:
        if more[other] == more[name]:
            continue
        fault = f"{name} of {spec.name} has {_entries(lengths[name])}, {other} {lengths[other]}"
        if other in given:
            raise OptionError(f"{fault}; they must be of the same number of terms")
        raise OptionError(f"{fault}; give all of them or terms={spec.terms + more[name]}")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _numbers(spec: Spec, param: Param, value: Any) -> Tensor:
    """Return a value as a tensor that can be looked into, whatever the default device is.

    Raises:
        OptionError: It is no number or tensor of real numbers.
    """
    fault = f"{param.name} of {spec.name} must be a number or a tensor, got"
    if isinstance(value, Tensor):
        tensor = value
    else:
        try:
            tensor = torch.as_tensor(
                float(value) if isinstance(value, int) and not isinstance(value, bool) else value, device="cpu"
            )
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise OptionError(f"{fault} {excerpt(value)}") from None
    if tensor.dtype == torch.bool or tensor.is_complex() or tensor.layout != torch.strided:
        raise OptionError(f"{fault} {excerpt(value)}")
    # As it will be stored: what becomes infinite or zero then is so now.
    return tensor.to(torch.get_default_dtype())


def _check_shape(spec: Spec, param: Param, value: Tensor, per_channel: int | None) -> None:
    """Refuse a value that is neither one number, or vector, nor one for each channel.

    Raises:
        OptionError: It is not.
    """
    if param.vector and spec.kind == "vector":
        return
    inner = value.shape[1:] if param.vector else value.shape
    what = f"{param.name} of {spec.name}"
    one = "a vector" if param.vector else "one number"
    many = not (param.integer or spec.kind == "vector")
    if (param.vector and not value.dim()) or len(inner) > 1 or 0 in inner or (inner.numel() > 1 and not many):
        raise OptionError(f"{what} must be {one}{' or one for each channel' * many}, got {shown(value)}")
    count = inner.numel()
    if count in {1, per_channel}:
        return
    entries = f"entries for {count} channels" if param.vector else f"{count} entries"
    if per_channel is None:
        raise OptionError(f"{what} has {entries}; say per_channel={count}")
    raise OptionError(f"{what} has {entries}, but there are {per_channel} channels; give {one} or {per_channel}")


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
        wanted = " and ".join(bounds)
        if param.integer:
            wanted = f"a whole number of {wanted}" if wanted else "a whole number"
        raise OptionError(f"{param.name} of {spec.name} must be {wanted or 'finite'}, got {shown(value)}")


def _check_order(spec: Spec, param: Param, low: Tensor, high: Tensor) -> None:
    if low.is_meta or high.is_meta:
        return
    low = low.to(high.device)
    if (low < high if param.above else low <= high).all():
        return
    other = param.above or param.not_below
    raise OptionError(
        f"{param.name} of {spec.name} must {'be above' if param.above else 'not be below'} {other}, "
        f"got {other}={shown(low)} and {param.name}={shown(high)}"
    )


def _shape(value: Any) -> str:
    """Return a shape in words."""
    if isinstance(value, int | float):
        return "one number"
    shape = value.shape if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu").shape
    if not shape:
        return "one number"
    return _entries(shape[0]) if len(shape) == 1 else " x ".join(map(str, shape))


def shown(value: Tensor | float) -> str:
    """Return a value as it stands in messages: a number, or the shape of a larger tensor."""
    # All processes would have to ask for the number that a DTensor holds.
    if isinstance(value, Tensor) and (value.numel() != 1 or value.is_meta or is_distributed(value)):
        return f"<{' x '.join(map(str, value.shape))}>"
    return f"{float(value):g}"


def excerpt(value: object) -> str:
    """Return what was given as it stands in messages, cut where it is long."""
    if isinstance(value, str):
        return repr(value if len(value) <= EXCERPT else f"{value[:EXCERPT]}...")
    if isinstance(value, int) and value.bit_length() > 4 * EXCERPT:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a tensor of {kind} <{' x '.join(map(str, value.shape))}>"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of thousands of digits.
        text = f"a {type(value).__name__}"
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}..."
