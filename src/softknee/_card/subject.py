"""One activation of the catalogue at given values of its parameters, as a function of `x` alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softknee._expression.parse import parse
from softknee.nn.formula import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._expression.tree import Expression
    from softknee._spec import Spec

SEED = 0
# Channels of a vector function's example.
CHANNELS = 8
CHANNEL = "channel"


@dataclass(frozen=True)
class Subject:
    """A spec with a value for each name in its formula.

    Attributes:
        spec: The activation.
        values: Numbers, or tuples of them for vectors; `channel` where the function depends on it.
    """

    spec: Spec
    values: Mapping[str, float | tuple[float, ...]]

    @classmethod
    def of(cls, spec: Spec) -> Subject:
        """Return an activation at its defaults; vectors are drawn by its first initialization with a fixed seed."""
        values: dict[str, Any] = {
            param.name: param.default for param in spec.parameters if not param.vector and param.default is not None
        }
        for draw in list(spec.initializations.values())[:1]:
            drawn = draw(spec.terms or CHANNELS, torch.Generator().manual_seed(SEED))
            values |= {name: _plain(tensor) for name, tensor in drawn.items()}
        return cls(spec, {**values, **({CHANNEL: 0.0} if spec.channelwise else {})})

    @property
    def elementwise(self) -> bool:
        """Whether it is a function of one number, other numbers given."""
        return self.spec.kind != "vector"

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate at `x`."""
        spec = self.spec
        # Entries of a vector come one by one, as tensors: that is how every function takes them.
        arguments = [self._argument(param.name, x, whole=param.integer) for param in spec.parameters]
        if spec.channelwise:
            return spec.function(x, *arguments, channel=torch.tensor(int(self._number(CHANNEL))))
        return spec.function(x, *arguments)

    def _argument(self, name: str, x: Tensor, *, whole: bool) -> Any:
        value = self.values[name]
        if isinstance(value, tuple):
            return torch.tensor(value, dtype=x.dtype)
        return int(value) if whole else value

    def _number(self, name: str) -> float:
        value = self.values[name]
        return value if isinstance(value, float) else float("nan")

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, first and second derivative, as the backward pass takes them."""
        with torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            value = self(at)
            slope = _by(value, at)
            bend = _by(slope, at)
        return value.detach(), slope.detach(), bend.detach()

    def backward(self, x: Tensor) -> Tensor | None:
        """Return what the backward pass differentiates in place of the function; None where that is the function."""
        if not self.spec.surrogate:
            return None
        formula = parse(self.spec.surrogate, FUNCTIONS)
        return formula(x, *(self.values[name] for name in formula.parameters))

    @cached_property
    def expression(self) -> Expression:
        """The formula of the value."""
        return parse(self.spec.formula, FUNCTIONS)

    @cached_property
    def kinks(self) -> tuple[float, ...]:
        """Where derivatives jump, knots among them, ascending."""
        zero = torch.zeros((), dtype=torch.float64)
        found = set(self.knots)
        for text in self.spec.kinks:
            place = parse(text)
            found.add(float(place(zero, *(self.values[name] for name in place.parameters))))
        return tuple(sorted(value for value in found if value == value and abs(value) < float("inf")))

    @property
    def knots(self) -> tuple[float, ...]:
        """Where pieces of a spline meet."""
        lengths = [len(value) for value in self.values.values() if isinstance(value, tuple)]
        return self.spec.knots(max(lengths)) if self.spec.knots is not None and lengths else ()


def _plain(tensor: Tensor) -> tuple[float, ...] | float | Any:
    return tuple(tensor.double().tolist()) if tensor.dim() == 1 else tensor


def _by(y: Tensor, x: Tensor) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    # Sums of zeros may have no memory of their own.
    return torch.zeros_like(x) if slope is None else slope.clone()
