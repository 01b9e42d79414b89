"""What a card is asked about, as one function of one number in float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._card.subject import SEED, Subject
from softknee._catalogue import parse_choice
from softknee._engine.select import engine
from softknee._errors import UsageError
from softknee._expression.parse import parse
from softknee.nn.activation import Activation
from softknee.nn.elementwise import Elementwise
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from softknee._spec import Spec

# What an activation is tried with before anything is computed.
PROBES = (-1.5, -0.25, 0.5, 2.0)
CHANNELWISE = 2
# By how much values of the same element may differ with its place in the tensor.
ROUNDING = 1e-12
# Values as large say where float64 ends, and no more of a function.
HUGE = 1e300


@dataclass(frozen=True)
class Function:
    """A function of single numbers at fixed values of its parameters.

    Attributes:
        name: What it is called: canonical text, or the name of a class or function.
        formula: In the expression language; empty where it is not known.
        spec: All that is written down about it, where it is one of ours.
        values: Of its parameters.
        channels: How many channels with parameters of their own it has.
        declared: Where it or a derivative is said to jump, ascending.
        build: `dtype -> callable` that evaluates tensors `(points, channels)` of that dtype.
    """

    name: str
    build: Callable[[torch.dtype], Callable[[Tensor], Tensor]] = field(repr=False)
    formula: str = ""
    spec: Spec | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 1
    declared: tuple[float, ...] = ()

    @property
    def value_formula(self) -> Function | None:
        """The function by its formula, where the backward pass takes the derivative of another one; else None."""
        if self.spec is None or not self.spec.surrogate or self.channels > 1:
            return None
        formula = parse(self.spec.formula, FUNCTIONS)
        values = [self.values[name] for name in formula.parameters]
        return replace(self, build=lambda _: lambda x: formula(x, *values), spec=None, declared=())

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate at points `(n,)` of any floating dtype, `(n, channels)`."""
        return self.build(x.dtype)(x[:, None].expand(-1, self.channels).clone())

    def derivatives(self, x: Tensor, orders: int) -> tuple[Tensor, ...]:
        """Return the value and derivatives up to an order, as autograd takes them.

        Args:
            x: Points `(n,)`, in any floating dtype.
            orders: Of the last derivative.

        Returns:
            `orders + 1` tensors `(n, channels)`.
        """
        with torch.enable_grad():
            at = x.detach()[:, None].expand(-1, self.channels).clone().requires_grad_(orders > 0)
            # A copy, for activations that work in place.
            found = [self.build(x.dtype)(at.clone())]
            for order in range(orders):
                found.append(_slope(found[-1], at, further=order + 1 < orders))
        return tuple(one.detach() for one in found)


def function_of(activation: Any, *, channels: int | None = None) -> Function:
    """Return an activation as a function of one number.

    Args:
        activation: A name, `name[options]` or a formula as on the command line; a module; a function of tensors.
        channels: How many channels to look at, for a module or function that treats each by itself; by default as many
            as a module of softknee has.

    Returns:
        The function; parameters that are drawn come from seed 0.

    Raises:
        UsageError: It is no function of single elements, or a text names none.
    """
    if isinstance(activation, Function):
        return activation
    if isinstance(activation, str):
        return _of_text(activation)
    if not callable(activation):
        raise UsageError(
            f"an activation is a name, a formula, a module or a function of tensors, got {type(activation).__name__}"
        )
    if channels is not None and channels < 1:
        raise UsageError(f"channels must be at least 1, got {channels}")
    function = _of_module(activation, channels) if isinstance(activation, nn.Module) else _of_callable(activation)
    if channels is not None and function.channels != channels:
        function = Function(function.name, function.build, channels=channels)
    _check(function)
    return function


def _of_text(text: str) -> Function:
    choice = parse_choice(text)
    if choice.spec.kind != "elementwise":
        raise UsageError(
            f"{choice.label} is of the kind {choice.spec.kind}; a card is about one function of one number"
        )
    given = {name: float(value) for name, value in choice.options if type(value) in {int, float}}
    if set(dict(choice.options)) <= {param.name for param in choice.spec.parameters if not param.vector}:
        subject = Subject.of(choice.spec)
        subject = Subject(choice.spec, {**subject.values, **given})
        return _of_subject(subject, choice.label)
    module = choice.build(channels=1, generator=torch.Generator().manual_seed(SEED))
    return _of_module(module, None, choice.label)


def _of_subject(subject: Subject, name: str) -> Function:
    spec = subject.spec
    if spec.channelwise:
        # One after the other, as in a layer: half of the channels are of either kind.
        function, values = spec.function, [subject.values[param.name] for param in spec.parameters]

        def evaluate(x: Tensor) -> Tensor:
            return function(x, *values, channel=torch.arange(CHANNELWISE))

        named = {param.name: subject.values[param.name] for param in spec.parameters}
        return Function(name, lambda _: evaluate, _formula(spec), spec, named, CHANNELWISE, subject.kinks)
    flat = partial(_flat, subject)
    return Function(name, lambda _: flat, _formula(spec), spec, subject.values, 1, subject.kinks)


def _formula(spec: Spec) -> str:
    """Return the formula in the expression language, empty where there is only a description."""
    return spec.formula if spec.statement is None else ""


def _flat(subject: Subject, x: Tensor) -> Tensor:
    """Evaluate element by element: parameters that are vectors go along a dimension in front."""
    return subject(x.reshape(-1)).view_as(x)


def _of_module(module: nn.Module, channels: int | None, name: str = "") -> Function:
    """Return a module as it is now, in eval mode, evaluated by torch itself.

    Raises:
        UsageError: It has no values.
    """
    spec = module.spec if isinstance(module, Activation) else None
    name = name or (spec.name if spec is not None else type(module).__name__)
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UsageError(f"{name} is on the meta device and has no values; move it to one with memory")
    build = cache(partial(_in_dtype, copy.deepcopy(module)))
    if isinstance(module, Elementwise) and spec is not None:
        vectors = {param.name for param in spec.parameters if param.vector}
        values = {key: _plain(value, vector=key in vectors) for key, value in module.named_values().items()}
        if module.per_channel is None and channels in {None, 1, CHANNELWISE * spec.channelwise}:
            return _of_subject(Subject(spec, values), name)
        declared = _declared(spec, values) if module.per_channel is not None else ()
        return Function(name, build, _formula(spec), spec, values, channels or module.per_channel or 1, declared)
    return Function(name, build, channels=channels or 1)


def _declared(spec: Spec, values: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the kinks of all channels together."""
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    found: set[float] = set()
    for place in map(parse, spec.kinks):
        given = [numbers[name] for name in place.parameters]
        shape = torch.broadcast_shapes(*(one.shape for one in given))
        found |= {*place(torch.zeros(shape, dtype=torch.float64), *given).reshape(-1).tolist()}
    return tuple(sorted(found))


def _in_dtype(module: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    copied = copy.deepcopy(module).to("cpu", dtype).eval().requires_grad_(requires_grad=False)

    def evaluate(x: Tensor) -> Tensor:
        with engine("eager"):
            result: Tensor = copied(x)
        return result

    return evaluate


def _of_callable(function: Callable[[Tensor], Tensor]) -> Function:
    return Function(getattr(function, "__name__", type(function).__name__), lambda _: function)


def _plain(value: Tensor | float, *, vector: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    numbers = value.detach().double().cpu()
    return tuple(numbers.tolist()) if vector or numbers.numel() > 1 else float(numbers)


def _check(function: Function) -> None:
    """Refuse what is no function of single elements.

    Raises:
        UsageError: It is none.
    """
    x = torch.tensor(PROBES, dtype=torch.float64)
    try:
        with torch.no_grad():
            values, backwards = function(x), function(x.flip(0))
    except (RuntimeError, TypeError, ValueError, IndexError, UsageError) as error:
        raise UsageError(f"{function.name} cannot be evaluated in float64: {str(error).splitlines()[0]}") from None
    if not isinstance(values, Tensor) or values.shape != (len(x), function.channels):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        given = (len(x), function.channels)
        raise UsageError(f"{function.name} is no function of single elements: of {given} it made {shape}")
    if not _alike(values, backwards.flip(0)) or _looks_along_rows(function, x, values):
        raise UsageError(f"{function.name} is no function of single elements: its values depend on their order")


def _alike(values: Tensor, others: Tensor) -> bool:
    """Whether values are the same but for rounding: torch computes the last elements of a tensor on their own."""
    return torch.allclose(values, others, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)


def _looks_along_rows(function: Function, x: Tensor, values: Tensor) -> bool:
    """Whether a function of one channel gives something else where there are two."""
    if function.channels > 1:
        return False
    try:
        with torch.no_grad():
            twos = function.build(x.dtype)(x.clone().view(2, 2))
    except (RuntimeError, UsageError):
        # It has parameters for a single one.
        return False
    return twos.shape != (2, 2) or not _alike(twos.reshape(-1, 1), values)


def _slope(y: Tensor, x: Tensor, *, further: bool) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=further, allow_unused=True)
    # Sums of zeros may have no memory of their own.
    return torch.zeros_like(x) if slope is None else slope.clone()
