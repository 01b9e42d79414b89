"""Activations with small networks as they are printed: with the state of those of `softknee.nn`, on torch alone.

Those inherit the storage, the checks and the messages that all our activations share; these are what is left without.
Tests compare the two: results, gradients, drawn weights, state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softknee.functional.contextual import atac, dynamic_relu, frelu, meta_acon, mixed
from softknee.nn.contextual import means, spread

if TYPE_CHECKING:
    from collections.abc import Callable

# What a printed `GatedMix` mixes.
EXPERTS: tuple[Callable[[Tensor], Tensor], ...] = (F.relu, F.gelu, F.silu, torch.tanh)


class FReLU(nn.Module):
    r"""Funnel ReLU, $\max(x, T(x))$: the condition $T$ is a depthwise convolution with batch normalization.

    Args:
        channels: Number of channels.
        kernel: Size of the convolution's window, odd.
        spatial: Number of dimensions behind the channels: 1, 2 or 3.
    """

    def __init__(self, channels: int, *, kernel: int = 3, spatial: int = 2) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[spatial]
        normalization = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[spatial]
        self.conv = convolution(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.norm = normalization(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor (N, C, ...) with as many dimensions behind the channels as `spatial` says."""
        condition = self.norm(self.conv(x.to(self.conv.weight.dtype)))
        return frelu(x, condition.to(x.dtype))


class DynamicReLU(nn.Module):
    r"""Dynamic ReLU, $\max(a_1 x + b_1, a_2 x + b_2)$: lines by a network of the channels' means.

    Args:
        channels: Number of channels.
        reduction: By how much the network's hidden layer is narrower than the input.
        shared: Whether all channels share the lines, or each has its own.
    """

    def __init__(self, channels: int, *, reduction: int = 8, shared: bool = False) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, 4 if shared else 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor (N, C) or (N, C, ...)."""
        theta = 2 * torch.sigmoid(self.fc2(torch.relu(self.fc1(means(x, self.fc1.weight))))) - 1
        slope_1, slope_2, intercept_1, intercept_2 = (
            spread(part, x) for part in theta.unflatten(1, (-1, 4)).unbind(-1)
        )
        return dynamic_relu(x, 1 + slope_1, slope_2, intercept_1 / 2, intercept_2 / 2)


class MetaACON(nn.Module):
    r"""Meta-ACON, $(p_1 - p_2) x\,\sigma(\beta (p_1 - p_2) x) + p_2 x$: $\beta$ by a network of the channels' means.

    Args:
        channels: Number of channels.
        reduction: By how much the network's hidden layer is narrower than the input, and its least width.
        batch_norm: Whether the network has batch normalization behind both layers.
        initialization: `"normal"` draws $p_1$ and $p_2$ from a normal distribution, `"swish"` starts them at 1 and 0.
        trainable: Whether they are trained: all, none, or those named.
        generator: Source of drawn parameters.
    """

    p1: Tensor
    p2: Tensor

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        batch_norm: bool = False,
        initialization: str = "normal",
        trainable: bool | tuple[str, ...] = ("p1", "p2"),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, start in (("p1", torch.ones(channels)), ("p2", torch.zeros(channels))):
            value = start if initialization == "swish" else torch.randn(channels, generator=generator)
            trained = trainable if isinstance(trainable, bool) else name in trainable
            if trained:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        hidden = max(reduction, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.bn1 = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, channels)
        self.bn2 = nn.BatchNorm1d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor (N, C) or (N, C, ...)."""
        beta = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(means(x, self.fc1.weight))))))
        return meta_acon(x, spread(self.p1, x), spread(self.p2, x), spread(beta, x))


class ATAC(nn.Module):
    r"""Attentional activation, $x\,\sigma(T(x))$: $T$ mixes the channels of each place through a bottleneck.

    Args:
        channels: Number of channels.
        reduction: By how much the bottleneck is narrower than the input.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.conv1 = nn.Conv1d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.conv2 = nn.Conv1d(hidden, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor (N, C) or (N, C, ...)."""
        places = x.to(self.conv1.weight.dtype).flatten(2) if x.dim() > 2 else x.to(self.conv1.weight.dtype)[..., None]
        gate = torch.sigmoid(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(places))))))
        return atac(x, gate.to(x.dtype).view(x.shape))


class GatedMix(nn.Module):
    """A mixture of activations, weighted for each sample by a network of the channels' means.

    Args:
        channels: Number of channels.
        reduction: By how much the network's hidden layer is narrower than the input.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, len(EXPERTS))
        # All weights are equal at first.
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to a tensor (N, C) or (N, C, ...)."""
        weights = torch.softmax(self.fc2(torch.relu(self.fc1(means(x, self.fc1.weight)))), dim=1)
        return mixed(x, [spread(weight[:, None], x) for weight in weights.unbind(1)], EXPERTS)
