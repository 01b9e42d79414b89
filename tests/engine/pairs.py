"""Gated pairs as the engine tests take them: plans, inputs in every layout, and what the formula gives in float64."""

from __future__ import annotations

import torch
from subjects import normal
from torch import Tensor

from softknee._engine.layout import Halves
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


def swish_times(x: Tensor, value: Tensor, beta: Tensor, slope: Tensor) -> Tensor:
    """A pair with two parameters in which gate and value cannot be taken for each other."""
    return x * torch.sigmoid(beta * x) * value + slope * value


def plan_for(halves: Halves, *, per_channel: bool, trained: bool = True) -> Plan:
    """A plan of `swish_times` whose first parameter is trained or not; the second never is."""
    kinds = {"lengths": (None, None), "trained": (trained, False), "per_channel": per_channel}
    return Plan(swish_times, swish_times, halves=halves, **kinds)


def parameters_for(plan: Plan, channels: int) -> tuple[Tensor, Tensor]:
    """Numbers of their own for each channel, where a plan has such."""
    count = channels if plan.per_channel else 1
    return torch.linspace(0.5, 1.5, count), torch.linspace(-1.0, 0.5, count)


def derivatives(plan: Plan, x: Tensor, dim: int, how: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Value, gradient of the input and that of the trained parameter."""
    beta, slope = (value.to(dtype) for value in parameters_for(plan, x.shape[dim] // 2))
    x, beta = x.detach().to(dtype).requires_grad_(), beta.requires_grad_(plan.formula.trained[0])
    y = evaluate(plan, x, (beta, slope), dim, how)
    inputs = [x, beta] if plan.formula.trained[0] else [x]
    return [y.detach(), *torch.autograd.grad(y, inputs, normal(*y.shape, seed=3).to(dtype))]


def assert_right(plan: Plan, x: Tensor, dim: int) -> None:
    """Compare kernels with the formula in float64."""
    got, wanted = derivatives(plan, x, dim, "fused"), derivatives(plan, x, dim, "eager", torch.float64)
    for one, other in zip(got[:2], wanted, strict=False):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-6 * max(1.0, other.abs().max().item()))
    for one, other in zip(got[2:], wanted[2:], strict=True):
        # Sums of numbers of either sign.
        elements = x.numel() // 2 // other.numel()
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6 * max(30, elements))
