"""Activations for the places of a model: how wide their inputs must be, and the modules."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from softknee._bench.submission import Submission
from softknee._bench.submission_module import make
from softknee._catalogue import create
from softknee._errors import UsageError
from softknee.nn.activation import Activation
from softknee.nn.options import needs_channels, stored

if TYPE_CHECKING:
    from torch import nn

    from softknee._bench.submission import Entry
    from softknee._catalogue import Choice

# Channels lie here in images and in rows of units alike.
CHANNELS = 1


def units_before(choice: Entry, width: int) -> int:
    """Return how many units the layer before an activation must have, so that `width` come out of it.

    A gated pair takes two for each, Maxout a whole group; CReLU makes two of each.

    Args:
        choice: The activation.
        width: Units, or channels, for the layer behind it.

    Returns:
        Units, or channels, of the layer before it.

    Raises:
        UsageError: No number of them gives that many.
    """
    share = Fraction(1) if isinstance(choice, Submission) else _made_of_one(choice)
    units = width / share
    if units.denominator != 1:
        raise UsageError(f"it makes {share.numerator} of every {share.denominator} units, and so never {width}")
    return units.numerator


def build_activation(choice: Entry, width: int, *, generator: torch.Generator | None = None) -> nn.Module:
    """Make the module for a place.

    Args:
        choice: The activation.
        width: Units, or channels, that it hands on; a bare `per_channel` takes as many.
        generator: Source of drawn parameters; submissions, and networks inside of an activation, draw from the
            global generator.

    Returns:
        The module; it finds its channels in dimension 1.

    Raises:
        UsageError: An option does not fit.
    """
    if isinstance(choice, Submission):
        return make(choice)
    spec = choice.spec
    if spec.kind == "elementwise":
        return choice.build(channels=width, generator=generator)
    options: dict[str, Any] = dict(choice.options)
    if options.get("per_channel") is True:
        options["per_channel"] = width
    if needs_channels(spec):
        options["channels"] = units_before(choice, width)
    if spec.kind != "contextual":
        options["dim"] = CHANNELS
    if spec.initializations:
        options["generator"] = generator
    return create(choice.what, **options)


def has_curve(activation: nn.Module) -> bool:
    """Return whether an activation of softknee is a function of single elements, which can be drawn."""
    return isinstance(activation, Activation) and activation.spec.kind == "elementwise"


def _made_of_one(choice: Choice) -> Fraction:
    """Return how many units an activation makes of one."""
    spec = choice.spec
    if spec.kind == "gated":
        return Fraction(1, 2)
    if spec.promises.same_shape:
        return Fraction(1)
    # Whatever groups it forms, this many can be divided among them.
    values = dict(choice.options)
    units = prod(int(values.get(param.name, param.default or 1)) for param in stored(spec) if param.integer)
    with torch.no_grad():
        made = build_activation(choice, units)(torch.zeros(1, units)).shape[CHANNELS]
    return Fraction(made, units)
