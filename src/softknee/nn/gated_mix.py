"""A mixture of activations with weights that a small network computes from the whole input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._errors import OptionError
from softknee.functional import contextual
from softknee.nn.contextual import Contextual, means, spread
from softknee.nn.names import BY_NAME, unknown
from softknee.nn.options import check_whole, names_of
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._spec import Spec


class GatedMix(Contextual):
    """A mixture of activations, weighted for each sample by a network of the channels' means.

    Args:
        channels: Number of channels.
        candidates: Names of the activations: any catalogued functions of one element, at their default parameters.
        reduction: By how much the network's hidden layer is narrower than the input.
        **options: None but a `generator`, which is not used.

    Raises:
        OptionError: An option is outside the allowed range, or a candidate is no such function.
    """

    spec = next(spec for spec in contextual.SPECS if spec.name == "gated_mix")

    def __init__(
        self,
        channels: int,
        *,
        candidates: Sequence[str] = ("relu", "gelu", "silu", "tanh"),
        reduction: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        check_whole(self.spec, "reduction", reduction)
        names = None if isinstance(candidates, str) else names_of(candidates)
        if names is None:
            raise OptionError(
                f"candidates of gated_mix must be a list of names, as in ['relu', 'gelu'], got {excerpt(candidates)}"
            )
        if not names:
            raise OptionError("gated_mix needs at least one candidate")
        self.candidates = tuple(_candidate(name).name for name in names)
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = _Even(hidden, len(self.candidates))

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
        weights = torch.softmax(self.fc2(torch.relu(self.fc1(means(x, self.fc1.weight)))), dim=1)
        each = [spread(weight[:, None], x) for weight in weights.unbind(1)]
        return contextual.mixed(x, each, [_function(_candidate(name)) for name in self.candidates])

    def extra_repr(self) -> str:
        """Return the number of channels and the candidates."""
        return f"{super().extra_repr()}, candidates=({', '.join(self.candidates)})"


class _Even(nn.Linear):
    """A layer that makes all weights equal at first."""

    def reset_parameters(self) -> None:
        """Start from zeros."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def _candidate(name: str) -> Spec:
    """Return the spec of a candidate.

    Raises:
        OptionError: It is no function of one element with default parameters.
    """
    spec = BY_NAME.get(name)
    if spec is None:
        raise OptionError(unknown(name, " for gated_mix"))
    unfit = spec.kind != "elementwise" or spec.channelwise or spec.sampled is not None
    if unfit or any(param.default is None for param in spec.parameters):
        raise OptionError(
            f"{name} cannot be mixed; gated_mix takes functions of one element with default parameters, without noise"
        )
    return spec


def _function(spec: Spec) -> Callable[[Tensor], Tensor]:
    return lambda x: spec.function(x, *(param.default for param in spec.parameters))
