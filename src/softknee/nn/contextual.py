"""Activations whose parameters a small network computes from the whole input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.plan import broadcast
from softknee._errors import OptionError, UsageError
from softknee.functional import contextual
from softknee.nn.activation import Activation
from softknee.nn.options import check_flag, check_generator, check_whole
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_OWN = {spec.name: spec for spec in contextual.SPECS}
_CONVOLUTIONS: Mapping[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMALIZATIONS: Mapping[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Contextual(Activation):
    """An activation with a small network of its own, for inputs with channels in dimension 1.

    The network computes in the dtype of its weights, the function in that of the input.

    Args:
        channels: Number of channels.
        **options: As in `Activation`.

    Raises:
        OptionError: An option is unknown to this activation, or its value is outside the allowed range.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        check_whole(self.spec, "channels", channels)
        super().__init__(**options)
        self.channels = channels

    def _check(self, x: Tensor) -> None:
        """Refuse an input without a batch or with other channels.

        Raises:
            UsageError: It is one.
        """
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise UsageError(
                f"{type(self).__name__} has a network for {self.channels} channels in dimension 1, "
                f"got an input of shape {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        """Return the number of channels, then parameter values."""
        return ", ".join(filter(None, [str(self.channels), super().extra_repr()]))


class FReLU(Contextual):
    r"""Funnel ReLU, $\max(x, T(x))$: the condition $T$ is a depthwise convolution with batch normalization.

    Args:
        channels: Number of channels.
        kernel: Size of the convolution's window, odd.
        spatial: Number of dimensions behind the channels: 1, 2 or 3.
        **options: None but a `generator`, which is not used.

    Raises:
        OptionError: An option is outside the allowed range.
    """

    spec = _OWN["frelu"]

    def __init__(self, channels: int, *, kernel: int = 3, spatial: int = 2, **options: Any) -> None:
        super().__init__(channels, **options)
        check_whole(self.spec, "kernel", kernel)
        if kernel % 2 == 0:
            raise OptionError(f"kernel of frelu must be odd, got {kernel}")
        if not _is_spatial(spatial):
            raise OptionError(f"spatial of frelu must be 1, 2 or 3, got {excerpt(spatial)}")
        self.spatial = spatial
        # The normalization has an offset, which makes one of the convolution superfluous.
        self.conv = _CONVOLUTIONS[spatial](channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.norm = _NORMALIZATIONS[spatial](channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: (N, C, H, W), or with as many dimensions behind the channels as `spatial` says; any floating dtype.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The input has another shape.
        """
        self._check(x)
        if x.dim() != 2 + self.spatial:
            raise UsageError(
                f"FReLU with spatial={self.spatial} takes inputs of {2 + self.spatial} dimensions, "
                f"got one of shape {tuple(x.shape)}"
            )
        condition = self.norm(self.conv(x.to(self.conv.weight.dtype)))
        return self.spec.function(x, condition.to(x.dtype))


class DynamicReLU(Contextual):
    r"""Dynamic ReLU, $\max(a_1 x + b_1, a_2 x + b_2)$: lines by a network of the channels' means.

    Args:
        channels: Number of channels.
        reduction: By how much the network's hidden layer is narrower than the input.
        shared: Whether all channels share the lines (variant A of the paper), or each has its own (variant B).
        **options: None but a `generator`, which is not used.

    Raises:
        OptionError: An option is outside the allowed range.
    """

    spec = _OWN["dynamic_relu"]

    def __init__(self, channels: int, *, reduction: int = 8, shared: bool = False, **options: Any) -> None:
        super().__init__(channels, **options)
        check_whole(self.spec, "reduction", reduction)
        check_flag(self.spec, "shared", shared)
        self.shared = shared
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, 4 if shared else 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: (N, C) or (N, C, ...), any floating dtype.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The input has another shape.
        """
        self._check(x)
        theta = 2 * torch.sigmoid(self.fc2(torch.relu(self.fc1(means(x, self.fc1.weight))))) - 1
        lines = theta.view(x.shape[0], 1 if self.shared else self.channels, 4)
        slope_1, slope_2, intercept_1, intercept_2 = (spread(part, x) for part in lines.unbind(-1))
        return self.spec.function(x, 1 + slope_1, slope_2, intercept_1 / 2, intercept_2 / 2)


class MetaACON(Contextual):
    r"""Meta-ACON: ACON-C with a $\beta$ for each channel by a network of the channels' means.

    Args:
        channels: Number of channels.
        reduction: By how much the network's hidden layer is narrower than the input, and its least width.
        batch_norm: Whether the network has batch normalization behind both layers, as in the authors' code.
        initialization: `"normal"` draws $p_1$ and $p_2$ of each channel from a normal distribution, as the authors'
            code does, `"swish"` starts them at 1 and 0.
        trainable: Which of $p_1$ and $p_2$ are trained, both by default.
        generator: Source of drawn parameters, torch's global one by default.
        **values: Values of `p1` and `p2` to start at instead: numbers, or tensors `(channels,)`.

    Raises:
        OptionError: An option is unknown, or its value is outside the allowed range.
    """

    spec = _OWN["meta_acon"]

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        batch_norm: bool = False,
        initialization: str = "normal",
        trainable: bool | Collection[str] | None = None,
        generator: torch.Generator | None = None,
        **values: Any,
    ) -> None:
        check_whole(self.spec, "channels", channels)
        check_whole(self.spec, "reduction", reduction)
        check_flag(self.spec, "batch_norm", batch_norm)
        if not isinstance(initialization, str) or initialization not in {"normal", "swish"}:
            raise OptionError(f"initialization of meta_acon must be normal or swish, got {excerpt(initialization)}")
        check_generator(self.spec, generator)
        if "per_channel" in values:
            raise OptionError("meta_acon has parameters for each channel as it is; leave out per_channel")
        self._draws = initialization == "normal"
        super().__init__(channels, per_channel=channels, trainable=trainable, generator=generator, **values)
        hidden = max(reduction, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.bn1 = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, channels)
        self.bn2 = nn.BatchNorm1d(channels) if batch_norm else nn.Identity()
        self.batch_norm = batch_norm

    def _drawn(self, generator: torch.Generator | None) -> Mapping[str, Tensor]:
        if not self._draws:
            return {}
        return {name: torch.randn(self.per_channel or 1, generator=generator) for name in ("p1", "p2")}

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: (N, C) or (N, C, ...), any floating dtype.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The input has another shape, or is a single sample in training with batch normalization.
        """
        self._check(x)
        if self.batch_norm and self.training and x.shape[0] == 1:
            raise UsageError("MetaACON with batch_norm=True needs two samples or more in training, got one")
        beta = torch.sigmoid(self.bn2(self.fc2(self.bn1(self.fc1(means(x, self.fc1.weight))))))
        p1, p2 = (broadcast(value, x, channel_dim=1) for value in self._values())
        return self.spec.function(x, p1, p2, spread(beta, x))


class ATAC(Contextual):
    r"""Attentional activation, $x\,\sigma(T(x))$: $T$ mixes the channels of each place through a bottleneck.

    Args:
        channels: Number of channels.
        reduction: By how much the bottleneck is narrower than the input.
        **options: None but a `generator`, which is not used.

    Raises:
        OptionError: An option is outside the allowed range.
    """

    spec = _OWN["atac"]

    def __init__(self, channels: int, *, reduction: int = 4, **options: Any) -> None:
        super().__init__(channels, **options)
        check_whole(self.spec, "reduction", reduction)
        hidden = max(1, channels // reduction)
        self.conv1 = nn.Conv1d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.conv2 = nn.Conv1d(hidden, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: (N, C) or (N, C, ...), any floating dtype.

        Returns:
            Same shape and dtype as `x`.

        Raises:
            UsageError: The input has another shape, or a single place in training, which has no variance.
        """
        self._check(x)
        if self.training and x.numel() == self.channels:
            raise UsageError("ATAC needs two places or more in training, for it normalizes over them; got one")
        places = x.to(self.conv1.weight.dtype).flatten(2) if x.dim() > 2 else x.to(self.conv1.weight.dtype)[..., None]
        gate = torch.sigmoid(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(places))))))
        return self.spec.function(x, gate.to(x.dtype).view(x.shape))


def means(x: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of each sample's channels, `(N, C)`, in the dtype of a weight."""
    places = tuple(range(2, x.dim()))
    return x.mean(places, dtype=weight.dtype) if places else x.to(weight.dtype)


def spread(parameter: Tensor, x: Tensor) -> Tensor:
    """Return a parameter `(N, C)` broadcastable to an input, in its dtype."""
    return parameter.to(x.dtype).view(*parameter.shape, *[1] * (x.dim() - 2))


def _is_spatial(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number in _CONVOLUTIONS
