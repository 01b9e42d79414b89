"""Which weights of a model a calibration leaves, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import parametrize

from softknee._surgery.places import Unseen

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from softknee._surgery.layers import Follower

_FROZEN = "it is frozen (requires_grad is False)"
_BIAS = "its bias is frozen (requires_grad is False) and would not become zero"
_TIED = "it is tied to an embedding, whose scale the layers that follow are drawn for"
_EMBEDDING = "it is an embedding, whose scale the layers that follow are drawn for"
_ATTENTION = "the projections of torch's attention are inside one function"
_RECURRENT = "the layers of a recurrent network are inside one kernel"
_COMPUTED = "its weights are computed from others (parametrized); calibrate first, then parametrize"
_PACKED = "its weights are quantized"
_ASLEEP = "it did not run in the example"
_OTHER = "it was not seen as the weight of a linear layer or a convolution"
_NOT_ASKED = "it was not asked for"
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Parameters of `torch.nn.utils.weight_norm`.
_NORMED = ("weight_g", "weight_v")


def reasons(model: nn.Module, seen: Follower) -> dict[nn.Parameter, str]:
    """Return why weights of layers that ran cannot be drawn.

    Args:
        model: The model.
        seen: A run of it.
    """
    embedded = {parameter for one in model.modules() if isinstance(one, _EMBEDDINGS) for parameter in one.parameters()}
    found = {}
    for weight, layer in seen.layers.items():
        if not weight.requires_grad:
            found[weight] = _FROZEN
        elif weight in embedded:
            found[weight] = _TIED
        elif layer.bias is not None and not layer.bias.requires_grad:
            found[weight] = _BIAS
    return found


def left_out(
    model: nn.Module, seen: Follower, drawn: Collection[nn.Parameter], obstacles: Mapping[nn.Parameter, str]
) -> tuple[Unseen, ...]:
    """Return the weights that are left, with the reasons; parameters of activations and vectors are none.

    Args:
        model: The model.
        seen: A run of it.
        drawn: Weights that are not left.
        obstacles: From `reasons`.
    """
    found: dict[str, str] = {}
    # Of modules that are one thing, with all that is in them.
    closed: dict[str, str] = {}
    acting = {one for call in seen.trace.calls if call.module is not None for one in call.module.modules()}
    for path, module in model.named_modules():
        if module in acting or any(path.startswith(f"{one}." if one else "") for one in closed):
            continue
        reason = _whole(module)
        if reason is None:
            found.update(_own(path, module, seen, drawn, obstacles))
        else:
            found[path] = closed[path] = reason
    return tuple(Unseen(path, reason) for path, reason in found.items())


def _whole(module: nn.Module) -> str | None:
    """Return why no weight in a module can be drawn, None if that depends on the weight."""
    if isinstance(module, nn.MultiheadAttention):
        return _ATTENTION
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _RECURRENT
    if parametrize.is_parametrized(module) or module._parameters.keys() & set(_NORMED):
        return _COMPUTED
    return _PACKED if callable(getattr(module, "weight", None)) else None


def _own(
    path: str,
    module: nn.Module,
    seen: Follower,
    drawn: Collection[nn.Parameter],
    obstacles: Mapping[nn.Parameter, str],
) -> dict[str, str]:
    """Return the weights of a module itself that are left, with the reasons."""
    found = {}
    for name, weight in module._parameters.items():
        if weight is None or weight in drawn or sum(size > 1 for size in weight.shape) < 2:
            continue
        if isinstance(module, _EMBEDDINGS):
            reason = _EMBEDDING
        elif weight in seen.layers:
            reason = obstacles.get(weight, _NOT_ASKED)
        elif not weight.is_floating_point():
            reason = _PACKED
        else:
            reason = _OTHER if module in seen.trace.ran else _ASLEEP
        found[path if name == "weight" else f"{path}.{name}".strip(".")] = reason
    return found
