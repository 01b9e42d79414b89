"""Activations of DTensors: each process evaluates its own part, and gradients of what the parts share are summed.

DTensors exist only where somebody has imported their module, so it is never imported for them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from softknee._engine.layout import as_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from softknee._engine.layout import Input
    from softknee._engine.plan import Plan, Value


def is_distributed(x: object) -> bool:
    """Return whether something is a DTensor."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(x, kind)


def replicated(value: Tensor, like: Any) -> Tensor:
    """Return a parameter as a DTensor that is whole in all processes; its gradient is that of the whole, too.

    Args:
        value: A DTensor, or a plain tensor that is the same in all processes.
        like: A DTensor on the mesh it is for.

    Returns:
        A DTensor.
    """
    from torch.distributed.tensor import Replicate

    mesh = like.device_mesh
    whole: Tensor = _as_dtensor(value, mesh).redistribute(mesh, [Replicate()] * mesh.ndim)
    return whole


class Along(NamedTuple):
    """The dimension of an input that an activation does not treat as all others.

    Attributes:
        dim: The dimension, not negative.
        own: How many parameters of their own there are along it, None where there are none.
        grain: Of how many entries parts must be multiples, so that each can be evaluated alone; 0 where none can.
    """

    dim: int
    own: int | None
    grain: int


def cut_as(other: Any, x: Any) -> Any:
    """Return a DTensor with its parts in the processes where those of another one of its shape are."""
    return other.redistribute(x.device_mesh, x.placements)


def along_of(plan: Plan, inputs: Input, channel_dim: int | None) -> Along | None:
    """Return what is special about the channels of an input.

    Args:
        plan: The activation.
        inputs: A tensor, or gate and value.
        channel_dim: Of the input, not negative; None where all elements share their parameters.

    Returns:
        None where nothing is.
    """
    if channel_dim is None:
        return None
    x, *others = as_tuple(inputs)
    if plan.halves is not None and not others:
        own = x.shape[channel_dim] // 2 if plan.per_channel else None
        return Along(channel_dim, own, 2 if plan.halves.interleaved else 0)
    # A function of the channel's number needs to know it.
    return Along(channel_dim, x.shape[channel_dim], 0 if plan.channelwise else 1)


def by_parts(
    function: Callable[[Any, Sequence[Value]], Tensor], inputs: Input, values: Sequence[Value], along: Along | None
) -> Tensor:
    """Apply an activation to the part of a DTensor that this process holds.

    Args:
        function: Evaluates plain tensors, as many as the inputs, at parameters in their stored shapes.
        inputs: A DTensor, or gate and value, which are two.
        values: Parameters: numbers, DTensors, or plain tensors that are the same in all processes.
        along: The dimension that is not as all others, None where there is none.

    Returns:
        A DTensor as the activation makes of the whole; it is cut as the first input is, where that is possible.
    """
    x, *others = as_tuple(inputs)
    x, parts = local_parts(x, values, along)
    part = x.to_local()
    y = function((part, *(cut_as(other, x).to_local() for other in others)) if others else part, parts)
    shape = [*x.shape]
    if along is not None and part.shape[along.dim]:
        shape[along.dim] = shape[along.dim] * y.shape[along.dim] // part.shape[along.dim]
    # How the whole would lie in memory if it were as dense as this part.
    order = sorted(range(y.dim()), key=y.stride, reverse=True)
    whole = torch.empty_permuted(shape, order, device="meta")
    result: Tensor = _joined(y, x.device_mesh, x.placements, shape=whole.shape, stride=whole.stride())
    return result


def local_parts(x: Any, values: Sequence[Value], along: Along | None) -> tuple[Any, list[Value]]:
    """Return a DTensor whose parts can be evaluated alone, and the parameters that belong to this process's part of it.

    Args:
        x: As `by_parts`.
        values: As `by_parts`.
        along: As `by_parts`.

    Returns:
        Both.
    """
    from torch.distributed.tensor import Replicate

    places = [place if _can_stay(x, place, along) else Replicate() for place in x.placements]
    x = x.redistribute(placements=places)
    return x, [_part_of(value, x, along) if isinstance(value, torch.Tensor) else value for value in values]


def _can_stay(x: Any, place: Any, along: Along | None) -> bool:
    """Whether processes that each hold what a placement gives them can evaluate it alone."""
    from torch.distributed.tensor import Shard

    # No sums that are pending; of subclasses, which interleave, nothing is known.
    if type(place) is not Shard:
        return False
    if along is None or place.dim != along.dim or along.grain == 1:
        return True
    return along.grain > 0 and x.shape[along.dim] % (along.grain * x.device_mesh.size()) == 0


def _part_of(value: Any, x: Any, along: Along | None) -> Tensor:
    """Return the part of a parameter that belongs to the local part of `x`, a DTensor."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    has_channels = along is not None and value.dim() > 0 and value.shape[-1] == along.own
    places: list[Any] = []
    by_places: list[Any] = []
    for place in x.placements:
        cut = along is not None and has_channels and place.is_shard(along.dim)
        places.append(Shard(value.dim() - 1) if cut else Replicate())
        # Processes that hold other elements hold other parts of the sum over all elements.
        by_places.append(Partial() if place.is_shard() and not cut else places[-1])
    part: Tensor = _as_dtensor(value, x.device_mesh).redistribute(placements=places).to_local(grad_placements=by_places)
    return part


def _as_dtensor(value: Any, mesh: Any) -> Any:
    """Return a DTensor as it is, and a plain tensor as one that is whole in all processes."""
    from torch.distributed.tensor import Replicate

    return value if is_distributed(value) else _joined(value, mesh, [Replicate()] * mesh.ndim)


def _joined(part: Tensor, mesh: Any, places: Any, **size: Any) -> Any:
    """Return the DTensor of local parts."""
    from torch.distributed.tensor import DTensor

    # The second step does nothing, but brings the gradient to the first as that wants it, by operations that can be
    # differentiated themselves; the first step's own cannot.
    return DTensor.from_local(part, mesh, places, run_check=False, **size).redistribute(mesh, places)


def assign(tensor: Tensor, value: Tensor) -> None:
    """Write a value into a parameter or buffer, by parts where that is a DTensor.

    Args:
        tensor: What is written to.
        value: Plain, of the same shape.
    """
    with torch.no_grad():
        value = value.to(tensor.device, tensor.dtype)
        if is_distributed(tensor):
            from torch.distributed.tensor import distribute_tensor

            whole: Any = tensor
            value = distribute_tensor(value, whole.device_mesh, whole.placements)
        tensor.copy_(value)
