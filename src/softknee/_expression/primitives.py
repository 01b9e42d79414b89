"""The functions formulas are made of, each with its torch and its symbolic form.

Exponentials and `sinh` saturate near the largest finite number of the dtype instead of overflowing. The value is the
same up to there; beyond, the gradient of a bounded composition such as `tanh(exp(x))` is zero and not `0 * inf`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Node
    from softknee._spec import Param


@dataclass(frozen=True)
class Primitive:
    """A named function.

    Attributes:
        name: As it is written in a formula.
        arity: Number of arguments.
        function: Tensors to tensor; those of `parameters` may be numbers.
        symbolic: `(sympy, *arguments)` to a sympy expression; piecewise rather than `Abs` or `Max`, so that it can be
            differentiated.
        parameters: What the last arguments are, if they may be left out or named.
        definition: The same function as a tree of other primitives, in `x` and the names of the parameters.
    """

    name: str
    arity: int
    function: Callable[..., Tensor] = field(compare=False)
    symbolic: Callable[..., Any] = field(compare=False)
    parameters: tuple[Param, ...] = field(default=(), compare=False)
    definition: Callable[[], Node] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Fold:
    """How the terms of a reduction become one.

    Attributes:
        combine: Two tensors to one.
        symbolic: `(sympy, terms)` to a sympy expression that can be differentiated.
    """

    combine: Callable[[Tensor, Tensor], Tensor]
    symbolic: Callable[[Any, list[Any]], Any]


def _below_overflow(x: Tensor) -> Tensor:
    info = torch.finfo(x.dtype)
    edge = math.log(info.max)
    # The last number of the dtype whose exponential is finite; rounded up, it would be infinite.
    spacing = info.eps * 2 ** math.floor(math.log2(edge))
    return x.clamp(max=math.floor(edge / spacing) * spacing)


def _exp(x: Tensor) -> Tensor:
    return torch.exp(_below_overflow(x))


def _expm1(x: Tensor) -> Tensor:
    return torch.expm1(_below_overflow(x))


def _sinh(x: Tensor) -> Tensor:
    return torch.sinh(-_below_overflow(-_below_overflow(x)))


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=40)


def choose(condition: Tensor, chosen: Callable[..., Tensor], other: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Take one of two branches, each with gradients only from where it is taken: elsewhere they may be NaN."""

    def only(taken: Tensor) -> list[Tensor]:
        return [torch.where(taken, value, value.detach()) for value in values]

    return torch.where(condition, chosen(*only(condition)), other(*only(~condition)))


def _piecewise(sp: Any, condition: Any, chosen: Any, other: Any) -> Any:
    return sp.Piecewise((chosen, condition), (other, True))


def _largest(sp: Any, terms: list[Any]) -> Any:
    """Return the first term that no later one exceeds; nested, the pieces would double with every term."""
    pieces = [(term, sp.And(*[term >= other for other in terms[i + 1 :]])) for i, term in enumerate(terms)]
    return sp.Piecewise(*pieces)


_DEFINITIONS: tuple[tuple[str, int, Callable[..., Tensor], Callable[..., Any]], ...] = (
    ("exp", 1, _exp, lambda sp, a: sp.exp(a)),
    ("expm1", 1, _expm1, lambda sp, a: sp.exp(a) - 1),
    ("log", 1, torch.log, lambda sp, a: sp.log(a)),
    ("log1p", 1, torch.log1p, lambda sp, a: sp.log(1 + a)),
    ("sqrt", 1, torch.sqrt, lambda sp, a: sp.sqrt(a)),
    ("square", 1, torch.square, lambda sp, a: a**2),  # noqa: ARG005
    ("abs", 1, torch.abs, lambda sp, a: _piecewise(sp, a >= 0, a, -a)),
    ("sign", 1, torch.sign, lambda sp, a: sp.Piecewise((1, a > 0), (-1, a < 0), (0, True))),
    ("sin", 1, torch.sin, lambda sp, a: sp.sin(a)),
    ("cos", 1, torch.cos, lambda sp, a: sp.cos(a)),
    ("tan", 1, torch.tan, lambda sp, a: sp.tan(a)),
    ("atan", 1, torch.atan, lambda sp, a: sp.atan(a)),
    ("tanh", 1, torch.tanh, lambda sp, a: sp.tanh(a)),
    ("sinh", 1, _sinh, lambda sp, a: sp.sinh(a)),
    ("asinh", 1, torch.asinh, lambda sp, a: sp.asinh(a)),
    ("erf", 1, torch.erf, lambda sp, a: sp.erf(a)),
    ("sigmoid", 1, torch.sigmoid, lambda sp, a: 1 / (1 + sp.exp(-a))),
    ("softplus", 1, _softplus, lambda sp, a: sp.log(1 + sp.exp(a))),
    ("relu", 1, torch.relu, lambda sp, a: _piecewise(sp, a > 0, a, 0)),
    ("max", 2, torch.maximum, lambda sp, a, b: _piecewise(sp, a >= b, a, b)),
    ("min", 2, torch.minimum, lambda sp, a, b: _piecewise(sp, a <= b, a, b)),
    ("where", 3, torch.where, _piecewise),
    ("+", 2, torch.add, lambda sp, a, b: a + b),  # noqa: ARG005
    ("-", 2, torch.sub, lambda sp, a, b: a - b),  # noqa: ARG005
    ("*", 2, torch.mul, lambda sp, a, b: a * b),  # noqa: ARG005
    ("/", 2, torch.div, lambda sp, a, b: a / b),  # noqa: ARG005
    ("**", 2, torch.pow, lambda sp, a, b: a**b),  # noqa: ARG005
    ("neg", 1, torch.neg, lambda sp, a: -a),  # noqa: ARG005
    ("<", 2, torch.lt, lambda sp, a, b: a < b),  # noqa: ARG005
    ("<=", 2, torch.le, lambda sp, a, b: a <= b),  # noqa: ARG005
    (">", 2, torch.gt, lambda sp, a, b: a > b),  # noqa: ARG005
    (">=", 2, torch.ge, lambda sp, a, b: a >= b),  # noqa: ARG005
)

PRIMITIVES: Mapping[str, Primitive] = MappingProxyType({row[0]: Primitive(*row) for row in _DEFINITIONS})
COMPARISONS = frozenset({"<", "<=", ">", ">="})
FOLDS: Mapping[str, Fold] = MappingProxyType(
    {"sum": Fold(torch.add, lambda sp, terms: sp.Add(*terms)), "largest": Fold(torch.maximum, _largest)}
)
