"""Gated pairs by the name of their gate."""

from __future__ import annotations

from typing import Any

from softknee._catalogue import get, parse_choice
from softknee._errors import OptionError
from softknee.nn.formula import FUNCTIONS
from softknee.nn.gated_by import GatedBy
from softknee.nn.values import excerpt


def glu(gate: str, **options: Any) -> GatedBy:
    """Make a gated pair: an activation of one half of the input, times the other half.

    `glu("silu")` is SwiGLU, `glu("mish")` what nobody has named yet. Units that have a name and a source, among them
    some that are no such product, are in the catalogue: `softknee.list("glu")`.

    Args:
        gate: An activation of single elements: a name (`"mish"`), a name with options (`"swish[beta=1.5]"`) or a
            formula (`"x * sigmoid(b * x)"`).
        **options: Parameter values by name (`b=1.0`), and those of `softknee.nn.GatedBy`: `limit`, `dim`, `gate_first`,
            `interleaved`, `per_channel`, `trainable`, `engine`, ...

    Returns:
        The module.

    Raises:
        UnknownActivation: The gate is a single word and no name of the catalogue.
        AmbiguousActivation: Several functions go by that name.
        ExpressionError: The gate is no formula.
        OptionError: The gate looks at more than single elements or is random; or an option is unknown, missing, given
            twice or out of range.
    """
    if isinstance(gate, str) and "[" in gate:
        choice = parse_choice(gate)
        written = dict(choice.options)
        twice = [name for name in written if name in options]
        if twice:
            raise OptionError(f"{twice[0]} is given twice: in {excerpt(gate)} and as an option; keep one")
        if written.get("per_channel") is True:
            raise OptionError(f"say how many channels {excerpt(gate)} has, as in per_channel=64")
        gate, options = choice.what, {**written, **options}
    elif isinstance(gate, str) and gate.isidentifier() and gate != "x" and gate not in FUNCTIONS:
        get(gate)  # knows names that stand for several functions
    return GatedBy(gate, **options)
