"""What every activation module has: a spec, and the parameters it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._engine.distributed import assign
from softknee._errors import OptionError, UsageError
from softknee.nn.options import can_be_trained, check_generator, check_options, stored
from softknee.nn.values import check_vectors, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from softknee._spec import Param, Spec


class Activation(nn.Module):
    """An activation with its parameters, fixed or trainable, shared or per channel.

    A fixed scalar is a plain number, as in torch's own modules. Trainable scalars are stored with shape `(1,)`,
    per-channel parameters with `(channels,)`, vectors with `(terms,)` or `(terms, channels)`. Parameters that are
    given with the input are not stored.

    Args:
        trainable: Whether parameters are trained: all, none, or those named; by default as their source does.
        per_channel: Number of channels, for separate parameters in each.
        terms: Number of terms: the length of vector parameters, or the degree of a rational function.
        initialization: How vector parameters are drawn; the spec lists the ways.
        generator: Source of drawn parameters, torch's global one by default.
        **values: Parameters by name: numbers, or tensors of the stored shape.

    Raises:
        OptionError: An option is unknown to this activation, or its value is outside the allowed range.
    """

    spec: Spec

    def __init__(
        self,
        *,
        trainable: bool | Collection[str] | None = None,
        per_channel: int | None = None,
        terms: int | None = None,
        initialization: str | None = None,
        generator: torch.Generator | None = None,
        **values: float | Tensor,
    ) -> None:
        super().__init__()
        check_options(self.spec, trainable, per_channel, terms, initialization, values)
        check_generator(self.spec, generator)
        if isinstance(trainable, str):
            trainable = (trainable,)
        self.per_channel = per_channel
        # What `reset_parameters` starts from again.
        self._terms = terms
        self._initialization = initialization
        self._given = {
            name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in values.items()
        }
        drawn = self._drawn(generator)
        if self.spec.initializations and values:
            check_vectors(self.spec, drawn, values, terms)
        for param in stored(self.spec):
            value = values.get(param.name, drawn.get(param.name, param.default))
            self._store(param, value, trained=_is_trained(param, trainable))

    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set parameters and buffers to what they started from; drawn ones are drawn anew.

        That is how a module that was made without memory, on `torch.device("meta")`, gets its values after `to_empty`.
        Fixed scalars are numbers and stay as they are, as do networks inside of it, which have a method of their own.
        Where parameters are DTensors, all processes call it, and the first one's values count.

        Args:
            generator: Source of drawn parameters, torch's global one by default.

        Raises:
            UsageError: A parameter was given as a tensor on the meta device, which has no values.
        """
        drawn = self._drawn(generator)
        for param in stored(self.spec):
            tensor: Tensor | None = self._parameters.get(param.name)
            tensor = self._buffers.get(param.name) if tensor is None else tensor
            if tensor is None:
                continue
            value = self._given.get(param.name, drawn.get(param.name, param.default))
            if isinstance(value, Tensor) and value.is_meta and not tensor.is_meta:
                raise UsageError(
                    f"{param.name} of {self.spec.name} was given as a tensor on the meta device, which has no values "
                    "to start from; give it on a device that has memory, or load a state dict"
                )
            assign(tensor, self._in_stored_form(param, value))

    def _drawn(self, generator: torch.Generator | None) -> Mapping[str, Tensor]:
        """Return drawn parameters by name."""
        initializations = self.spec.initializations
        if not initializations:
            return {}
        draw = initializations[self._initialization or next(iter(initializations))]
        return draw(self._terms or self.spec.terms, generator)

    def _store(self, param: Param, value: Any, *, trained: bool) -> None:
        """Keep a fixed scalar as a number, everything else as a parameter or buffer.

        Raises:
            OptionError: There is no value.
        """
        if value is None:
            raise OptionError(f"{param.name} of {self.spec.name} has no default; give its value as an option")
        if param.integer and not (isinstance(value, Tensor) and value.is_meta):
            setattr(self, param.name, int(value if isinstance(value, float | int) else torch.as_tensor(value).item()))
            return
        value = float(value) if isinstance(value, int) else value
        if not trained and isinstance(value, float) and self.per_channel is None:
            setattr(self, param.name, float(value))
            return
        tensor = self._in_stored_form(param, value)
        if trained:
            self.register_parameter(param.name, nn.Parameter(tensor))
        else:
            self.register_buffer(param.name, tensor)

    def _in_stored_form(self, param: Param, value: Any) -> Tensor:
        """Return a value as a new tensor of the shape and dtype in which it is kept."""
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
        if self.per_channel is None:
            return tensor if param.vector else tensor.reshape(1)
        shape = tensor.shape[:1] if param.vector else ()
        tensor = tensor.unsqueeze(-1) if tensor.dim() == len(shape) else tensor
        return tensor.expand(*shape, self.per_channel).clone()

    def _values(self) -> list[Any]:
        """Return the stored parameters in the order of the spec."""
        # Parameters come straight from their dictionary, which is several times faster than as attributes.
        direct: dict[str, Any] = self._parameters
        return [
            getattr(self, param.name) if direct.get(param.name) is None else direct[param.name]
            for param in self.spec.parameters
            if not param.given
        ]

    @property
    def _device(self) -> torch.device:
        """Where its parameters are, the CPU where it has none."""
        devices = (tensor.device for tensor in (*self.parameters(), *self.buffers()))
        return next(devices, torch.device("cpu"))

    def named_values(self) -> dict[str, Tensor | float]:
        """Return the present parameter values by name, detached, in their stored shapes."""
        values = {param.name: getattr(self, param.name) for param in stored(self.spec)}
        return {name: value.detach() if isinstance(value, Tensor) else value for name, value in values.items()}

    def extra_repr(self) -> str:
        """Return parameter values, and which are trained."""
        parts = [f"{name}={shown(value)}" for name, value in self.named_values().items()]
        trained = [name for name, _ in self.named_parameters(recurse=False)]
        parts += [f"trainable=({', '.join(trained)})"] if trained else []
        parts += [f"per_channel={self.per_channel}"] if self.per_channel is not None else []
        return ", ".join(parts)


def dimension(module: Activation, x: Tensor, dim: int, channels: int | None = None) -> int:
    """Return a dimension of an input as a number that is not negative; one-dimensional inputs are all channels.

    Args:
        module: For the message.
        x: The input.
        dim: The dimension asked for.
        channels: Its size, where it must have one.

    Returns:
        The dimension.

    Raises:
        UsageError: There is no such dimension, or it has another size.
    """
    if x.dim() == 1:
        dim = 0
    if not -x.dim() <= dim < x.dim():
        raise UsageError(
            f"{type(module).__name__} expects channels in dimension {dim}, got an input of shape {tuple(x.shape)}"
        )
    dim %= x.dim()
    if channels is not None and x.shape[dim] != channels:
        raise UsageError(
            f"{type(module).__name__} has parameters for {channels} channels, "
            f"got an input of shape {tuple(x.shape)} with {x.shape[dim]} in dimension {dim}"
        )
    return dim


def _is_trained(param: Param, trainable: bool | Collection[str] | None) -> bool:
    if not can_be_trained(param):
        return False
    if trainable is None:
        return param.trainable
    return trainable if isinstance(trainable, bool) else param.name in trainable
