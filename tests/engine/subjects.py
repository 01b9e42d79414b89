"""The catalogue's activations as the engine tests take them, and what they give in float64 as they are written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from softknee import nn
from softknee._engine.table import table_of
from softknee.functional import SPECS

if TYPE_CHECKING:
    from softknee._engine.grid import Table
    from softknee._spec import Param, Spec
    from softknee.nn.elementwise import Elementwise

    Results = tuple[Tensor, Tensor, dict[str, Tensor]]

EPS = torch.finfo(torch.float32).eps
CHANNELS = 5
# Of the value and the slope: 8 roundings, but where quotients of exponentials are differentiated.
ULP = 8
MORE_ULP = {"mish": 32, "telu": 12}
PARAMETER_TOLERANCE = 1e-5
# Where they are near zero these subtract numbers of the size of the input, and the slopes of those numbers.
CANCELLING = {"gelu", "gelu_tanh", "linear_spline", "snake", "soft_exponential", "swigelu"}
# Slopes that keep their relative precision wherever they vanish.
PRECISE_SLOPES = {
    *("identity", "relu", "leaky_relu", "prelu", "rrelu", "relu6", "srelu", "brelu", "softplus", "hardsigmoid"),
    *("hardtanh", "silu", "swish", "hardswish", "staf", "selu", "bspline"),
}
# No kernel is faster than to leave the input alone.
NOTHING_TO_DO = {"identity"}
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


# One activation at least of every structure an engine can meet; the checker puts all others through the engines.
STRUCTURES = (
    *("identity", "relu", "leaky_relu", "prelu", "rrelu", "relu6", "srelu", "brelu", "elu", "trainable_elu", "celu"),
    *("selu", "pelu", "softplus", "soft_exponential", "sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "isru"),
    *("adaptive_sigmoid", "sgt", "gelu", "gelu_tanh", "silu", "swish", "hardswish", "mish", "telu", "swigelu", "staf"),
    *("snake", "rational", "linear_spline", "bspline"),
)
DEFAULTS = tuple(Subject(spec) for spec in SPECS if spec.name in STRUCTURES)
SUBJECTS = (*DEFAULTS, *(Subject(case.spec, per_channel=True) for case in DEFAULTS if case.spec.parameters))


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
    """Normal numbers of standard deviation `scale`; torch's own differ in the last digit between instruction sets."""
    return torch.from_numpy(scale * np.random.default_rng(seed).standard_normal(shape)).float()


def inputs_for(case: Subject, *shape: int, scale: float = 2.0) -> Tensor:
    """Normal numbers, but for logarithms only such that their arguments are positive."""
    x = normal(*shape, scale=scale)
    return x.clamp(min=-1) if case.spec.name == "soft_exponential" else x


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


def run(module: Elementwise, x: Tensor, g: Tensor) -> Results:
    """Value and gradients, those of the parameters by name."""
    x = x.detach().requires_grad_()
    parameters = dict(module.named_parameters())
    y = module(x)
    by_x, *by = torch.autograd.grad(y, [x, *parameters.values()], g)
    return y.detach(), by_x, dict(zip(parameters, by, strict=True))


def assert_right(module: Elementwise, x: Tensor, g: Tensor, results: Results) -> None:
    """Compare what `run` gave with float64: value, gradient of the input, gradients of the parameters."""
    y, by_x, by = results
    wanted, name = exact(module, x), module.spec.name
    ulp = MORE_ULP.get(name, ULP)
    reach = wanted.value.abs().amax() if name in CANCELLING else 0.0
    assert_within(y, wanted.value, ulp * torch.clamp(wanted.conditioning, min=reach))
    floor = 0.0 if name in PRECISE_SLOPES else wanted.slope.abs().amax()
    slopes = torch.clamp(wanted.slope_conditioning, min=floor)
    assert_within(by_x, g.double() * wanted.slope, ulp * (g.double() * slopes).abs())
    assert_parameters_right(module, wanted, g, by)


def assert_table_right(module: Elementwise, x: Tensor, g: Tensor, results: Results) -> None:
    """Compare what `run` gave with float64, to what any accurate table achieves."""
    (y, by_x, by), wanted = results, exact(module, x)
    slopes = (g * wanted.slope).abs().max() + (g * wanted.slope_conditioning).abs().max()
    assert ((y - wanted.value).abs() <= 2e-6 * wanted.value.abs().max() + ULP * EPS * wanted.conditioning.max()).all()
    assert ((by_x - g * wanted.slope).abs() <= 2e-5 * slopes).all()
    for key, got in by.items():
        contributions = g.double() * wanted.by_parameters[key]
        sizes = summed(module, key, contributions.abs())
        assert ((got - summed(module, key, contributions)).abs() <= 1e-3 * sizes).all(), key


def assert_parameters_right(module: Elementwise, wanted: Exact, g: Tensor, by: dict[str, Tensor]) -> None:
    """Compare gradients of parameters with float64, relative to the sizes of the contributions of elements."""
    for key, got in by.items():
        contributions = g.double() * wanted.by_parameters[key]
        sizes = summed(module, key, contributions.abs())
        assert ((got - summed(module, key, contributions)).abs() <= PARAMETER_TOLERANCE * sizes + 1e-37).all(), key


def assert_within(got: Tensor, wanted: Tensor, roundings: Tensor) -> None:
    errors = (got.double() - wanted).abs()
    worst = (errors / (EPS * roundings + 1e-45)).argmax()
    place = (got.flatten()[worst].item(), wanted.flatten()[worst].item())
    assert (errors <= EPS * roundings + 1e-45).all(), place


def leaves_of(module: Elementwise) -> Tensor | None:
    """The parameter values of a module as engines take them."""
    plan = module._plans[0]
    leaves = plan.leaves(module._values(), module.per_channel or 1 + plan.channelwise, torch.device("cpu"))
    return None if leaves is None else leaves.detach()


def table_for(module: Elementwise) -> Table:
    """The table that a module would use."""
    return table_of(module._plans[0], leaves_of(module), torch.device("cpu"), module.reach)


# Modules whose parameters all elements share, by engine: one to be trained, one without parameters, one with vectors.
SHARED = {
    "swish": lambda how="auto": nn.Swish(beta=1.3, engine=how),
    "mish": lambda how="auto": nn.Mish(engine=how),
    "bspline": lambda how="auto": nn.BSpline(generator=torch.Generator().manual_seed(1), engine=how),
}
