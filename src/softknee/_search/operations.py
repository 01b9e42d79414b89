"""What functions are made of in a search: operations on one number and on two, as tensors and in formulas.

Bounds are on inputs: a square is at most the bound, has the gradient 0 beyond, and nothing overflows on the way.
Formulas hold the same bounds, so that what is found is what was searched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softknee._errors import OptionError
from softknee._expression.evaluate import evaluate
from softknee._expression.nodes import Call, Number
from softknee._expression.walk import ONE, ZERO, call, replace_names
from softknee.nn.formula import FUNCTIONS, expression

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._expression.nodes import Node
    from softknee._expression.primitives import Primitive
    from softknee._expression.tree import Expression

# Below it a square root is that of this number, so that its slope is bounded.
LEAST_ROOTED = 1e-3
# From here on, softplus is the identity to the last digit of float64.
LARGE = 40
# Mean and deviation of a learnable scalar's starting value.
AROUND_ONE, ZERO_EXACTLY = (1.0, 0.25), (0.0, 0.0)


@dataclass(frozen=True)
class Operation:
    """A function of one number or of two that a cell can choose.

    Attributes:
        name: As genotypes have it.
        arity: 1 or 2.
        function: `(*inputs, bound=...)` or `(*inputs, beta, bound=...)`: tensors, which broadcast, to a tensor.
        node: The same on trees of formulas.
        beta: Mean and deviation of the normal distribution that the learnable scalar starts from; None without one.
        formula: That it was made from, empty where it was not.
    """

    name: str
    arity: int
    function: Callable[..., Tensor]
    node: Callable[..., Node]
    beta: tuple[float, float] | None = None
    formula: str = ""

    @classmethod
    def of(cls, name: str, formula: str, *, beta: tuple[float, float] | None = None) -> Operation:
        """Make an operation from a formula.

        Args:
            name: As genotypes have it.
            formula: In `x`, or in `x` and `y`, which makes it one on two numbers. It may use `beta`, the learnable
                scalar, and `bound`, the space's.
            beta: Mean and deviation of the scalar's starting value, where the formula has one.

        Returns:
            The operation.

        Raises:
            ExpressionError: The text is no formula.
            OptionError: It has other names, or no `beta` where one is described, or the other way round.
        """
        tree = expression(formula)
        others = [one for one in tree.parameters if one not in {"y", "beta", "bound"}]
        if others:
            raise OptionError(f"{others[0]!r} in {formula!r} is none of x, y, beta and bound")
        if ("beta" in tree.parameters) != (beta is not None):
            raise OptionError(
                f"beta must be given as (mean, deviation) just where the formula has it; {formula!r}, {beta}"
            )
        inputs = ("x", "y") if "y" in tree.parameters else ("x",)
        names = inputs if beta is None else (*inputs, "beta")
        return cls(name, len(inputs), partial(_evaluated, tree, names), partial(_written, tree, names), beta, formula)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Return how to find it again, for copies and other processes: its functions have no names."""
        known = UNARY if self.arity == 1 else BINARY
        if known.get(self.name) is self:
            return (_known, (self.arity, self.name))
        return (_again, (self.name, self.formula, self.beta)) if self.formula else super().__reduce__()


def _again(name: str, formula: str, beta: tuple[float, float] | None) -> Operation:
    return Operation.of(name, formula, beta=beta)


def _evaluated(tree: Expression, names: tuple[str, ...], *given: Tensor, bound: float) -> Tensor:
    values = dict(zip(names, given, strict=True))
    return evaluate(tree.root, values["x"], {**values, "bound": bound})


def _written(tree: Expression, names: tuple[str, ...], *given: Node, bound: float) -> Node:
    return replace_names(tree.root, {**dict(zip(names, given, strict=True)), "bound": Number(bound)})


def _clamped(x: Tensor, limit: float) -> Tensor:
    return x.clamp(-limit, limit)


def _clamped_node(x: Node, limit: float) -> Node:
    return call("min", call("max", x, Number(-limit)), Number(limit))


def _scalar(beta: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(beta, dtype=like.dtype, device=like.device)


def _mix(a: Tensor, b: Tensor, beta: Tensor | float) -> Tensor:
    share = torch.sigmoid(_scalar(beta, a))
    return share * a + (1 - share) * b


def _mix_node(a: Node, b: Node, beta: Node) -> Node:
    share = call("sigmoid", beta)
    return call("+", call("*", share, a), call("*", call("-", ONE, share), b))


def _catalogued(name: str) -> Callable[[Node], Node]:
    """Return the call of a catalogued function with its defaults."""
    primitive: Primitive | Any = FUNCTIONS[name]

    def node(x: Node) -> Node:
        return Call(primitive, (x, *(Number(float(param.default or 0.0)) for param in primitive.parameters)))

    return node


def _free(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes a bound and needs none."""

    def unbounded(*inputs: Any, bound: float) -> Any:  # noqa: ARG001
        return function(*inputs)

    return unbounded


def _primitive(name: str) -> Callable[[Node], Node]:
    return lambda *inputs: call(name, *inputs)


def _simple(name: str, arity: int, function: Callable[..., Tensor], node: Callable[..., Node]) -> Operation:
    return Operation(name, arity, _free(function), _free(node))


def _square_node(x: Node, bound: float) -> Node:
    return call("square", _clamped_node(x, math.sqrt(bound)))


def _cube_node(x: Node, bound: float) -> Node:
    return call("**", _clamped_node(x, bound ** (1 / 3)), Number(3.0))


def _product(a: Tensor, b: Tensor, bound: float) -> Tensor:
    return _clamped(a, math.sqrt(bound)) * _clamped(b, math.sqrt(bound))


def _product_node(a: Node, b: Node, bound: float) -> Node:
    return call("*", _clamped_node(a, math.sqrt(bound)), _clamped_node(b, math.sqrt(bound)))


def _known(arity: int, name: str) -> Operation:
    return (UNARY if arity == 1 else BINARY)[name]


def _by_name(*operations: Operation) -> Mapping[str, Operation]:
    return MappingProxyType({operation.name: operation for operation in operations})


UNARY: Mapping[str, Operation] = _by_name(
    _simple("identity", 1, lambda x: x, lambda x: x),
    _simple("negate", 1, torch.neg, _primitive("neg")),
    _simple("abs", 1, torch.abs, _primitive("abs")),
    Operation("square", 1, lambda x, bound: _clamped(x, math.sqrt(bound)).square(), _square_node),
    Operation("cube", 1, lambda x, bound: _clamped(x, bound ** (1 / 3)) ** 3, _cube_node),
    _simple(
        "sqrt",
        1,
        lambda x: x.clamp(min=LEAST_ROOTED).sqrt(),
        lambda x: call("sqrt", call("max", x, Number(LEAST_ROOTED))),
    ),
    Operation("add_beta", 1, _free(torch.add), _free(_primitive("+")), AROUND_ONE),
    Operation("mul_beta", 1, _free(torch.mul), _free(_primitive("*")), AROUND_ONE),
    Operation(
        "const_beta",
        1,
        _free(lambda x, beta: torch.zeros_like(x) + beta),
        _free(lambda _, beta: beta),
        AROUND_ONE,
    ),
    Operation(
        "exp",
        1,
        lambda x, bound: x.clamp(max=math.log(bound)).exp(),
        lambda x, bound: call("exp", call("min", x, Number(math.log(bound)))),
    ),
    Operation(
        "sinh",
        1,
        lambda x, bound: _clamped(x, math.asinh(bound)).sinh(),
        lambda x, bound: call("sinh", _clamped_node(x, math.asinh(bound))),
    ),
    _simple("tanh", 1, torch.tanh, _primitive("tanh")),
    _simple("asinh", 1, torch.asinh, _primitive("asinh")),
    _simple("atan", 1, torch.atan, _primitive("atan")),
    _simple("sigmoid", 1, torch.sigmoid, _primitive("sigmoid")),
    _simple("erf", 1, torch.erf, _primitive("erf")),
    _simple("max0", 1, torch.relu, _primitive("relu")),
    _simple("min0", 1, lambda x: -torch.relu(-x), lambda x: call("min", x, ZERO)),
    _simple("softplus", 1, lambda x: F.softplus(x, threshold=LARGE), _primitive("softplus")),
    _simple("silu", 1, F.silu, _catalogued("silu")),
    _simple("gelu", 1, F.gelu, _catalogued("gelu")),
    _simple("elu", 1, F.elu, _catalogued("elu")),
    _simple("leaky_relu", 1, F.leaky_relu, _catalogued("leaky_relu")),
)

BINARY: Mapping[str, Operation] = _by_name(
    _simple("add", 2, torch.add, _primitive("+")),
    _simple("sub", 2, torch.sub, _primitive("-")),
    Operation("mul", 2, _product, _product_node),
    _simple("max", 2, torch.maximum, _primitive("max")),
    _simple("min", 2, torch.minimum, _primitive("min")),
    _simple(
        "gate",
        2,
        lambda a, b: torch.sigmoid(a) * b,
        lambda a, b: call("*", call("sigmoid", a), b),
    ),
    Operation("mix", 2, _free(_mix), _free(_mix_node), ZERO_EXACTLY),
    _simple("left", 2, lambda a, b: torch.broadcast_tensors(a, b)[0], lambda a, _: a),
    _simple("right", 2, lambda a, b: torch.broadcast_tensors(a, b)[1], lambda _, b: b),
)
