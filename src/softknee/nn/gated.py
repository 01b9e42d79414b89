"""Gated pairs: one half of the input gates the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._engine.plan import broadcast
from softknee._errors import UsageError
from softknee.nn.activation import Activation, dimension
from softknee.nn.options import check_flag, check_integer

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor


class Gated(Activation):
    """A gated pair, such as GEGLU: the input holds gate and value, the output is half as wide.

    The function itself, in `softknee.functional`, takes the two as separate tensors.

    Args:
        dim: Dimension that holds both.
        gate_first: Whether the gate is the first half; by default as its source has it (`torch.nn.GLU`: the second).
        interleaved: Whether gates and values alternate instead.
        trainable: Whether parameters are trained: all, none, or those named; by default as their source does.
        per_channel: Number of channels of the output, for separate parameters in each.
        **values: Parameters by name: numbers, or tensors of the stored shape.

    Raises:
        OptionError: An option is unknown to this activation, or its value is outside the allowed range.
    """

    def __init__(
        self,
        *,
        dim: int | None = None,
        gate_first: bool | None = None,
        interleaved: bool = False,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        **values: Any,
    ) -> None:
        dim = self.spec.dim if dim is None else dim
        gate_first = self.spec.gate_first if gate_first is None else gate_first
        check_integer(self.spec, "dim", dim)
        check_flag(self.spec, "gate_first", gate_first)
        check_flag(self.spec, "interleaved", interleaved)
        super().__init__(trainable=trainable, per_channel=per_channel, **values)
        self.dim = dim
        self.gate_first = gate_first
        self.interleaved = interleaved

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: Any shape with an even number of channels in `dim`, any floating dtype.

        Returns:
            Half as many channels, else the shape and dtype of `x`.

        Raises:
            UsageError: The number of channels is odd, or not twice that of the parameters.
        """
        dim = dimension(self, x, self.dim)
        gate, value = self._halves(x, dim)
        if self.per_channel is not None:
            dimension(self, gate, dim, self.per_channel)
        channel_dim = None if self.per_channel is None else dim
        arguments = [broadcast(stored, gate, channel_dim=channel_dim) for stored in self._values()]
        return self.spec.function(gate, value, *arguments)

    def _halves(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        size = x.shape[dim]
        if size % 2:
            raise UsageError(
                f"{type(self).__name__} halves dimension {dim}, which must be even; "
                f"got an input of shape {tuple(x.shape)}"
            )
        if self.interleaved:
            first, second = x.unflatten(dim, (size // 2, 2)).unbind(dim + 1)
        else:
            first, second = x.chunk(2, dim)
        return (first, second) if self.gate_first else (second, first)

    def extra_repr(self) -> str:
        """Return parameter values, and where the gate is."""
        order = "interleaved, " * self.interleaved + f"gate_first={self.gate_first}"
        return ", ".join(filter(None, [super().extra_repr(), f"dim={self.dim}", order]))
