"""Layers of the public protocol's networks, with its initialization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import skip_init

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    MakeActivation = Callable[[int], nn.Module]


def convolution(
    inputs: int, outputs: int, size: int, stride: int, generator: torch.Generator, *, groups: int = 1
) -> nn.Conv2d:
    """Make a convolution without bias that keeps the size of the image at stride 1, Kaiming-normal by `fan_out`.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        size: Of the kernel, odd.
        stride: In both directions.
        generator: Source of the weights.
        groups: Parts of the channels that are convolved by themselves.

    Returns:
        The layer.
    """
    # The constructor's own initialization would draw from the global generator.
    layer: nn.Conv2d = skip_init(
        nn.Conv2d, inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    return layer


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Make a linear layer, Kaiming-normal by `fan_in`, with a bias of zeros.

    Args:
        inputs: Features that come in.
        outputs: Features that go out.
        generator: Source of the weights.

    Returns:
        The layer.
    """
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
