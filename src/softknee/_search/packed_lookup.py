"""Many functions at once, each on its own part of a tensor: through a table for each, and exactly outside of it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from softknee._engine.build import DTYPES
from softknee._engine.division import ROW_MASK
from softknee._engine.grid import Table
from softknee._engine.layout import Layout
from softknee._engine.lookup import look_up, look_up_gradient
from softknee._search.packed_table import GRID
from softknee.nn.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._search.packed_table import OneTable

# Rows that the entries of one pack of tables can name.
MOST_ROWS = ROW_MASK + 1


def can_be_tabulated(module: nn.Module) -> bool:
    """Whether a module is a function of one element with nothing to train, whose derivative is its own."""
    return (
        isinstance(module, Elementwise)
        and module.per_channel is None
        and module.spec.sampled is None
        and not any(parameter.requires_grad for parameter in module.parameters())
        and not module.spec.channelwise
        and not module.spec.surrogate
    )


class Lookup:
    """One function for each model of a pack.

    Args:
        modules: The functions, for what lies outside of the tables.
        tables: As many.
        device: Where they are to be.
    """

    def __init__(self, modules: Sequence[nn.Module], tables: Sequence[OneTable], device: torch.device) -> None:
        self.modules = modules
        starts = torch.tensor([0, *(len(table.rows) for table in tables)]).cumsum(0)
        entries = torch.stack([table.entries + int(start) for table, start in zip(tables, starts, strict=False)])
        rows = torch.cat([table.rows for table in tables])[None]
        self.table = Table(GRID, entries.int().to(device), rows.to(device), rows[:, :0], 0.0, 0.0, accurate=True)

    def value(self, x: Tensor) -> Tensor:
        """Return the values at `x`, `(models, ...)`, in its shape and dtype."""
        place = _place_of_models(x)
        points = _dense(x, place)
        layout, y = _layout(points, place), torch.empty_like(points)
        outside = look_up(self.table, layout, points, y)
        if outside is not None:
            self._add_outside(layout, points, None, y, outside)
        return y.movedim(place, 0).to(x.dtype)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """Return `g` times the slopes at `x`, both `(models, ...)`."""
        place = _place_of_models(x)
        points, weights = _dense(x, place), _dense(g, place)
        layout, result = _layout(points, place), torch.empty_like(points)
        outside = look_up_gradient(self.table, layout, points, weights, result, None)
        if outside is not None:
            self._add_outside(layout, points, weights, result, outside)
        return result.movedim(place, 0).to(x.dtype)

    def _add_outside(self, layout: Layout, x: Tensor, g: Tensor | None, result: Tensor, outside: Tensor) -> None:
        """Write what is outside of the tables, model by model; what is not finite gives NaN."""
        points, flat = x.view(-1)[outside].double(), result.view(-1)
        flat[outside] = torch.nan
        points, outside = points[points.isfinite()], outside[points.isfinite()]
        owners, order = (outside // layout.inner % layout.channels).sort(stable=True)
        found, counts = owners.unique_consecutive(return_counts=True)
        for model, where in zip(found.tolist(), order.split(counts.tolist()), strict=True):
            place = outside[where]
            with torch.enable_grad():
                at = points[where].requires_grad_(g is not None)
                y = self.modules[model](at)
            if g is None:
                flat[place] = y.to(flat.dtype)
            elif y.requires_grad:
                (slopes,) = torch.autograd.grad(y, at, g.view(-1)[place].double())
                flat[place] = slopes.to(flat.dtype)
            else:
                flat[place] = 0.0


def _place_of_models(x: Tensor) -> int:
    """Return where the dimension of the models, the first of `x`, is in the order of memory; 0 where it is nowhere."""
    return next((place for place in range(x.dim()) if x.movedim(0, place).is_contiguous()), 0)


def _dense(x: Tensor, place: int) -> Tensor:
    """Return a contiguous tensor with the models in that dimension, in a dtype that is looked up."""
    return x.movedim(0, place).to(x.dtype if x.dtype in DTYPES else torch.float32).contiguous()


def _layout(x: Tensor, place: int) -> Layout:
    return Layout(prod(x.shape[:place]), x.shape[place], prod(x.shape[place + 1 :]), torch.contiguous_format)


class _Activation(Function):
    """Values of a lookup, all models in one call under `vmap` over their number; outside of it a ReLU."""

    @staticmethod
    def forward(x: Tensor, model: Tensor, lookup: Lookup) -> Tensor:
        return lookup.value(x) if model.dim() else x.relu()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Lookup], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])
        ctx.lookup = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        x, model = ctx.saved_tensors
        return (ctx.lookup.gradient(x, g) if model.dim() else g * (x > 0)), None, None

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, int | None, None], x: Tensor, model: Tensor, lookup: Lookup
    ) -> tuple[Tensor, int]:
        place = dims[0]
        # What is the same for all models, as data that an activation acts on first.
        x = x.expand(info.batch_size, *x.shape) if place is None else x.movedim(place, 0)
        return _Activation.apply(x, model, lookup), 0


class PackedActivation(nn.Module):
    """Stands at a site of a model that is many: each model of the pack has its own function there.

    Outside of `torch.vmap`, where a model is looked at before it is many, it is a ReLU.

    Args:
        lookup: The functions.

    Attributes:
        model: Number of the model; of all of them, in order, in the state of a pack.
    """

    model: Tensor

    def __init__(self, lookup: Lookup) -> None:
        super().__init__()
        self.lookup = lookup
        self.register_buffer("model", torch.zeros((), dtype=torch.int64), persistent=False)

    def __deepcopy__(self, _: object) -> PackedActivation:
        """Return one with the same functions, whose tables are large."""
        return PackedActivation(self.lookup)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function of each model of the pack to its own part of `x`, within `vmap`."""
        found: Tensor = _Activation.apply(x, self.model, self.lookup)
        return found
