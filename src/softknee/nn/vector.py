"""Activations that look at all entries along one dimension: sorts, maxima of groups, normalizations, projections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from softknee._engine.distributed import Along, by_parts, is_distributed
from softknee._engine.plan import broadcast
from softknee._errors import OptionError
from softknee.nn.activation import Activation, dimension
from softknee.nn.options import check_integer, check_whole, needs_channels, stored
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch
    from torch import Tensor

    from softknee._engine.plan import Value
    from softknee._spec import Spec


class Vector(Activation):
    """An activation of the vectors along one dimension, usually the channels.

    Args:
        dim: The dimension; by default as its source has it. One-dimensional inputs are one vector.
        channels: Size of that dimension, where there are parameters for each entry.
        trainable: Whether parameters are trained: all, none, or those named; by default as their source does.
        initialization: How parameters for each entry are drawn; the spec lists the ways.
        generator: Source of drawn parameters, torch's global one by default.
        **values: Parameters by name: numbers, or tensors.

    Raises:
        OptionError: An option is unknown to this activation, missing, or its value is outside the allowed range.
    """

    def __init__(
        self,
        *,
        dim: int | None = None,
        channels: int | None = None,
        trainable: bool | Collection[str] | None = None,
        initialization: str | None = None,
        generator: torch.Generator | None = None,
        **values: Any,
    ) -> None:
        spec = self.spec
        if needs_channels(spec) and channels is None:
            raise OptionError(f"{spec.name} has parameters for each channel; say how many there are, as in channels=64")
        if channels is not None and not spec.initializations:
            raise OptionError(f"{spec.name} has no parameters for each channel; leave out channels={excerpt(channels)}")
        if channels is not None:
            check_whole(spec, "channels", channels)
        for option in ("per_channel", "terms"):
            if option in values:
                raise OptionError(_no_option(spec, option))
        dim = spec.dim if dim is None else dim
        check_integer(spec, "dim", dim)
        super().__init__(
            trainable=trainable, terms=channels, initialization=initialization, generator=generator, **values
        )
        self.dim = dim
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation.

        Args:
            x: Any shape with at least one dimension, any floating dtype.

        Returns:
            Dtype of `x`, and its shape but for `dim` where the activation changes its size.

        Raises:
            UsageError: There is no such dimension, or it has another size than the parameters.
        """
        dim = dimension(self, x, self.dim, self.channels)
        if is_distributed(x):
            return by_parts(partial(self._evaluate, dim=dim), x, self._values(), Along(dim, None, 0))
        return self._evaluate(x, self._values(), dim=dim)

    def _evaluate(self, x: Tensor, values: Sequence[Value], *, dim: int) -> Tensor:
        arguments = [
            broadcast(value, x, vector=param.vector) for param, value in zip(stored(self.spec), values, strict=True)
        ]
        return self.spec.function(x, *arguments, dim=dim)

    def extra_repr(self) -> str:
        """Return parameter values and the dimension."""
        return ", ".join(filter(None, [super().extra_repr(), f"dim={self.dim}"]))


def _no_option(spec: Spec, option: str) -> str:
    """Return why an option of other activations is none here."""
    if spec.initializations:
        return f"{spec.name} takes no {option}; its parameters go by channels, as in channels=64"
    return f"{spec.name} takes no {option}: it looks at all entries along a dimension, and its parameters are numbers"
