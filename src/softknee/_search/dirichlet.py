"""Points of a simplex drawn from a Dirichlet distribution over some of its corners, with pathwise gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import Function

if TYPE_CHECKING:
    from torch import Tensor

# Of a concentration; below, draws and their gradients are zeros and ones with no numbers between.
SMALLEST = 1e-2
# Of what a draw is divided by.
TINY = 1e-30


def draw(concentration: Tensor, live: Tensor, generator: torch.Generator) -> Tensor:
    """Draw weights, differentiable by the concentrations (Figurnov et al., arXiv:1805.08498).

    Args:
        concentration: `(..., corners)` float32, positive; no less than 1/100 is used.
        live: Broadcastable to it, which corners take part; at least one of each point.
        generator: Of the draw, on the device of `concentration`.

    Returns:
        Same shape; not negative, sums to one, zero where a corner takes no part.
    """
    weights: Tensor = _Draw.apply(concentration.clamp(min=SMALLEST), live.expand_as(concentration), generator)
    return weights


class _Draw(Function):
    """Gamma variates over their sum."""

    @staticmethod
    def forward(concentration: Tensor, live: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch._standard_gamma(concentration, generator).clamp(min=TINY) * live
        weights: Tensor = drawn / drawn.sum(-1, keepdim=True)
        return weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        concentration, live, _ = inputs
        ctx.save_for_backward(output, concentration, live)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        weights, concentration, live = ctx.saved_tensors
        total = (concentration * live).sum(-1, keepdim=True).expand_as(concentration)
        # The corner that is all there is has no gradient; nor is there one where the formula would have 0 / 0.
        slopes = torch._dirichlet_grad(weights.clamp(TINY, 1.0), concentration, total)
        by = slopes * (g - (weights * g).sum(-1, keepdim=True))
        return torch.where(live & (weights < 1), by, 0.0), None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], concentration: Tensor, live: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int | None]:
        """Draw once for all, or for each where concentrations differ."""
        if in_dims[:2] == (None, None):
            return _Draw.apply(concentration, live, generator), None
        size = info.batch_size
        each = (
            one.expand(size, *one.shape) if dim is None else one.movedim(dim, 0)
            for one, dim in zip((concentration, live), in_dims, strict=False)
        )
        return _Draw.apply(*each, generator), 0
