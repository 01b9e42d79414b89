"""An expensive formula as one registered operator, for compiled regions: there the engines cannot be called otherwise.

Cheap closed forms stay plain operations in such regions, which fuse with their neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._engine.differentiable import Call, Evaluation, gradients
from softknee._engine.fused import fused_engine
from softknee._engine.layout import dense, layout_of
from softknee._engine.plan import Plan
from softknee._engine.table import pays_off, table_or_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._engine.differentiable import Reach
    from softknee._engine.plan import Value

# Stands for "no channels" where only whole numbers can be said.
SHARED = -1


def apply_operator(plan: Plan, x: Tensor, values: Sequence[Value], channel_dim: int | None, reach: Reach) -> Tensor:
    """Evaluate a plan by the operator.

    Args:
        plan: The activation.
        x: Any shape, float32, bfloat16 or float16.
        values: Parameters in their stored shapes, or numbers.
        channel_dim: Of `x`, None where all elements share their parameters.
        reach: The range that tables cover.

    Returns:
        Same shape and dtype as `x`.
    """
    tensors = [value if isinstance(value, Tensor) else torch.full((1,), value, device=x.device) for value in values]
    result: Tensor = activation(x, tensors, plan.number, SHARED if channel_dim is None else channel_dim, [*reach])
    return result


@torch.library.custom_op("softknee::activation", mutates_args=())
def activation(x: Tensor, values: list[Tensor], plan: int, channel_dim: int, reach: list[float]) -> Tensor:
    """Evaluate the plan of that number through a table, or by kernels where no table is fine enough."""
    x, at = _evaluation(x, values, plan, channel_dim, reach)
    y = torch.empty_like(x)
    at.engine.value(at, (x,), y)
    return y


@torch.library.custom_op("softknee::activation_gradient", mutates_args=())
def activation_gradient(
    g: Tensor, x: Tensor, values: list[Tensor], plan: int, channel_dim: int, reach: list[float]
) -> list[Tensor]:
    """Return `g f'(x)` and the gradients of the trained parameters."""
    x, at = _evaluation(x, values, plan, channel_dim, reach)
    (by_x,), by_values = gradients(at, g, (x,), values, sums=True)
    # Results of an operator must not share memory.
    return [by_x, *(by.clone() for by in by_values if by is not None)]


@activation.register_fake
def _(x: Tensor, values: list[Tensor], plan: int, channel_dim: int, reach: list[float]) -> Tensor:  # noqa: ARG001
    return torch.empty_like(dense(x)[0])


@activation_gradient.register_fake
def _(g: Tensor, x: Tensor, values: list[Tensor], plan: int, channel_dim: int, reach: list[float]) -> list[Tensor]:  # noqa: ARG001
    return [torch.empty_like(dense(x)[0]), *(torch.empty_like(value) for value in _trained(values, plan))]


def _evaluation(
    x: Tensor, values: Sequence[Tensor], plan: int, channel_dim: int, reach: Sequence[float]
) -> tuple[Tensor, Evaluation]:
    x, memory_format = dense(x)
    layout = layout_of(x, memory_format, None if channel_dim == SHARED else channel_dim)
    named = Plan.numbered(plan)
    large = pays_off(named, x.numel(), layout.channels) or not named.compiles(x.device.type)
    low, high = reach
    call = Call(named, table_or_kernels if large else fused_engine, layout, channel_dim, (low, high))
    return x, call.at(values, x.device)


def _trained(values: Sequence[Tensor], plan: int) -> list[Tensor]:
    flags = Plan.numbered(plan).formula.trained
    return [value for value, flag in zip(values, flags, strict=True) if flag]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, values, *ctx.options = inputs
    ctx.save_for_backward(x, *values)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, *values = ctx.saved_tensors
    by_x, *rest = activation_gradient(g, x, values, *ctx.options)
    flags, parts = Plan.numbered(ctx.options[0]).formula.trained, iter(rest)
    return by_x, [next(parts) if flag else None for flag in flags], None, None, None


activation.register_autograd(_backward, setup_context=_setup)
