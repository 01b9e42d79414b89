"""Gated pairs as the engine tests take them: plans, inputs in every layout, and what the formula gives in float64.

Gates and values are in one tensor, or in two.
"""

from __future__ import annotations

from functools import cache

import torch
from subjects import normal
from torch import Tensor

from softknee._engine.layout import Halves, as_tuple
from softknee._engine.plan import Plan
from softknee._engine.select import evaluate

HALVES = tuple(Halves(first, alternating) for first in (True, False) for alternating in (False, True))
# Shape and the dimension that holds gates and values: runs of one, of few, of many, and across blocks and pieces.
SHAPES = (
    ((5, 8), 1),
    ((7, 2), 1),
    ((8, 3), 0),
    ((1, 2), 1),
    ((3, 5, 8), 2),
    ((3, 8, 5), 1),
    ((2, 6, 1), 1),
    ((3, 8, 4, 6), 1),
    ((2, 3, 4, 8), 3),
    ((2, 4, 6, 2), 2),
    ((3, 2, 17), 1),
    ((2, 8, 1500), 1),
    ((3, 6002), 1),
    ((20_000, 8), 1),
    ((6, 3, 10_007), 0),
)
LAST = torch.channels_last


def halves_along(dim: int, *, alternating: bool = False, first: bool = True):
    """Has gates and values be halves of one tensor."""

    def lay(gate: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        both = (gate, value) if first else (value, gate)
        at = dim % gate.dim()
        whole = torch.stack(both, at + 1).flatten(at, at + 1) if alternating else torch.cat(both, at)
        return Halves(first, alternating).of(whole, at)

    return lay


# How gates and values of four dimensions, channels in the second one, may lie where they are two tensors. Kernels read
# these where they are,
IN_PLACE = {
    "dense": lambda gate, value: (gate, value),
    "channels last": lambda gate, value: (gate.contiguous(memory_format=LAST), value.contiguous(memory_format=LAST)),
    "halves of samples": halves_along(0),
    "halves of channels": halves_along(1),
    "halves of channels, value first": halves_along(1, first=False),
    "channels that alternate": halves_along(1, alternating=True),
    "channels that alternate, value first": halves_along(1, alternating=True, first=False),
    "halves of rows": halves_along(2),
    "the same": lambda gate, value: (gate, gate),
    "halves of two tensors": lambda gate, value: (halves_along(1)(gate, gate)[0], halves_along(1)(value, value)[1]),
    "the same half": lambda gate, value: 2 * halves_along(1)(gate, value)[:1],
    "halves of channels last": lambda gate, value: (
        torch.cat((gate, value), 1).contiguous(memory_format=LAST).chunk(2, 1)
    ),
}
# these too where all channels share their parameters,
IN_PLACE_SHARED = {
    "halves of columns": halves_along(3),
    "columns that alternate": halves_along(3, alternating=True),
    "columns that alternate, value first": halves_along(3, alternating=True, first=False),
}
# and copies of these.
COPIED = {
    "two memory formats": lambda gate, value: (gate, value.contiguous(memory_format=LAST)),
    "a dense tensor and a half": lambda gate, value: (gate, halves_along(1)(gate, value)[1]),
    "thirds": lambda gate, value: torch.cat((gate, value, gate), 1).chunk(3, 1)[:2],
    "transposed": lambda gate, value: (gate.mT.contiguous().mT, value.mT.contiguous().mT),
    "expanded": lambda gate, value: (gate, value[:1].expand_as(value)),
    "alternating, but not with each other": lambda gate, value: (
        halves_along(3, alternating=True)(gate, gate)[0],
        halves_along(3, alternating=True)(value, value)[0],
    ),
}


def swish_times(x: Tensor, value: Tensor, beta: Tensor, slope: Tensor) -> Tensor:
    """A pair with two parameters in which gate and value cannot be taken for each other."""
    return x * torch.sigmoid(beta * x) * value + slope * value


@cache
def plan_for(halves: Halves, *, per_channel: bool, trained: bool = True) -> Plan:
    """A plan of `swish_times` whose first parameter is trained or not; the second never is.

    One for all tests, as modules of a kind have: tracing takes longer than they do.
    """
    kinds = {"lengths": (None, None), "trained": (trained, False), "per_channel": per_channel}
    return Plan(swish_times, swish_times, halves=halves, **kinds)


def parameters_for(plan: Plan, channels: int) -> tuple[Tensor, Tensor]:
    """Numbers of their own for each channel, where a plan has such."""
    count = channels if plan.per_channel else 1
    return torch.linspace(0.5, 1.5, count), torch.linspace(-1.0, 0.5, count)


def derivatives(
    plan: Plan, x: Tensor | tuple[Tensor, Tensor], dim: int, how: str, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Value, gradients of the inputs and that of the trained parameter."""
    inputs = tuple(one.detach().to(dtype).requires_grad_() for one in as_tuple(x))
    channels = inputs[0].shape[dim] * len(inputs) // 2
    beta, slope = (value.to(dtype) for value in parameters_for(plan, channels))
    beta.requires_grad_(plan.formula.trained[0])
    y = evaluate(plan, inputs, (beta, slope), dim, how)
    leaves = (*inputs, beta) if plan.formula.trained[0] else inputs
    return [y.detach(), *torch.autograd.grad(y, leaves, normal(*y.shape, seed=3).to(dtype))]


def assert_right(plan: Plan, x: Tensor | tuple[Tensor, Tensor], dim: int) -> None:
    """Compare kernels with the formula in float64."""
    got, wanted = derivatives(plan, x, dim, "fused"), derivatives(plan, x, dim, "eager", torch.float64)
    count = 1 + len(as_tuple(x))
    for one, other in zip(got[:count], wanted[:count], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-6 * max(1.0, other.abs().max().item()))
    for one, other in zip(got[count:], wanted[count:], strict=True):
        # Sums of numbers of either sign.
        elements = got[0].numel() // other.numel()
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6 * max(30, elements))
