"""From a formula to the graphs of its value and derivatives, by running it once under PyTorch's own tracer.

Autograd differentiates while the tracer records, so the kernels have exactly its derivatives, kinks included.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from softknee._engine.graph import PAIRS, SINGLES, Builder, Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.fx import Node

    Argument = int | float
    Rule = Callable[..., Argument]

SAMPLE = 2
Result = TypeVar("Result")
# Whole exponents up to it become products.
LARGEST_PRODUCT = 16
SQUARE_ROOT = 0.5
LOG_TWO = 0.6931471805599453
# From here on, 1 makes no difference to a number in float64, and its square does not overflow in float32.
FAR = 2.0**60
# Options of operations that change no number, and those that rules take.
WITHOUT_EFFECT = frozenset({"device", "dtype", "generator", "layout", "memory_format", "non_blocking", "pin_memory"})
UNDERSTOOD = frozenset({"alpha", "approximate", "value"})


class NotPointwise(Exception):
    """The formula does something that is no arithmetic on single elements; it runs as it is written."""


class Formula:
    """A formula with numbers for each parameter's entries, ready to be traced.

    Args:
        function: `f(x, *parameters)`, or `f(x, u, *parameters)` of pairs; a vector parameter is handed over as a tuple.
        lengths: Entries of each parameter, None for a scalar.
        trained: Whether each parameter's gradient is wanted.
        channelwise: Whether the function takes `channel=`.
        pairs: Whether it takes two elements, gate and value.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        lengths: tuple[int | None, ...],
        trained: tuple[bool, ...],
        *,
        channelwise: bool = False,
        pairs: bool = False,
    ) -> None:
        self.function = function
        self.lengths = lengths
        self.trained = trained
        self.channelwise = channelwise
        self.elements = PAIRS[:2] if pairs else SINGLES[:1]
        self.leaves = sum(1 if length is None else length for length in lengths) + channelwise

    @property
    def wanted(self) -> tuple[int, ...]:
        """Leaves whose gradients are wanted."""
        flags = [
            flag
            for length, flag in zip(self.lengths, self.trained, strict=True)
            for _ in range(1 if length is None else length)
        ]
        return tuple(index for index, flag in enumerate(flags) if flag)

    @property
    def pairs(self) -> bool:
        """Whether it takes two elements, gate and value."""
        return len(self.elements) > 1

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Evaluate with one tensor for each element that it takes, then one a leaf."""
        count = len(self.elements)
        rest = iter(inputs[count:])
        arguments = [
            next(rest) if length is None else tuple(next(rest) for _ in range(length)) for length in self.lengths
        ]
        options = {"channel": next(rest)} if self.channelwise else {}
        return self.function(*inputs[:count], *arguments, **options)

    @cached_property
    def value(self) -> Graph:
        """The graph from the elements and the leaves to `f`.

        Raises:
            NotPointwise: It depends on how many elements there are, or has an operation without a rule.
        """
        names = (*self.elements, *self._names)
        graph = _graph(lambda *inputs: (self(*inputs),), names)
        if not graph.draws and not _aside(_same_in_any_size, self, len(names)):
            raise NotPointwise("the formula depends on the size of the tensor")
        return graph

    @cached_property
    def gradient(self) -> Graph:
        """The graph from elements, `g` and leaves to `g` times the derivatives by each element and each wanted leaf."""
        count = len(self.elements)

        def gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
            by = self._pull(inputs[count], *inputs[:count], *inputs[count + 1 :])
            return (*by[:count], *(by[count + index] for index in self.wanted))

        return _graph(gradients, (*self.elements, "g", *self._names))

    @cached_property
    def slope(self) -> Graph:
        """The part of `gradient` that leads to the derivatives by the elements."""
        return self.gradient.only(len(self.elements))

    @cached_property
    def second(self) -> Graph:
        """The graph of the derivatives of `v g f'` by `g`, by `x` and by each wanted leaf; of single elements only."""

        def derivatives(x: Tensor, g: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            pull: Any = torch.func.vjp(lambda g, x, *rest: self._pull(g, x, *rest)[0], g, x, *rest)[1]
            by_g, by_x, *by_leaves = pull(v)
            return (by_g, by_x, *(by_leaves[index] for index in self.wanted))

        return _graph(derivatives, ("x", "g", "v", *self._names))

    def _pull(self, g: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        pull: Any = torch.func.vjp(self, *inputs)[1]
        gradients: tuple[Tensor, ...] = pull(g)
        return gradients

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"p{index}" for index in range(self.leaves))


def _graph(computation: Callable[..., tuple[Tensor, ...]], names: tuple[str, ...]) -> Graph:
    """Record a computation on named inputs.

    Raises:
        NotPointwise: It has an operation without a rule.
    """
    return _aside(_recorded, computation, names)


def _aside(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a thread of its own.

    Whatever surrounds the first call of an activation (autocast, hooks on saved tensors, transforms, modes, inference)
    belongs to the caller's thread and must not get into the record.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(function, *arguments).result()


def _recorded(computation: Callable[..., tuple[Tensor, ...]], names: tuple[str, ...]) -> Graph:
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake tensors from the start: otherwise each operation makes its own mode for them.
    options: Any = {"tracing_mode": "fake", "_allow_non_fake_inputs": True}
    try:
        record = make_fx(torch.func.functionalize(computation), decomposition_table=_decompositions(), **options)
        traced = record(*_sample(len(names), SAMPLE))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise NotPointwise(str(error)) from error
    return _Reader(traced, names).read()


def _same_in_any_size(function: Callable[..., Tensor], inputs: int) -> bool:
    """Whether elements have the same values in a tensor of another size."""
    few, more = (function(*_sample(inputs, size)) for size in (SAMPLE, SAMPLE + 1))
    return torch.equal(few.nan_to_num(), more[:SAMPLE].nan_to_num())


def _sample(inputs: int, size: int) -> list[Tensor]:
    """Return distinct, unremarkable numbers: nothing may be special about the point of tracing."""
    return [torch.full((size,), 0.37 + 0.11 * index, dtype=torch.float32, device="cpu") for index in range(inputs)]


@lru_cache(maxsize=1)
def _decompositions() -> Mapping[Any, Any]:
    from torch._decomp import core_aten_decompositions

    table: Mapping[Any, Any] = core_aten_decompositions()
    return table


class _Reader:
    """Translates a traced module, operation by operation."""

    def __init__(self, module: torch.fx.GraphModule, names: tuple[str, ...]) -> None:
        self.module = module
        self.names = iter(names)
        self.builder = Builder()
        self.results: dict[Node, int] = {}

    def read(self) -> Graph:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.results[node] = self.builder.input(next(self.names))
            elif node.op == "get_attr":
                self.results[node] = self._constant(getattr(self.module, node.target))
            elif node.op == "call_function":
                self.results[node] = self._call(node)
            elif node.op == "output":
                outputs = node.args[0]
        return self.builder.finish(tuple(self.results[output] for output in outputs))

    def _call(self, node: Node) -> int:
        name = node.target._schema.name.rpartition("::")[2]  # type: ignore[union-attr]
        rule = RULES.get(name)
        if rule is None:
            raise NotPointwise(f"{name} is no operation on single elements")
        if name == "_to_copy" and _rounds(node):
            raise NotPointwise(f"it converts to {node.kwargs['dtype']} on the way")
        arguments = [self._argument(argument) for argument in node.args]
        options = {key: value for key, value in node.kwargs.items() if key not in WITHOUT_EFFECT and value is not None}
        if not options.keys() <= UNDERSTOOD:
            raise NotPointwise(f"{name} is called with {', '.join(options.keys() - UNDERSTOOD)}")
        result = rule(self.builder, *arguments, **options)
        return self.builder.constant(result) if isinstance(result, float) else result

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.results[argument]
        return float(argument) if isinstance(argument, (int, float)) else argument

    def _constant(self, value: Tensor) -> int:
        if value.numel() != 1:
            raise NotPointwise("the formula holds a tensor of its own")
        return self.builder.constant(float(value))


def _rounds(node: Node) -> bool:
    """Whether a conversion changes numbers: from float32 to a type with fewer of them."""
    dtype = node.kwargs.get("dtype")
    return node.args[0].meta["val"].is_floating_point() and dtype not in {None, torch.float32, torch.float64}  # type: ignore[union-attr]


def _plain(name: str) -> Rule:
    return lambda to, *arguments: to.add(name, *arguments)


def _logical(name: str) -> Rule:
    """Return the rule of an operation on truths; of a number, it is the truth that it is not 0."""

    def rule(to: Builder, *arguments: Argument) -> Argument:
        return to.add(name, *[place if to.is_truth(place) else to.add("ne", place, 0.0) for place in arguments])

    return rule


def _same(_: Builder, value: Argument, *__: Any) -> Argument:
    return value


def _filled(value_at: int) -> Rule:
    return lambda to, *arguments: arguments[value_at]  # noqa: ARG005


def _scaled(name: str) -> Rule:
    def rule(to: Builder, a: Argument, b: Argument, alpha: float = 1.0) -> Argument:
        return to.add(name, a, to.add("mul", b, float(alpha)))

    return rule


def _reversed_difference(to: Builder, a: Argument, b: Argument, alpha: float = 1.0) -> Argument:
    return to.add("sub", b, to.add("mul", a, float(alpha)))


def _clamp(to: Builder, x: Argument, low: Argument | None = None, high: Argument | None = None) -> Argument:
    # Written so that NaN stays NaN.
    if low is not None:
        x = to.add("where", to.add("lt", x, low), low, x)
    return x if high is None else to.add("where", to.add("gt", x, high), high, x)


def _power(to: Builder, base: Argument, exponent: Argument) -> Argument:
    number = exponent if isinstance(exponent, float) else to.value_of(exponent)
    if number is not None and number.is_integer() and 1 <= abs(number) <= LARGEST_PRODUCT:
        power = _repeated_product(to, base, abs(int(number)))
        return power if number > 0 else to.add("div", 1.0, power)
    return to.add("sqrt", base) if number == SQUARE_ROOT else to.add("pow", base, exponent)


def _repeated_product(to: Builder, base: Argument, times: int) -> Argument:
    if times == 1:
        return base
    half = _repeated_product(to, base, times // 2)
    square = to.add("mul", half, half)
    return to.add("mul", square, base) if times % 2 else square


def _gelu(to: Builder, x: Argument, approximate: str = "none") -> Argument:
    if approximate == "tanh":
        cube = to.add("mul", to.add("mul", x, x), x)
        inner = to.add("mul", 0.7978845608028654, to.add("add", x, to.add("mul", 0.044715, cube)))
        gate = to.add("tanh", inner)
    else:
        gate = to.add("erf", to.add("mul", x, 0.7071067811865476))
    return to.add("mul", to.add("mul", 0.5, x), to.add("add", 1.0, gate))


def _elu(to: Builder, x: Argument, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Argument:
    falling = to.add("mul", float(alpha * scale), to.add("expm1", to.add("mul", x, input_scale)))
    return to.add("where", to.add("gt", x, 0.0), to.add("mul", x, scale), falling)


def _cosh(to: Builder, x: Argument) -> Argument:
    return to.add("mul", 0.5, to.add("add", to.add("exp", x), to.add("exp", to.add("neg", x))))


def _sinh(to: Builder, x: Argument) -> Argument:
    """Return sinh x, from e = expm1|x| as (e + e / (e + 1)) / 2; the quotient is 1 far out, where both are infinite."""
    grown = to.add("expm1", to.add("abs", x))
    rest = to.add("where", to.add("gt", grown, FAR), 1.0, to.add("div", grown, to.add("add", grown, 1.0)))
    size = to.add("mul", 0.5, to.add("add", grown, rest))
    return to.add("where", to.add("lt", x, 0.0), to.add("neg", size), size)


def _asinh(to: Builder, x: Argument) -> Argument:
    """Return asinh x; far out, where the square would overflow, as a logarithm."""
    size = to.add("abs", x)
    root = to.add("sqrt", to.add("add", to.add("mul", x, x), 1.0))
    near = to.add("log1p", to.add("add", size, to.add("mul", size, to.add("div", size, to.add("add", root, 1.0)))))
    far = to.add("add", to.add("log", size), LOG_TWO)
    value = to.add("where", to.add("gt", size, FAR), far, near)
    return to.add("where", to.add("lt", x, 0.0), to.add("neg", value), value)


def _hypot(to: Builder, a: Argument, b: Argument) -> Argument:
    """Return the root of the sum of squares, scaled by a power of two so that these neither overflow nor vanish."""
    a, b = to.add("abs", a), to.add("abs", b)
    size = to.add("max", a, b)
    large, small = to.add("gt", size, 2.0**60), to.add("lt", size, 2.0**-60)
    scale, back = (
        to.add("where", large, 2.0**-power, to.add("where", small, 2.0**power, 1.0)) for power in (100, -100)
    )
    squares = [to.add("mul", side, side) for side in (to.add("mul", a, scale), to.add("mul", b, scale))]
    infinite = to.add("or", to.add("eq", a, math.inf), to.add("eq", b, math.inf))
    return to.add("where", infinite, math.inf, to.add("mul", to.add("sqrt", to.add("add", *squares)), back))


def _uniform(to: Builder, _: Any, low: float = 0.0, high: float = 1.0) -> Argument:
    if to.draws:
        raise NotPointwise("the formula draws more than one random number an element")
    to.draws += 1
    return to.add("add", low, to.add("mul", high - low, to.add("uniform")))


RULES: Mapping[str, Rule] = {
    **{name: _plain(name) for name in ("mul", "div", "neg", "abs", "sign", "exp", "expm1", "log", "log1p", "sqrt")},
    **{name: _plain(name) for name in ("sin", "cos", "tan", "atan", "tanh", "sigmoid", "erf", "floor")},
    **{name: _plain(name) for name in ("remainder", "where", "lt", "le", "gt", "ge", "eq", "ne")},
    **dict.fromkeys(("alias", "detach", "clone", "_to_copy", "expand", "view", "lift_fresh_copy"), _same),
    "uniform": _uniform,
    "rand_like": lambda to, x: _uniform(to, x),
    **dict.fromkeys(("logical_and", "bitwise_and"), _logical("and")),
    **dict.fromkeys(("logical_or", "bitwise_or"), _logical("or")),
    **dict.fromkeys(("logical_not", "bitwise_not"), _logical("not")),
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": _reversed_difference,
    "maximum": _plain("max"),
    "minimum": _plain("min"),
    "reciprocal": lambda to, x: to.add("div", 1.0, x),
    "rsqrt": lambda to, x: to.add("div", 1.0, to.add("sqrt", x)),
    "square": lambda to, x: to.add("mul", x, x),
    "relu": lambda to, x: _clamp(to, x, 0.0),
    "clamp": _clamp,
    "clamp_min": lambda to, x, low: _clamp(to, x, low),
    "clamp_max": lambda to, x, high: _clamp(to, x, None, high),
    "hardtanh": lambda to, x, low=-1.0, high=1.0: _clamp(to, x, low, high),
    "leaky_relu": lambda to, x, slope=0.01: to.add("where", to.add("gt", x, 0.0), x, to.add("mul", x, slope)),
    "hypot": _hypot,
    "pow": _power,
    "gelu": _gelu,
    "elu": _elu,
    "copy_": lambda to, _, source: source,  # noqa: ARG005
    "scalar_tensor": _filled(0),
    "full": _filled(1),
    "full_like": _filled(1),
    "new_full": lambda to, _, __, value: value,  # noqa: ARG005
    "ones_like": lambda to, *_: 1.0,  # noqa: ARG005
    # What is written into empty memory comes after it, as an operation of its own.
    **dict.fromkeys(("zeros_like", "_efficientzerotensor", "empty_permuted", "empty", "empty_like"), lambda *_: 0.0),
    "cosh": _cosh,
    "sinh": _sinh,
    "asinh": _asinh,
}
