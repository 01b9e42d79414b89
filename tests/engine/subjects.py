"""The catalogue's activations as the engine tests take them, and what they give in float64 as they are written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softknee import nn
from softknee.functional import SPECS

if TYPE_CHECKING:
    from softknee._spec import Param, Spec
    from softknee.nn.elementwise import Elementwise

EPS = torch.finfo(torch.float32).eps
CHANNELS = 5
SPREAD = 0.25
VECTOR_SPREAD = 0.05
# Its default of 51 takes long to trace and to compile, and shows nothing else.
TERMS = {"linear_spline": {"terms": 9}}


@dataclass(frozen=True)
class Subject:
    """A catalogued activation: at its defaults, or with all its parameters trained in each channel."""

    spec: Spec
    per_channel: bool = False

    def __str__(self) -> str:
        return f"{self.spec.name}{'-per-channel' * self.per_channel}"

    def module(
        self, *, engine: str = "fused", channels: int = CHANNELS, channel_dim: int = 1, seed: int = 0
    ) -> Elementwise:
        """The module in eval mode; its parameters differ between channels where each has its own."""
        generator = torch.Generator().manual_seed(seed)
        make = partial(getattr(nn, self.spec.title), **TERMS.get(self.spec.name, {}))
        if not self.per_channel:
            return make(engine=engine, channel_dim=channel_dim, generator=generator).eval()
        values = moved(make(generator=generator), channels, generator)
        return make(engine=engine, channel_dim=channel_dim, trainable=True, per_channel=channels, **values).eval()


DEFAULTS = tuple(map(Subject, SPECS))
SUBJECTS = (*DEFAULTS, *(Subject(spec, per_channel=True) for spec in SPECS if spec.parameters))


def subject(name: str, *, per_channel: bool = False) -> Subject:
    """The subject of a name."""
    return Subject(next(spec for spec in SPECS if spec.name == name), per_channel)


def moved(module: Elementwise, channels: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Allowed parameter values around those of a module, others in each channel."""
    values: dict[str, Tensor] = {}
    for param in module.spec.parameters:
        start = torch.as_tensor(getattr(module, param.name)).detach()
        shape = (*start.shape[: param.vector], channels)
        spread = VECTOR_SPREAD if param.vector else SPREAD
        value = start.reshape(-1, 1) + spread * torch.randn(shape, generator=generator)
        values[param.name] = _allowed(param, value.reshape(shape), values)
    return values


def _allowed(param: Param, value: Tensor, others: dict[str, Tensor]) -> Tensor:
    if param.low is not None:
        value = value.clamp(min=param.low + SPREAD)
    if param.high is not None:
        value = value.clamp(max=param.high)
    return torch.maximum(value, others[param.not_below] + SPREAD) if param.not_below else value


def normal(*shape: int, seed: int = 1, scale: float = 2.0) -> Tensor:
    """Standard normal numbers times `scale`, the same for the same seed."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Exact:
    """What an activation gives in float64, element by element.

    `conditioning` and `slope_conditioning` are how much the value and the slope change, to first order, with relative
    changes of 1 in the input, in the parameters and in themselves.
    """

    value: Tensor
    slope: Tensor
    by_parameters: dict[str, Tensor]
    conditioning: Tensor
    slope_conditioning: Tensor


def exact(module: Elementwise, x: Tensor) -> Exact:
    """Evaluate the function of a module in float64, with a copy of each parameter for each element."""
    x = x.detach().double().requires_grad_()
    spread = {param.name: _spread(module, param, x).requires_grad_() for param in module.spec.parameters}
    value = _apply(module, x, list(spread.values()))
    inputs = [x, *spread.values()]
    slope, *by = _grad(value, inputs, create_graph=True)
    curvature, *slope_by = _grad(slope, inputs)
    weights = [x, *spread.values()]
    return Exact(
        value.detach(),
        slope.detach(),
        {name: one.detach() for name, one in zip(spread, by, strict=True)},
        _largest(value, [slope, *by], weights),
        _largest(slope, [curvature, *slope_by], weights),
    )


def _apply(module: Elementwise, x: Tensor, parameters: list[Tensor]) -> Tensor:
    if not module.spec.channelwise:
        return module.spec.function(x, *parameters)
    shape = [1] * x.dim()
    shape[_channel_dim(module, x)] = -1
    return module.spec.function(x, *parameters, channel=torch.arange(x.shape[_channel_dim(module, x)]).view(shape))


def _spread(module: Elementwise, param: Param, x: Tensor) -> Tensor:
    value = torch.as_tensor(getattr(module, param.name), dtype=torch.float64).detach()
    terms = value.shape[: param.vector]
    shape = [1] * x.dim()
    if module.per_channel is not None:
        shape[_channel_dim(module, x)] = module.per_channel
    return value.reshape((*terms, *shape)).expand((*terms, *x.shape)).clone()


def _channel_dim(module: Elementwise, x: Tensor) -> int:
    return 0 if x.dim() == 1 else module.channel_dim % x.dim()


def _grad(y: Tensor, inputs: list[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    if not y.requires_grad:
        return tuple(map(torch.zeros_like, inputs))
    return torch.autograd.grad(
        y, inputs, torch.ones_like(y), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _largest(value: Tensor, by: list[Tensor], inputs: list[Tensor]) -> Tensor:
    dims = value.dim()
    parts = [(one * to).abs() for one, to in zip(by, inputs, strict=True)]
    parameters = sum((part if part.dim() == dims else part.sum(0) for part in parts[1:]), torch.zeros_like(value))
    return torch.stack([value.abs(), parts[0], parameters]).amax(0).detach()


def summed(module: Elementwise, name: str, contributions: Tensor) -> Tensor:
    """Add up contributions of elements, `(terms, *x.shape)` for a vector, to the shape of a parameter."""
    parameter = getattr(module, name)
    vector = next(param.vector for param in module.spec.parameters if param.name == name)
    dims = [*range(int(vector), contributions.dim())]
    if module.per_channel is not None:
        x_dims = len(dims)
        dims.remove(int(vector) + (0 if x_dims == 1 else module.channel_dim % x_dims))
    if not dims:
        return contributions.reshape(parameter.shape)
    return contributions.sum(dims).reshape(parameter.shape)
