"""Which arguments a function takes, and what stands for those left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softknee._errors import did_you_mean
from softknee._expression.nodes import Call, Number
from softknee._expression.primitives import PRIMITIVES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from softknee._expression.nodes import Node
    from softknee._expression.primitives import Primitive
    from softknee._spec import Param


def argument_fault(primitive: Primitive, positional: int, named: Sequence[str | None]) -> str:
    """Return what is wrong with a call.

    Args:
        primitive: What is called.
        positional: Number of arguments without a name.
        named: Names of the others.

    Returns:
        A reason; empty where nothing is.
    """
    names = [param.name for param in primitive.parameters]
    least, most = primitive.arity - len(names), primitive.arity
    if named and not names:
        return f"{primitive.name} takes no arguments by name"
    for name in named:
        if name not in names:
            hint = did_you_mean(str(name), names) or ";"
            return f"{primitive.name} has no argument {name!r}{hint} it takes x, {', '.join(names)}"
        if named.count(name) > 1 or name in names[: max(positional - least, 0)]:
            return f"{name} of {primitive.name} is given twice"
    if not least <= positional <= most:
        wanted = f"{least} argument{'s' * (least != 1)}" if least == most else f"{least} to {most} arguments"
        return f"{primitive.name} takes {wanted}, got {positional}"
    return ""


def in_order(primitive: Primitive, positional: Sequence[Node], named: Mapping[str, Node]) -> Call:
    """Return a call with its arguments in order.

    Args:
        primitive: What is called.
        positional: Arguments without a name.
        named: The others; of those left out the defaults are taken.

    Returns:
        The call; of the primitive of that name where nothing but that is asked for, such as `softplus(x)` of the
        catalogued softplus, which has a parameter.
    """
    left = primitive.parameters[len(positional) - primitive.arity + len(primitive.parameters) :]
    rest = [named.get(param.name, Number(float(param.default or 0.0))) for param in left]
    call = Call(primitive, (*positional, *rest))
    plain = PRIMITIVES.get(primitive.name, primitive)
    return Call(plain, call.shown) if len(call.shown) == plain.arity < primitive.arity else call


def value_fault(param: Param, value: float | None) -> str:
    """Return what is wrong with an argument.

    Args:
        param: What it stands for.
        value: The argument; None where it depends on something.

    Returns:
        The second half of a sentence; empty where nothing is.
    """
    if value is None:
        return "must be a number" if param.integer else ""
    if param.integer and not value.is_integer():
        return "must be a whole number"
    if param.low is not None and (value < param.low or (param.open_low and value == param.low)):
        return f"must be {'above' if param.open_low else 'at least'} {param.low:g}"
    if param.high is not None and value > param.high:
        return f"must be at most {param.high:g}"
    return ""
