"""What kind of activation a module is: by its class, or by what it does with a test input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from softknee._card.recognise import exactly
from softknee._expression.fingerprint import POINTS
from softknee.nn.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable

# torch's own activation modules, by the catalogue's names.
TORCH: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.LogSigmoid: "log_sigmoid",
    nn.GLU: "glu",
    nn.Softmax: "softmax",
    nn.Threshold: "threshold",
    nn.Softshrink: "softshrink",
    nn.Hardshrink: "magnitude_threshold",
    nn.Tanhshrink: "tanhshrink",
    nn.Softmax2d: "softmax",
    nn.Hardtanh: "hardtanh",
    nn.GELU: "gelu",
}
# Those of them whose options make another function of them.
_SEVERAL = (nn.Hardtanh, nn.GELU, nn.Threshold)
# Modules with more parameters than this are no activations.
MOST_PARAMETERS = 2**20
# Test inputs have no more elements than this, where a smaller batch allows it.
MOST_ELEMENTS = 2**16
SPAN = 20.0
# Of float32 values that should be equal.
CLOSE = 1e-5


def kind_by_class(module: nn.Module) -> str | None:
    """Return the kind of a module of a known class, None for other classes."""
    if isinstance(module, Activation):
        return module.spec.name
    known_class = next((one for one in TORCH if isinstance(module, one)), None)
    if known_class is None or type(module).forward is not known_class.forward:
        return None
    # By its function rather than itself, whose hooks are for real inputs.
    return (known(module.forward) if isinstance(module, _SEVERAL) else None) or TORCH[known_class]


def may_be_activation(module: nn.Module) -> bool:
    """Return whether a module of unknown class is worth a test: small, and without layers of torch in it."""
    if isinstance(module, nn.ModuleList):
        # Whose parts take turns.
        return False
    parts = list(module.modules())
    own = (not type(part).__module__.startswith("torch.") or kind_by_class(part) is not None for part in parts)
    return all(own) and sum(parameter.numel() for parameter in module.parameters()) <= MOST_PARAMETERS


def kind_by_test(module: nn.Module, x: Tensor, unit_axis: int) -> str | None:
    """Return the kind of a module that acts on single elements or gates, None if it does something else.

    Args:
        module: Of unknown class.
        x: An input of it.
        unit_axis: Dimension of `x` in which it may act differently.
    """
    if not x.is_floating_point() or x.numel() == 0:
        return None
    few = x[: max(1, MOST_ELEMENTS * len(x) // x.numel())] if x.dim() else x
    # Drawn by numpy, for `vmap`, in which a model may run this, refuses what torch draws.
    spread = torch.from_numpy(np.random.default_rng(0).uniform(-SPAN, SPAN, few.shape)).to(few)
    try:
        return _kind(module.forward, spread, unit_axis)
    except Exception:  # anybody's module may raise anything at an input it was not made for
        return None


def _kind(function: Callable[[Tensor], Tensor], x: Tensor, unit_axis: int) -> str | None:
    y: Any = function(x.clone())
    if not isinstance(y, Tensor):
        return None
    if y.shape == x.shape:
        if not (acts_on_elements(function, x, y) or _acts_on_channels(function, x, y, unit_axis)):
            return None
        return None if _is_straight(function, x, y) else known(function) or _name(function)
    return _name(function) if _halves(x, y) else None


def acts_on_elements(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> bool:
    """Return whether `y = f(x)` comes out in another order when the elements of `x` do."""
    order = _order(x.numel(), x)
    return _close(function(x.flatten()[order].view_as(x)), y.flatten()[order].view_as(y))


def _acts_on_channels(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, unit_axis: int) -> bool:
    """Return whether the elements of each channel may change places."""
    if x.dim() < 2 or x.numel() == x.shape[unit_axis]:
        return False
    first, then = (one.transpose(0, unit_axis).flatten(1) for one in (x, y))
    # Another order in each channel, for a norm does not mind if whole rows change places.
    order = torch.from_numpy(np.random.default_rng(1).random(first.shape).argsort(axis=1)).to(x.device)
    shuffled = first.gather(1, order).view(x.transpose(0, unit_axis).shape).transpose(0, unit_axis)
    return _close(function(shuffled.contiguous()).transpose(0, unit_axis).flatten(1), then.gather(1, order))


def _is_straight(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> bool:
    """Return whether the function is a straight line for each element: the identity, a scale, dropout in eval mode."""
    turned = (x + 1) / 2
    return _close(function(turned.clone()), (y + function(torch.ones_like(x))) / 2)


def _halves(x: Tensor, y: Tensor) -> bool:
    changed = [(before, after) for before, after in zip(x.shape, y.shape, strict=False) if before != after]
    return x.dim() == y.dim() and len(changed) == 1 and changed[0][0] == 2 * changed[0][1]


def _order(count: int, like: Tensor) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).permutation(count)).to(like.device)


def _close(first: Tensor, second: Tensor) -> bool:
    tolerance = max(CLOSE, 4 * torch.finfo(first.dtype).eps)
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


def known(function: Callable[[Tensor], Tensor]) -> str | None:
    """Return the catalogue's name of a function of single elements, None if it is none of them with its defaults."""
    try:
        with torch.no_grad():
            values = function(POINTS.clone())
    except Exception:  # parameters of another dtype or for several channels, or anything that a module may raise
        return None
    same = isinstance(values, Tensor) and values.shape == POINTS.shape and values.dtype == POINTS.dtype
    return exactly(values) if same else None


def _name(function: Callable[[Tensor], Tensor]) -> str:
    return type(getattr(function, "__self__", function)).__name__
