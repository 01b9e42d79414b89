"""A formula at given points, for building tables and for what lies outside them: by kernels, or as it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee._engine.layout import Layout

if TYPE_CHECKING:
    from softknee._engine.plan import Plan


def values_at(plan: Plan, points: Tensor, leaves: Tensor | None) -> Tensor:
    """Evaluate `f`.

    Args:
        plan: The activation.
        points: `(channels, points)` float32.
        leaves: `(entries, channels)` float32.

    Returns:
        In the shape of `points`.
    """
    if not plan.compiles(points.device.type):
        return plan.formula(points, *_columns(leaves)).detach()
    values = torch.empty_like(points)
    kernel = plan.kernels(torch.float32, points.device.type).value
    kernel((points,), (values,), leaves, _layout(points))
    return values


def slopes_at(plan: Plan, points: Tensor, leaves: Tensor | None) -> Tensor:
    """Evaluate `f'`; arguments and result as in `values_at`."""
    slopes = torch.ones_like(points)
    if plan.compiles(points.device.type):
        kernel = plan.kernels(torch.float32, points.device.type).slope
        kernel((points, slopes), (slopes,), leaves, _layout(points))
        return slopes
    with torch.enable_grad():
        x = points.detach().requires_grad_()
        return torch.autograd.grad(plan.formula(x, *_columns(leaves)), x, slopes)[0]


def pulled_back(plan: Plan, points: Tensor, weights: Tensor, leaves: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return `weights f'` and the gradients of the trained entries for a gradient `weights`.

    Args:
        plan: The activation.
        points: `(channels, points)` float32.
        weights: Likewise; may be written over.
        leaves: `(entries, channels)` float32.

    Returns:
        The first in the shape of `points`; the second `(trained entries, channels)`, None where there are none.
    """
    if plan.compiles(points.device.type):
        kernel = plan.kernels(torch.float32, points.device.type).gradient
        total = kernel((points, weights), (weights,), leaves, _layout(points))
        return weights, total
    with torch.enable_grad():
        x = points.detach().requires_grad_()
        columns = [column.detach().requires_grad_() for column in _columns(leaves)]
        wanted = [columns[index] for index in plan.formula.wanted]
        y = plan.formula(x, *columns)
        by_x, *by_leaves = torch.autograd.grad(y, [x, *wanted], weights, materialize_grads=True)
    return by_x, torch.stack(by_leaves)[..., 0] if by_leaves else None


def _columns(leaves: Tensor | None) -> tuple[Tensor, ...]:
    return () if leaves is None else tuple(leaves[..., None])


def _layout(points: Tensor) -> Layout:
    channels, count = points.shape
    return (
        Layout(1, channels, count, torch.contiguous_format)
        if channels > 1
        else Layout(count, 1, 1, torch.contiguous_format)
    )
