"""Evaluates any scalar formula at a fixed price for each element: through a table made from its present parameters.

The gradient of the parameters comes from the adjoint of the lookup: the incoming gradient is gathered into the bins,
and the formula's own derivative carries it from there to every parameter. Outside the table the formula is evaluated.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import torch

from softknee._engine.exact import pulled_back, values_at
from softknee._engine.fused import FUSED
from softknee._engine.grid import tabulate
from softknee._engine.lookup import in_memory_order, look_up, look_up_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from softknee._engine.differentiable import Engine, Evaluation, Parts, Reach
    from softknee._engine.grid import Table
    from softknee._engine.plan import Plan

# Where inputs are expected unless it is declared or calibrated otherwise; beyond, the formula itself is evaluated.
REACH = (-8.0, 8.0)
# Vector instructions for an element, forward and backward, from which on a table is cheaper.
EXPENSIVE = 150
# Elements of a channel that are as dear as its rows; and what building and looking up cost besides, in vector
# instructions: less where pieces are known, for tables of these are divided rather than made finer as a whole.
ROWS_OF_A_TABLE, COST_OF_A_TABLE, COST_IN_PIECES = 2**13, 8 * 10**7, 2 * 10**7
# Bytes of tables of recent parameter values: sites that share parameters, and evaluation, find them ready.
REMEMBERED = 64 * 2**20
_recent: OrderedDict[tuple[object, ...], Table] = OrderedDict()
# Looking for a key compares keys, between which another thread may take its turn.
_lock = Lock()


def table_of(plan: Plan, leaves: Tensor | None, device: torch.device, reach: Reach) -> Table:
    """Return the table for parameter values, a recent one where it is the same.

    Args:
        plan: The activation.
        leaves: `(entries, channels)` parameter values.
        device: Where the table is to be.
        reach: The range it must cover.

    Returns:
        The table.
    """
    values = b"" if leaves is None else leaves.cpu().numpy().tobytes()
    key = (plan.formula, reach, values, device)
    with _lock:
        table = _recent.pop(key, None)
        if table is not None:
            _recent[key] = table
    if table is None:
        with _float32(device):
            table = tabulate(plan, leaves, reach, device)
        with _lock:
            _recent[key] = table
            while len(_recent) > 1 and sum(other.nbytes for other in _recent.values()) > REMEMBERED:
                _recent.popitem(last=False)
    return table


class Tabulated:
    """A table, with the formula itself outside of it."""

    name = "table"

    def __init__(self, table: Table) -> None:
        self.table = table

    def value(self, at: Evaluation, parts: Parts, y: Tensor) -> None:
        """Write `f(x)` to `y`."""
        (x,) = parts
        outside = look_up(self.table, at.layout, x, y)
        if outside is not None:
            points, leaves, _ = _elsewhere(at, x, outside)
            values = values_at(at.plan, points, leaves)
            in_memory_order(y, at.layout.memory_format)[outside] = values.flatten().to(y.dtype)

    def gradient(self, at: Evaluation, parts: Parts, g: Tensor, results: Parts, *, sums: bool) -> Tensor | None:
        """Write `g f'(x)` to the one result; return the summed gradients of the trained entries if asked for."""
        (x,), (out,) = parts, results
        moments = torch.empty_like(self.table.rows) if sums else None
        outside = look_up_gradient(self.table, at.layout, x, g, out, moments)
        with _float32(x.device):
            total = None if moments is None else self.table.pull_back(at.plan, moments, at.leaves)
        if outside is None:
            return total
        points, leaves, channel = _elsewhere(at, x, outside)
        slopes = in_memory_order(out, at.layout.memory_format)
        by_x, by_leaves = pulled_back(at.plan, points, slopes[outside].float().view_as(points), leaves)
        slopes[outside] = by_x.flatten().to(out.dtype)
        if total is not None and by_leaves is not None:
            total = total.index_add(1, channel, by_leaves)
        return total


def pays_off(plan: Plan, size: int, channels: int = 1) -> bool:
    """Whether a table is cheaper than kernels.

    Args:
        plan: The activation.
        size: The elements.
        channels: Those with parameters of their own.

    Returns:
        True where the formula is expensive and the elements make up for building the table.
    """
    price = plan.price or 0
    if not plan.has_tables or price <= EXPENSIVE:
        return False
    cost = COST_OF_A_TABLE if plan.pieces is None else COST_IN_PIECES
    return size > channels * ROWS_OF_A_TABLE + cost // price


def table_or_kernels(plan: Plan, leaves: Tensor | None, device: torch.device, reach: Reach) -> Engine:
    """Return the table where one is fine enough, else the kernels.

    Args:
        plan: The activation.
        leaves: `(entries, channels)` parameter values.
        device: Of the tensors.
        reach: The range the table must cover.

    Returns:
        The engine.
    """
    table = table_of(plan, leaves, device, reach)
    return Tabulated(table) if table.accurate else FUSED


def _float32(device: torch.device) -> torch.autocast:
    """Have small matrix products give float32, as native code takes it, where everything is cast to lower precision."""
    return torch.autocast(device.type, enabled=False)


def _elsewhere(at: Evaluation, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return single elements with the parameters that belong to them, and the channels of those parameters.

    Elements that share all parameters are points of one channel; else each is a channel of its own.
    """
    points = in_memory_order(x, at.layout.memory_format)[positions].float()
    if at.layout.channels == 1 or at.leaves is None:
        return points[None], at.leaves, torch.zeros(1, dtype=torch.int64, device=x.device)
    channel = positions // at.layout.inner % at.layout.channels
    return points[:, None], at.leaves[:, channel], channel
