"""Makes an engine's own forward and backward part of autograd, any number of times differentiable.

Only the input is saved. The first derivative is the engine's, the second that of a kernel where there is one; what
lies beyond goes through the formula as it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import Function

from softknee._engine.layout import repacked
from softknee._engine.ownership import counts, is_unshared
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._engine.layout import Layout
    from softknee._engine.plan import Plan, Value

    Reach = tuple[float, float]


class Engine(Protocol):
    """A way to evaluate a plan on dense tensors, without autograd."""

    name: str

    def value(self, at: Evaluation, x: Tensor, y: Tensor) -> None:
        """Write `f(x)` to `y`."""

    def gradient(self, at: Evaluation, x: Tensor, g: Tensor, out: Tensor, *, sums: bool) -> Tensor | None:
        """Write `g f'(x)` to `out`; return the summed gradients of the trained entries if asked.

        `out` may be `g`, but for pairs, of whose gradients there are two.
        """


class Call(NamedTuple):
    """How a tensor is to be evaluated.

    Attributes:
        plan: The activation.
        engine_of: Returns the engine for parameter values `(entries, channels)`, a device and a reach.
        layout: Of the tensor.
        channel_dim: Of the tensor, None where all elements share their parameters.
        reach: The range a table must cover.
        seed: Of random numbers.
    """

    plan: Plan
    engine_of: Callable[[Plan, Tensor | None, torch.device, Reach], Engine]
    layout: Layout
    channel_dim: int | None
    reach: Reach
    seed: int = 0

    def at(self, values: Sequence[Value], device: torch.device) -> Evaluation:
        """Return the evaluation at parameter values, in their stored shapes."""
        leaves = self.plan.leaves(values, self.layout.channels, device)
        engine = self.engine_of(self.plan, leaves, device, self.reach)
        return Evaluation(self.plan, engine, self.layout, leaves, self.seed, self.channel_dim)


class Evaluation(NamedTuple):
    """A plan at given parameter values, on tensors of one layout.

    Attributes:
        plan: The activation.
        engine: How it is evaluated.
        layout: Of the tensors.
        leaves: `(entries, channels)` parameter values, float32.
        seed: Of random numbers.
        channel_dim: Of the tensors, None where all elements share their parameters.
    """

    plan: Plan
    engine: Engine
    layout: Layout
    leaves: Tensor | None
    seed: int
    channel_dim: int | None = None

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the formula takes element by element."""
        return self.plan.parts(x, self.channel_dim)

    def output_of(self, x: Tensor) -> Tensor:
        """Return memory for the value at an input."""
        if self.plan.halves is None or self.channel_dim is None:
            return torch.empty_like(x)
        shape = [*x.shape]
        shape[self.channel_dim] //= 2
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=self.layout.memory_format)


def differentiable(call: Call, x: Tensor, values: Sequence[Value]) -> Tensor:
    """Evaluate under autograd.

    Args:
        call: How.
        x: Dense, in the layout of the call.
        values: Parameters in their stored shapes, or numbers.

    Returns:
        Same dtype and memory format as `x`, and shape but for pairs.
    """
    result: Tensor = _Value.apply(x, call, *values)
    return result


class _Value(Function):
    """`y = f(x, *values)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, *values: Value) -> Tensor:
        at = call.at(values, x.device)
        y = at.output_of(x)
        at.engine.value(at, x, y)
        # The next layer keeps `y` anyway. A table has the slope to the right of a kink on it, where `y` may lie.
        keeps_output = call.plan.keeps_output and at.engine.name != "table"
        _save(ctx, (y if keeps_output else x,), values)
        ctx.call, ctx.evaluation = call, at
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        owners = counts(g)
        (x,), values = _saved(ctx, 1)
        # Hooks on saved tensors may bring them back in another order.
        x = x.contiguous(memory_format=ctx.call.layout.memory_format)
        sums = True in ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            by_x, *by_values = _Gradient.apply(g, x, ctx.call, ctx.evaluation, sums, *values)
        else:
            by_x, by_values = gradients(ctx.evaluation, g, x, values, sums=sums, reuse=is_unshared(owners))
        return (by_x, None, *by_values)


class _Gradient(Function):
    """`g f'(x)`, and the gradients of the parameters."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, call: Call, at: Evaluation, sums: bool, *values: Value
    ) -> tuple[Tensor | None, ...]:
        _save(ctx, (g, x), values)
        ctx.call, ctx.evaluation = call, at
        ctx.set_materialize_grads(False)
        by_x, by_values = gradients(at, g, x, values, sums=sums)
        return (by_x, *by_values)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *by_sums: Tensor | None) -> tuple[Any, ...]:
        (g, x), values = _saved(ctx, 2)
        x = x.contiguous(memory_format=ctx.call.layout.memory_format)
        if v is not None and not torch.is_grad_enabled() and not any(by is not None for by in by_sums):
            second = _second(ctx.evaluation, g, x, v, values)
            if second is not None:
                by_g, by_x, by_values = second
                return (by_g, by_x, None, None, None, *by_values)
        given = _by_formula(ctx.call, (g, x, values), (v, *by_sums))
        return (given[0], given[1], None, None, None, *given[2])


def _save(ctx: Any, tensors: tuple[Tensor, ...], values: Sequence[Value]) -> None:
    saved = [value for value in values if isinstance(value, Tensor)]
    ctx.save_for_backward(*tensors, *saved)
    mixed = len(saved) < len(values)
    ctx.numbers = [None if isinstance(value, Tensor) else value for value in values] if mixed else None


def _saved(ctx: Any, count: int) -> tuple[tuple[Tensor, ...], Sequence[Value]]:
    tensors = ctx.saved_tensors
    if ctx.numbers is None:
        return tensors[:count], tensors[count:]
    rest = iter(tensors[count:])
    return tensors[:count], [next(rest) if number is None else number for number in ctx.numbers]


def gradients(
    at: Evaluation, g: Tensor, x: Tensor, values: Sequence[Value], *, sums: bool, reuse: bool = False
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Return the gradient of the input and, with `sums`, those of the trained parameters, None for the others.

    Args:
        at: The activation at its parameters.
        g: Incoming gradient, in any layout.
        x: Input, in the layout of `at`.
        values: Parameters in their stored shapes, or numbers.
        sums: Whether parameters need gradients.
        reuse: Whether `g` may be written over; it is too small for the gradients of pairs.

    Returns:
        Both.
    """
    g, ours = repacked(g, at.layout.memory_format)
    out = g if (ours or reuse) and at.plan.halves is None else torch.empty_like(x)
    total = at.engine.gradient(at, x, g, out, sums=sums)
    return out, at.plan.gradients(total, values)


def _second(
    at: Evaluation, g: Tensor, x: Tensor, v: Tensor, values: Sequence[Value]
) -> tuple[Tensor, Tensor, Sequence[Tensor | None]] | None:
    """Return the derivatives of `v g f'(x)` by a kernel, None where there is none."""
    if at.plan.halves is not None or not at.plan.compiles(x.device.type):
        return None
    (g, _), (v, _) = (repacked(tensor, at.layout.memory_format) for tensor in (g, v))
    by_g, by_x = torch.empty_like(x), torch.empty_like(x)
    kernel = at.plan.kernels(x.dtype, x.device.type).second
    total = kernel((x, g, v), (by_g, by_x), at.leaves, at.layout, at.seed)
    return by_g, by_x, at.plan.gradients(total, values)


def _by_formula(
    call: Call, inputs: tuple[Tensor, Tensor, Sequence[Value]], cotangents: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
    """Differentiate the gradient through the formula as it is written.

    Raises:
        UsageError: The activation is random, and its noise is not known outside of its kernels.
    """
    g, x, values = inputs
    if call.plan.random:
        raise UsageError("a random activation can be differentiated twice by its input, and no further")
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        separate: list[Any] = [
            _separate(tensor, attached=create) if isinstance(tensor, Tensor) else tensor for tensor in (g, x, *values)
        ]
        g, x, *values = separate
        places = [place for place, value in enumerate(values) if isinstance(value, Tensor)]
        by: list[Any] = [x, *(values[place] for place in places)]
        y = call.plan.eager(x, values, call.channel_dim)
        first = torch.autograd.grad(y, by, g, create_graph=True, materialize_grads=True)
        given = [cotangents[0], *(cotangents[1 + place] for place in places)]
        pairs = [(one, to) for one, to in zip(first, given, strict=True) if to is not None and one.requires_grad]
        if not pairs:
            return None, None, [None] * len(values)
        outputs, weights = zip(*pairs, strict=True)
        by_g, by_x, *by_tensors = torch.autograd.grad(
            outputs, [g, *by], weights, create_graph=create, allow_unused=True
        )
    by_value = dict(zip(places, by_tensors, strict=True))
    return by_g, by_x, [by_value.get(place) for place in range(len(values))]


def _separate(tensor: Tensor, *, attached: bool) -> Tensor:
    """Return the same numbers as a node of their own: derivatives by one input must not go on through another."""
    return tensor.view_as(tensor) if attached and tensor.requires_grad else tensor.detach().requires_grad_()
