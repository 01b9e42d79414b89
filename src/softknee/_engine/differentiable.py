"""Makes an engine's own forward and backward part of autograd, any number of times differentiable.

Only the inputs are saved. The first derivative is the engine's, the second that of a kernel where there is one; what
lies beyond goes through the formula as it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import Function

from softknee._engine.layout import halves_like, repacked
from softknee._engine.ownership import counts, is_unshared
from softknee._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._engine.layout import Layout
    from softknee._engine.plan import Plan, Value

    Reach = tuple[float, float]
    Parts = tuple[Tensor, ...]


class Engine(Protocol):
    """A way to evaluate a plan on dense tensors, without autograd."""

    name: str

    def value(self, at: Evaluation, parts: Parts, y: Tensor) -> None:
        """Write `f(x)` to `y`; `parts` is `x`, or the gate and the value of pairs."""

    def gradient(self, at: Evaluation, parts: Parts, g: Tensor, results: Parts, *, sums: bool) -> Tensor | None:
        """Write `g f'(x)` to `results`, one for each part; return the summed gradients of the trained entries if asked.

        `g` may be one of them where it lies as they do.
        """


class Call(NamedTuple):
    """How a tensor, or a pair of them, is to be evaluated.

    Attributes:
        plan: The activation.
        engine_of: Returns the engine for parameter values `(entries, channels)`, a device and a reach.
        layout: Of the tensors.
        channel_dim: Of the tensors, None where all elements share their parameters.
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

    def parts(self, inputs: Parts) -> Parts:
        """Return what the formula takes element by element."""
        return self.plan.parts(inputs, self.channel_dim)

    def output_of(self, parts: Parts) -> Tensor:
        """Return memory for the value."""
        x = parts[0]
        if len(parts) == 1:
            return torch.empty_like(x)
        return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=self.layout.memory_format)

    def gradients_of(self, inputs: Parts, spare: Tensor | None) -> Parts:
        """Return memory for the gradients of the inputs, which lies as they do.

        Args:
            inputs: In this layout.
            spare: Shaped as the output, in this memory format, free to be written over; None where there is none.
        """
        if len(inputs) > 1 and self.layout.run:
            return halves_like(*inputs, run=self.layout.run)
        first, *others = inputs
        # Two halves of one tensor do not fit into what is as large as one.
        if spare is None or spare.shape != first.shape:
            spare = torch.empty_like(first)
        return (spare, *map(torch.empty_like, others))

    def restored(self, inputs: Sequence[Tensor]) -> tuple[Evaluation, Parts]:
        """Return inputs that were saved as kernels can read them: hooks may bring them back in another order."""
        if len(inputs) == 1:
            return self, (inputs[0].contiguous(memory_format=self.layout.memory_format),)
        inputs, layout = self.plan.laid(tuple(inputs), self.channel_dim)
        return self._replace(layout=layout), inputs


def differentiable(call: Call, inputs: Parts, values: Sequence[Value]) -> Tensor:
    """Evaluate under autograd.

    Args:
        call: How.
        inputs: In the layout of the call: one tensor, or gate and value of pairs as two.
        values: Parameters in their stored shapes, or numbers.

    Returns:
        Same dtype and memory format as the inputs, and shape but for pairs in one tensor.
    """
    result: Tensor = _Value.apply(call, *inputs, *values)
    return result


class _Value(Function):
    """`y = f(*inputs, *values)`."""

    @staticmethod
    def forward(ctx: Any, call: Call, *arguments: Any) -> Tensor:
        inputs, values = _split(call.plan, arguments)
        at = call.at(values, inputs[0].device)
        parts = at.parts(inputs)
        y = at.output_of(parts)
        at.engine.value(at, parts, y)
        # The next layer keeps `y` anyway. A table has the slope to the right of a kink on it, where `y` may lie.
        keeps_output = call.plan.keeps_output and at.engine.name != "table"
        _save(ctx, (y,) if keeps_output else inputs, values)
        ctx.evaluation = at
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        owners = counts(g)
        inputs, values = _saved(ctx)
        at, inputs = ctx.evaluation.restored(inputs)
        sums = True in ctx.needs_input_grad[1 + len(inputs) :]
        if torch.is_grad_enabled():
            return (None, *_Gradient.apply(g, at, sums, *inputs, *values))
        by_inputs, by_values = gradients(at, g, inputs, values, sums=sums, reuse=is_unshared(owners))
        return (None, *by_inputs, *by_values)


class _Gradient(Function):
    """`g f'` by each input, and the gradients of the parameters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, at: Evaluation, sums: bool, *arguments: Any) -> tuple[Tensor | None, ...]:
        inputs, values = _split(at.plan, arguments)
        _save(ctx, (g, *inputs), values)
        ctx.evaluation = at
        ctx.set_materialize_grads(False)
        by_inputs, by_values = gradients(at, g, inputs, values, sums=sums)
        return (*by_inputs, *by_values)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
        (g, *inputs), values = _saved(ctx)
        v, *by_sums = given
        if v is not None and not torch.is_grad_enabled() and not any(by is not None for by in by_sums):
            second = _second(ctx.evaluation, g, inputs, v, values)
            if second is not None:
                return (second[0], None, None, second[1], *second[2])
        by_g, by_inputs, by_values = _by_formula(ctx.evaluation, (g, inputs, values), given)
        return (by_g, None, None, *by_inputs, *by_values)


def _split(plan: Plan, arguments: tuple[Any, ...]) -> tuple[Parts, tuple[Value, ...]]:
    """Return inputs and parameter values."""
    count = len(arguments) - len(plan.lengths)
    return arguments[:count], arguments[count:]


def _save(ctx: Any, tensors: Parts, values: Sequence[Value]) -> None:
    saved = [value for value in values if isinstance(value, Tensor)]
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors, *saved)
    mixed = len(saved) < len(values)
    ctx.numbers = [None if isinstance(value, Tensor) else value for value in values] if mixed else None


def _saved(ctx: Any) -> tuple[Parts, Sequence[Value]]:
    tensors, count = ctx.saved_tensors, ctx.count
    if ctx.numbers is None:
        return tensors[:count], tensors[count:]
    rest = iter(tensors[count:])
    return tensors[:count], [next(rest) if number is None else number for number in ctx.numbers]


def gradients(
    at: Evaluation, g: Tensor, inputs: Parts, values: Sequence[Value], *, sums: bool, reuse: bool = False
) -> tuple[Parts, Sequence[Tensor | None]]:
    """Return the gradients of the inputs and, with `sums`, those of the trained parameters, None for the others.

    Args:
        at: The activation at its parameters.
        g: Incoming gradient, in any layout.
        inputs: In the layout of `at`.
        values: Parameters in their stored shapes, or numbers.
        sums: Whether parameters need gradients.
        reuse: Whether `g` may be written over.

    Returns:
        Both.
    """
    g, ours = repacked(g, at.layout.memory_format)
    results = at.gradients_of(inputs, g if ours or reuse else None)
    total = at.engine.gradient(at, at.parts(inputs), g, at.parts(results), sums=sums)
    return results, at.plan.gradients(total, values)


def _second(
    at: Evaluation, g: Tensor, inputs: Sequence[Tensor], v: Tensor, values: Sequence[Value]
) -> tuple[Tensor, Tensor, Sequence[Tensor | None]] | None:
    """Return the derivatives of `v g f'(x)` by a kernel, None where there is none."""
    if at.plan.halves is not None or not at.plan.compiles(g.device.type):
        return None
    at, (x,) = at.restored(inputs)
    (g, _), (v, _) = (repacked(tensor, at.layout.memory_format) for tensor in (g, v))
    by_g, by_x = torch.empty_like(x), torch.empty_like(x)
    kernel = at.plan.kernels(x.dtype, x.device.type).second
    total = kernel((x, g, v), (by_g, by_x), at.leaves, at.layout, at.seed)
    return by_g, by_x, at.plan.gradients(total, values)


def _by_formula(
    at: Evaluation, given: tuple[Tensor, Sequence[Tensor], Sequence[Value]], cotangents: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, Sequence[Tensor | None], Sequence[Tensor | None]]:
    """Differentiate the gradient through the formula as it is written.

    Args:
        at: The activation; its parameters are those given.
        given: The incoming gradient, inputs and parameter values.
        cotangents: Of the gradients of each input and parameter.

    Returns:
        Derivatives by what is given.

    Raises:
        UsageError: The activation is random, and its noise is not known outside of its kernels.
    """
    if at.plan.random:
        raise UsageError("a random activation can be differentiated twice by its input, and no further")
    g, inputs, values = given
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        arguments = [_separate(one, attached=create) if isinstance(one, Tensor) else one for one in (*inputs, *values)]
        g = _separate(g, attached=create)
        places = [place for place, one in enumerate(arguments) if isinstance(one, Tensor)]
        by: list[Any] = [arguments[place] for place in places]
        inputs, values = _split(at.plan, tuple(arguments))
        y = at.plan.eager(inputs, values, at.channel_dim)
        first = torch.autograd.grad(y, by, g, create_graph=True, materialize_grads=True)
        wanted = [cotangents[place] for place in places]
        pairs = [(one, to) for one, to in zip(first, wanted, strict=True) if to is not None and one.requires_grad]
        if not pairs:
            return None, [None] * len(inputs), [None] * len(values)
        outputs, weights = zip(*pairs, strict=True)
        by_g, *found = torch.autograd.grad(outputs, [g, *by], weights, create_graph=create, allow_unused=True)
    by_place = dict(zip(places, found, strict=True))
    by_arguments = [by_place.get(place) for place in range(len(arguments))]
    return by_g, by_arguments[: len(inputs)], by_arguments[len(inputs) :]


def _separate(tensor: Tensor, *, attached: bool) -> Tensor:
    """Return the same numbers as a node of their own: derivatives by one input must not go on through another."""
    return tensor.view_as(tensor) if attached and tensor.requires_grad else tensor.detach().requires_grad_()
