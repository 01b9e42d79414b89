"""Follows what a model computes from one layer with weights to the next, and measures it on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from softknee._errors import UsageError
from softknee._surgery.observe import Observer
from softknee._surgery.operations import CONVOLUTIONS, name_of, positional
from softknee._surgery.trace import Ref, tensors_in, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from softknee._surgery.trace import Call

_USUAL = (("input", 0), ("weight", 1), ("bias", 2))
# Where functions with weights have their input, weight and bias: names and positions.
_LAYERS: dict[str, tuple[tuple[str, int], ...]] = {
    "linear": _USUAL,
    **dict.fromkeys(CONVOLUTIONS, _USUAL),
    "matmul": (("input", 0), ("other", 1)),
    "mm": (("input", 0), ("mat2", 1)),
    "addmm": (("mat1", 1), ("mat2", 2), ("input", 0)),
}


@dataclass(frozen=True)
class Node:
    """One call of a function that returned a tensor.

    Attributes:
        name: Of the function, without underscores.
        arguments: With tensors as `Ref`.
        keywords: With tensors as `Ref`.
        output: Number of the result; each of several has a node.
    """

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: int

    @property
    def inputs(self) -> list[int]:
        """Numbers of the tensors it was called with."""
        return [one.number for one in tree_flatten((self.arguments, self.keywords))[0] if isinstance(one, Ref)]


@dataclass
class Spread:
    """Mean and mean square of all elements of several tensors."""

    count: int = 0
    mean: float = 0.0
    square: float = 0.0

    def add(self, x: Tensor) -> None:
        """Count the elements of a tensor in."""
        variance, mean = torch.var_mean(unwrapped(x.detach()).float(), correction=0)
        self.count += x.numel()
        share = x.numel() / max(self.count, 1)
        self.mean += (float(mean) - self.mean) * share
        self.square += (float(variance + mean.square()) - self.square) * share

    @property
    def std(self) -> float:
        """Standard deviation; not a number where nothing was seen."""
        return math.sqrt(max(self.square - self.mean**2, 0.0)) if self.count else math.nan


@dataclass(eq=False)
class Layer:
    """A layer with weights: a linear one or a convolution.

    Attributes:
        path: Of the module that it is, or of the weight.
        weight: Multiplies the inputs.
        bias: None if it has none.
        fan_in: How many inputs each output is a sum of, on average; zeros of padding do not count.
        inputs: Numbers of the tensors that it was called with.
        outputs: Numbers of its results.
        spread: Of all elements of the results.
    """

    path: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    fan_in: float
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    spread: Spread = field(default_factory=Spread)


class Follower(Observer):
    """Writes down, beside activations, every function that makes a tensor of others, and the layers with weights.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.nodes: list[Node] = []
        self.layers: dict[nn.Parameter, Layer] = {}
        # Means with mean squares, and empty tensors of the same kind, by the numbers of tensors.
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}
        self.likes: dict[int, Tensor] = {}
        self._weights = {parameter: name for name, parameter in model.named_parameters()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function, and write it down if it made a tensor."""
        args, kwargs = positional(args, kwargs or {})
        tensors = tensors_in((args, kwargs))
        if self._open or not self._runs or not tensors:
            return super().__torch_function__(func, types, args, kwargs)
        for one in tensors:
            self._look(one)
        # The numbers from before, for one that is overwritten gets a new one.
        name, arguments, keywords = name_of(func), self._refs(args), self._refs(kwargs)
        layer = self._layer(name, func, args, kwargs)
        result = super().__torch_function__(func, types, args, kwargs)
        for one in tensors_in(result):
            self._look(one)
            self.nodes.append(Node(name, arguments, keywords, self._number(one)))
        if layer is not None:
            layer.outputs.append(self._number(result))
            layer.spread.add(result)
        return result

    def _finish(self, call: Call, result: Any, *, fixed: bool = False) -> None:
        super()._finish(call, result, fixed=fixed)
        if isinstance(result, Tensor):
            self._look(result)

    def _look(self, x: Tensor) -> None:
        number = self._number(x)
        counts = x.is_floating_point() or x.dtype is torch.bool
        if number not in self.moments and counts and x.numel():
            values = unwrapped(x.detach()).float()
            self.moments[number] = values.mean(), values.square().mean()
            self.likes[number] = values.new_empty(0, dtype=x.dtype)

    def _layer(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Layer | None:
        """Return the layer that a call is, None if it does not multiply by a weight of the model."""
        if name not in _LAYERS or kwargs.keys() & {"alpha", "beta"}:
            return None
        x, weight, *rest = (
            kwargs.get(keyword, args[position] if position < len(args) else None) for keyword, position in _LAYERS[name]
        )
        if not (isinstance(x, Tensor) and isinstance(weight, nn.Parameter) and weight in self._weights):
            return None
        if weight.dim() < 2 or not weight.is_floating_point():
            return None
        if weight not in self.layers:
            bias = next((one for one in rest if one is not None and one in self._weights), None)
            path = self._weights[weight].removesuffix(".weight")
            self.layers[weight] = Layer(path, weight, bias, _fan_in(name, func, x, weight, args, kwargs))
        layer = self.layers[weight]
        layer.inputs.append(self._number(x))
        return layer


class Scaler(Follower):
    """Scales the weights of layers, as they run for the first time, so that their outputs have standard deviation 1.

    Args:
        model: The model.
        chosen: The weights to scale.
        tolerance: How far from 1 a standard deviation may be.
    """

    def __init__(self, model: nn.Module, chosen: set[nn.Parameter], tolerance: float) -> None:
        super().__init__(model)
        self.factors: dict[nn.Parameter, float] = {}
        self._chosen = chosen
        self._tolerance = tolerance

    def _layer(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Layer | None:
        layer = super()._layer(name, func, args, kwargs)
        if layer is not None and layer.weight in self._chosen and layer.weight not in self.factors:
            spread = Spread()
            spread.add(func(*args, **kwargs))
            if not 0 < spread.std < math.inf:
                raise UsageError(
                    f"the output of {layer.path} has standard deviation {spread.std:g} in the example, which no scale "
                    "of its weights makes 1; give more examples that differ, or lsuv=False"
                )
            # Its bias is zero, so the output is in proportion to the weights.
            factor = 1.0 if abs(spread.std - 1) <= self._tolerance else 1 / spread.std
            with torch.no_grad():
                layer.weight.mul_(factor)
            self.factors[layer.weight] = factor
        return layer


def _fan_in(
    name: str, func: Callable[..., Any], x: Tensor, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> float:
    """Return how many inputs each output is a sum of, on average."""
    if name == "linear":
        return weight.shape[1]
    if name not in CONVOLUTIONS:
        return weight.shape[0]
    # Counted where all is one, which knows of groups, strides, padding and transposition.
    one = x[:1] if x.dim() == weight.dim() else x
    options = {name: value for name, value in kwargs.items() if name not in dict(_USUAL)}
    count: Tensor = func(torch.ones_like(one), torch.ones_like(weight), None, *args[len(_USUAL) :], **options)
    return float(unwrapped(count).float().mean())
