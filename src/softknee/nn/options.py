"""Checks the options of an activation before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._errors import OptionError, did_you_mean
from softknee.nn.values import check_values, excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from softknee._spec import Param, Spec


# Of numbers of channels, terms and the like: tensors have no more entries in a dimension than fit into memory.
LARGEST = 2**31


def stored(spec: Spec) -> tuple[Param, ...]:
    """Return the parameters a module of the spec keeps: all but those given with the input."""
    return tuple(param for param in spec.parameters if not param.given)


def needs_channels(spec: Spec) -> bool:
    """Return whether a module must be told the number of channels: it has a network, or parameters for each entry."""
    return spec.kind == "contextual" or (spec.kind == "vector" and bool(spec.initializations) and not spec.terms)


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
    params = stored(spec)
    names = [param.name for param in params]
    named = _named(spec, trainable)
    for name in (*values, *named):
        if name not in names:
            allowed = f"it has {', '.join(names)}" if names else "it has none"
            hint = did_you_mean(name, names) or ";"
            raise OptionError(f"{spec.name} has no parameter {excerpt(name)}{hint} {allowed}")
    fixed = [param.name for param in params if not can_be_trained(param)]
    for name in named:
        if name in fixed:
            raise OptionError(f"{name} of {spec.name} cannot be trained: the function has no derivative by it")
    if (trainable is True or per_channel is not None) and len(fixed) == len(names):
        raise OptionError(f"{spec.name} has no parameters that could be trained or set per channel")
    if per_channel is not None:
        check_whole(spec, "per_channel", per_channel)
    if terms is not None:
        check_whole(spec, "terms", terms, spec.fewest_terms, spec.most_terms)
    if not spec.initializations and (terms is not None or initialization is not None):
        raise OptionError(f"{spec.name} has no terms; it takes neither terms nor initialization")
    if initialization is not None:
        check_choice(spec, "initialization", initialization, spec.initializations)
    if values:
        check_values(spec, params, per_channel, values)


def _named(spec: Spec, trainable: Any) -> tuple[str, ...]:
    """Return the names of the parameters to train where they are named.

    Raises:
        OptionError: They are no names.
    """
    if trainable is None or isinstance(trainable, bool):
        return ()
    names = names_of(trainable)
    if names is None:
        raise OptionError(
            f"trainable of {spec.name} must be True, False or names of its parameters, got {excerpt(trainable)}"
        )
    return names


def names_of(given: Any) -> tuple[str, ...] | None:
    """Return a name, or a collection of them, as a tuple; None for anything else."""
    if isinstance(given, str):
        return (given,)
    names = listed(given)
    return names if names is not None and all(isinstance(name, str) for name in names) else None


def listed(given: Any) -> tuple[Any, ...] | None:
    """Return the entries of a list, tuple, set or what is like them as a tuple; None for anything else."""
    like = (Sequence, AbstractSet, Mapping, ValuesView, Iterator)
    return tuple(given) if isinstance(given, like) and not isinstance(given, str | bytes) else None


def check_whole(spec: Spec, option: str, number: Any, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no whole number in a range.

    Raises:
        OptionError: It is not.
    """
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or not least <= number <= (most or LARGEST):
        # The largest of all is said only to who goes beyond it.
        limit = most or (LARGEST if whole and number > LARGEST else None)
        above = "" if limit is None else f" and at most {limit}"
        raise OptionError(
            f"{option} of {spec.name} must be an integer of at least {least}{above}, got {excerpt(number)}"
        )


def check_integer(spec: Spec, option: str, number: Any) -> None:
    """Refuse what is no whole number.

    Raises:
        OptionError: It is not.
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise OptionError(f"{option} of {spec.name} must be an integer, got {excerpt(number)}")


def check_flag(spec: Spec, option: str, flag: Any) -> None:
    """Refuse what is neither true nor false.

    Raises:
        OptionError: It is not.
    """
    if not isinstance(flag, bool):
        raise OptionError(f"{option} of {spec.name} must be True or False, got {excerpt(flag)}")


def check_generator(spec: Spec, generator: Any) -> None:
    """Refuse what is no source of random numbers.

    Raises:
        OptionError: It is not.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise OptionError(f"generator of {spec.name} must be a torch.Generator, got {excerpt(generator)}")


def check_choice(spec: Spec, option: str, chosen: Any, allowed: Iterable[str]) -> None:
    """Refuse what is none of the allowed names.

    Raises:
        OptionError: It is not.
    """
    choices = tuple(allowed)
    if not isinstance(chosen, str) or chosen not in choices:
        raise OptionError(f"{option} of {spec.name} must be one of {', '.join(choices)}, got {excerpt(chosen)}")
