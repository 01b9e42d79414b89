"""The trained parameters of activations, as numbers to be written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from softknee._diagnose.units.places import Target


def trained(targets: Sequence[Target]) -> dict[tuple[str, str], nn.Parameter]:
    """Return the trained parameters of activation modules by the names of activation and parameter, each once."""
    found: dict[nn.Parameter, tuple[str, str]] = {}
    for target in targets:
        for name, parameter in target.module.named_parameters() if target.module is not None else ():
            if parameter.requires_grad and parameter.numel():
                found.setdefault(parameter, (target.name, name))
    return {name: parameter for parameter, name in found.items()}


def noted(parameter: nn.Parameter, most: int) -> Tensor:
    """Return the values of a parameter, or minimum, mean and maximum of more than `most`; float64 where there is that.

    Args:
        parameter: Of a sharded one only the whole says anything; all processes come through here together.
        most: So many values are returned as they are.
    """
    values = _values(parameter)
    return values.clone() if len(values) <= most else torch.stack([values.min(), values.mean(), values.max()])


def size(gradient: Tensor) -> Tensor:
    """Return the root mean square of a gradient, `(1,)`, float64 where there is that; sharded ones as in `noted`."""
    return _values(gradient).square().mean().sqrt().reshape(1)


def numbers(vectors: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, str], list[float]]:
    """Return the entries of vectors, by their names, in one transfer for each device."""
    values: dict[tuple[str, str], list[float]] = {}
    for device in {vector.device for vector in vectors.values()}:
        here = {name: vector for name, vector in vectors.items() if vector.device == device}
        entries = iter(torch.cat(list(here.values())).tolist())
        values |= {name: [next(entries) for _ in range(len(vector))] for name, vector in here.items()}
    return {name: values[name] for name in vectors}


def _values(tensor: Tensor) -> Tensor:
    one = tensor.detach()
    whole = one.full_tensor() if hasattr(one, "full_tensor") else one
    return whole.flatten().to(torch.float32 if whole.device.type == "mps" else torch.float64)
